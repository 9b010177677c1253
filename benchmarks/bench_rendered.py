"""How many pictures are rendered a second? CT, CR and MG as JPEG for a viewport of 512 samples to a side.

The radiographs are real ones where they are at hand. Before anything is timed each answer is decoded: it must be a
JPEG of the size that the viewport gives, and no picture of nothing.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import imagecodecs

from benchmarks import bench_store, slow_link_images, workload
from benchmarks.report import Figure
from benchmarks.scale import Scale
from benchmarks.servers import Server
from benchmarks.workload import Instance
from pacs.bench import load
from pacs.bench.corpus import Corpus

VIEWPORT = 512
_CLIENTS = (1, 4)
_COPIES = {"CT": 60, "CR": 12, "MG": 6}
"""Instances under UIDs of their own: more than a cache of decoded frames keeps."""


def sources(folder: Path | None, scale: Scale) -> dict[str, list[Instance]]:
    """Instances of each kind, real where they are at hand."""
    if scale.rows >= VIEWPORT:
        found = {subject.name: subject.instances for subject in slow_link_images.subjects(folder, scale)}
    else:
        found = {"CT": workload.synthetic(scale.slices, scale.rows)}
    corpus = Corpus("rendered", max(1, VIEWPORT // scale.rows))
    for modality in ("CR", "MG"):
        if modality not in found:
            found[modality] = [workload.read(next(corpus.series(modality, modality)).file)]
    return {modality: found[modality] for modality in _COPIES}


def rendered(server: Server, folder: Path | None, scale: Scale) -> Iterator[Figure]:
    """Pictures of each kind, to one client and to four."""
    for modality, instances in sources(folder, scale).items():
        count = min(_COPIES[modality], scale.series)
        series = workload.series_of(instances[: max(1, count)], count, f"rendered {modality}")
        bench_store.send(server, series, 2, 2)
        requests = [load.get(_path(server, one), server.host, "image/jpeg") for one in series]
        _verify(server, requests[0], instances[0])
        draw = random.Random("rendered")
        for clients in _CLIENTS:
            endless = (draw.choice(requests) for _ in itertools.count())
            cpu = server.cpu_seconds()
            run = load.run(server.address, endless, clients=clients, seconds=scale.seconds)
            cpu = (server.cpu_seconds() - cpu) / run.requests
            case = f"{modality} as JPEG of {VIEWPORT} pixels, {clients} client{'s' * (clients > 1)}"
            detail = {"median_ms": run.median, "p95_ms": run.quantile(0.95), "bytes": run.bytes / run.requests}
            yield Figure("rendered", case, server.name, run.rate, "pictures/s", detail=detail)
            yield Figure("rendered", case, server.name, cpu * 1e3, "ms of CPU", False)


def _path(server: Server, one: Instance) -> str:
    return (
        f"{server.root}/studies/{one.study}/series/{one.series}/instances/{one.instance}"
        f"/rendered?viewport={VIEWPORT},{VIEWPORT}"
    )


def _verify(server: Server, request: load.Request, source: Instance) -> None:
    answer = load.fetch(server.address, request)
    if answer.status != 200 or not answer.body.startswith(b"\xff\xd8"):
        raise load.RequestFailedError(f"{server.name}: rendered: {answer.status} {answer.body[:200]!r}")
    image = imagecodecs.jpeg8_decode(answer.body)
    largest = max(image.shape[:2])
    if largest > VIEWPORT or (len(source.pixels) >= 2 * VIEWPORT**2 and largest < VIEWPORT):
        raise load.RequestFailedError(f"{server.name}: a picture of {image.shape} for a viewport of {VIEWPORT}")
    if int(image.max()) - int(image.min()) < 32:
        raise load.RequestFailedError(f"{server.name}: a picture of nothing")
