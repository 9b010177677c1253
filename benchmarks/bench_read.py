"""How long does the metadata of a series take, the first time and after? How many frames are served a second?

The series is a real CT where it is at hand. Frames are asked for in random order. Before anything is timed the answers
are verified: the metadata names every instance, the frames carry exactly the samples of the uploaded files.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator

import imagecodecs
import numpy as np

from benchmarks.report import Figure
from benchmarks.scale import Scale
from benchmarks.servers import Server
from benchmarks.workload import Instance
from pacs.bench import load

STORED = "multipart/related; type=application/octet-stream; transfer-syntax=*"
DECODED = 'multipart/related; type="application/octet-stream"'
_HTJ2K = "1.2.840.10008.1.2.4.202"


def metadata(server: Server, copies: list[list[Instance]], scale: Scale) -> Iterator[Figure]:
    """Series metadata: each copy of the series is asked for once, then the last one repeatedly."""
    firsts = []
    size = 0
    for series in copies:
        began = time.perf_counter()
        answer = load.fetch(server.address, _metadata_of(server, series))
        firsts.append(time.perf_counter() - began)
        named = {item["00080018"]["Value"][0] for item in json.loads(answer.body)}
        if named != {instance.instance for instance in series}:
            raise load.RequestFailedError(f"{server.name}: the metadata does not name the instances of the series")
        size = answer.length
    request = _metadata_of(server, copies[-1])
    # Twice as many as there are workers, so that none of them sees it for the first time.
    load.run(server.address, iter([request] * 4), clients=4)
    run = load.run(server.address, iter([request] * scale.repeats))
    case = f"metadata of {len(copies[-1])} instances"
    detail = {"bytes": size, "all_ms": [first * 1e3 for first in firsts]}
    yield Figure("metadata", f"{case}, first", server.name, sorted(firsts)[len(firsts) // 2] * 1e3, "ms", False, detail)
    yield Figure("metadata", f"{case}, again", server.name, run.median, "ms", False, {"p95_ms": run.quantile(0.95)})


def _metadata_of(server: Server, series: list[Instance]) -> load.Request:
    path = f"{server.root}/studies/{series[0].study}/series/{series[0].series}/metadata"
    return load.get(path, server.host, "application/dicom+json")


def frames(server: Server, series: list[Instance], scale: Scale) -> Iterator[Figure]:
    """Frames as stored and as native samples, to one client and to eight."""
    for name, accept in (("as stored", STORED), ("decoded", DECODED)):
        if server.name.startswith("nginx") and name == "decoded":
            continue
        for instance in series[:3]:
            verify(server, instance, accept)
        for clients in (1, 8):
            requests = _frames(server, series, accept)
            cpu = server.cpu_seconds()
            run = load.run(server.address, requests, clients=clients, seconds=scale.seconds)
            cpu = (server.cpu_seconds() - cpu) / run.requests
            case = f"frames {name}, {clients} client{'s' * (clients > 1)}"
            detail = {
                "frames": run.requests, "MB_per_s": run.bytes / run.seconds / 1e6, "median_ms": run.median,
                "p95_ms": run.quantile(0.95), "client_cpu_share": run.client_seconds / run.seconds,
            }  # fmt: skip
            yield Figure("frames", case, server.name, run.rate, "frames/s", detail=detail)
            yield Figure("frames", case, server.name, cpu * 1e3, "ms of CPU", False)


def _frames(server: Server, series: list[Instance], accept: str) -> Iterator[load.Request]:
    requests = [load.get(frame_path(server, instance), server.host, accept) for instance in series]
    draw = random.Random("frames")
    while True:
        yield draw.choice(requests)


def frame_path(server: Server, instance: Instance) -> str:
    return (
        f"{server.root}/studies/{instance.study}/series/{instance.series}/instances/{instance.instance}/frames/1"
    )


def verify(server: Server, instance: Instance, accept: str) -> None:
    """The frame, decoded if need be, is the one that was uploaded."""
    answer = load.fetch(server.address, load.get(frame_path(server, instance), server.host, accept))
    head, _, rest = answer.body.partition(b"\r\n\r\n")
    body = rest[: rest.rfind(b"\r\n--")]
    if _HTJ2K.encode() in head:
        body = np.asarray(imagecodecs.htj2k_decode(body)).astype("<u2").tobytes()
    if answer.status != 200 or body != instance.pixels:
        raise load.RequestFailedError(f"{server.name}: frame of {instance.instance}: {answer.status} {head[:300]!r}")
