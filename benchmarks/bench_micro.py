"""What do the pieces cost, on one core and without HTTP? Held against the budgets of docs/performance.md."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from benchmarks import workload
from benchmarks.report import Figure
from benchmarks.scale import Scale
from pacs import demo, ingest, transcode
from pacs.archive import Archive
from pacs.dicom import attributes, part10
from pacs.geometry import FrameGeometry
from pacs.storage.model import ArrayKey, NewInstance

BUDGETS = {
    "scan a header of 250 elements": 0.2,
    "encode, and proof by export, 512 x 512": 4.5,
}
"""Milliseconds."""


def header_of_250() -> bytes:
    """A file with 250 elements before its pixel data, of the kinds that a scanner's header has."""
    (head,) = demo.head_slices(1, rows=16)
    extra: list[demo.Element] = []
    for number in range(250 - 60):
        element = 0x00091001 + number
        extra.append(
            (element, "DS", f"{number}.25\\{number}.5") if number % 3 else (element, "LO", f"private value {number}")
        )
    return demo.part10([*_elements_of(head), (0x00090010, "LO", "BENCHMARK"), *extra])


def _elements_of(data: bytes) -> list[demo.Element]:
    """The elements of one of the demo's files, to be written again."""
    import io

    import pydicom

    elements: list[demo.Element] = []
    for element in pydicom.dcmread(io.BytesIO(data)):
        value = element.value
        if element.VR == "US":
            elements.append((int(element.tag), "US", int(value)))
        elif isinstance(value, bytes):
            elements.append((int(element.tag), element.VR, value))
        else:
            text = "\\".join(map(str, value)) if element.VM > 1 else str(value)
            elements.append((int(element.tag), element.VR, text))
    return elements


def timed(action: Callable[[], object], seconds: float) -> float:
    """Milliseconds of the quickest of several rounds: what disturbs can only add."""
    action()
    began = time.perf_counter()
    action()
    once = max(time.perf_counter() - began, 1e-7)
    rounds, repeats = 5, max(1, int(seconds / 5 / once))
    best = float("inf")
    gc.disable()
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            for _ in range(repeats):
                action()
            best = min(best, (time.perf_counter() - began) / repeats)
    finally:
        gc.enable()
    return best * 1e3


def micro(scale: Scale) -> Iterator[Figure]:
    """Scanner, codec, proof, look-up and read."""
    seconds = scale.seconds / 3

    def figure(case: str, action: Callable[[], object]) -> Figure:
        budget = BUDGETS.get(case)
        detail = {"budget_ms": budget} if budget else {}
        label = f"{case} (budget {budget} ms)" if budget else case
        return Figure("micro", label, "pacs", timed(action, seconds), "ms", False, detail)

    header = header_of_250()
    yield figure("scan a header of 250 elements", lambda: part10.scan(header))
    source = (workload.real_series(None, 1) or workload.synthetic(1, scale.rows))[0]
    identity = ingest.identify(source.data)
    geometry = attributes.geometry(identity.file.json)
    assert isinstance(geometry, FrameGeometry)
    yield figure("scan, UIDs and SHA-256 of a CT slice", lambda: ingest.identify(source.data))
    samples = transcode.decode_native(source.pixels, geometry, big_endian=False)
    yield figure("encode a CT slice", lambda: transcode.encode_frame(samples, geometry))
    encoded = transcode.encode_frame(samples, geometry).codestream
    syntax = "1.2.840.10008.1.2.4.202"
    yield figure("decode a CT slice", lambda: transcode.decode_frame(encoded, geometry, syntax))

    def prepare() -> NewInstance:
        return ingest.prepare(source.data, identity, _no_staging)

    yield figure("encode, and proof by export, 512 x 512", prepare)
    with tempfile.TemporaryDirectory(prefix="pacs-benchmark-micro-") as folder:
        yield from _reading(Path(folder), source, figure)


def _no_staging(key: ArrayKey, levels: int) -> NoReturn:
    raise AssertionError("a single slice is not staged")


def _reading(
    folder: Path, source: workload.Instance, figure: Callable[[str, Callable[[], object]], Figure]
) -> Iterator[Figure]:
    with Archive.open(folder / "archive", create=True) as archive:
        result = archive.store(source.data)
        assert result.error is None, result.error
        yield figure(
            "find an instance by its UIDs", lambda: archive.instance(source.study, source.series, source.instance)
        )
        entry = archive.instance(source.study, source.series, source.instance)
        yield figure("locate a frame", lambda: archive.frame(entry, 1))

        def serve() -> bytes | memoryview:
            found = archive.instance(source.study, source.series, source.instance)
            return archive.read_frame(archive.frame(found, 1))

        yield figure("locate and read a frame", serve)
        yield figure("decode a stored frame", lambda: archive.native_frame(entry, 1))
        yield figure("metadata of an instance", lambda: archive.metadata_json(entry))
        yield figure("rebuild the received file", lambda: b"".join(archive.part10(entry)))
