"""Codecs on the cores: bytes of samples a second of each, on one core and on more, and of each core alone."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from pacs import transcode, uids
from pacs.bench import machine
from pacs.bench.corpus import Corpus
from pacs.bench.disk import Step
from pacs.bench.model import Codec
from pacs.dicom import attributes, part10
from pacs.geometry import FrameGeometry
from pacs.storage import packing

CODECS: Final = (
    ("HTJ2K lossless", uids.HTJ2K_LOSSLESS_RPCL, "CT"),
    ("HTJ2K lossless", uids.HTJ2K_LOSSLESS_RPCL, "CR"),
    ("HTJ2K lossless", uids.HTJ2K_LOSSLESS_RPCL, "US"),
    ("JPEG 2000 lossless", uids.JPEG_2000_LOSSLESS, "CT"),
    ("JPEG-LS lossless", uids.JPEG_LS_LOSSLESS, "CT"),
    ("JPEG lossless", uids.JPEG_LOSSLESS_SV1, "CT"),
    ("RLE", uids.RLE_LOSSLESS, "CT"),
    ("JPEG baseline", uids.JPEG_BASELINE, "US"),
)
"""Name, Transfer Syntax, the image that is encoded."""


def thread_counts() -> list[int]:
    """1, 2, 4 … up to all cores."""
    most = machine.cores()
    counts = [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    return counts if counts[-1] == most else [*counts, most]


def measure(corpus: Corpus, seconds: float, step: Step) -> Iterator[Codec]:
    """Every codec in both directions, a hash and a compressor of headers."""
    each = max(0.02, seconds / 10)
    for name, syntax, modality in CODECS:
        step(f"codecs: {name}")
        frame, geometry = _frame(corpus, modality)
        samples = transcode.decode_native(frame, geometry, big_endian=False)
        rendition = transcode.plan(uids.EXPLICIT_VR_LITTLE_ENDIAN, geometry, syntax)
        assert rendition is not None
        codestream = transcode.encode(samples, geometry, rendition)
        described = rendition.geometry or geometry
        ratio = len(frame) / len(codestream)

        def encode(samples: transcode.Samples = samples, geometry: FrameGeometry = geometry,
                   rendition: transcode.Rendition = rendition) -> object:  # fmt: skip
            return transcode.encode(samples, geometry, rendition)

        def decode(codestream: bytes = codestream, described: FrameGeometry = described,
                   syntax: str = syntax) -> object:  # fmt: skip
            return transcode.decode_frame(codestream, described, syntax)

        for action, work in (("encode", encode), ("decode", decode)):
            rates = {str(count): _rate(work, len(frame), count, each) for count in thread_counts()}
            yield Codec(name=name, action=action, image=modality, ratio=ratio, by_threads=rates)
    step("codecs: SHA-256, zstd")
    frame, _ = _frame(corpus, "CT")
    header = corpus.images("CT")[0].header
    packed = packing.pack(header)
    rates = {str(count): _rate(lambda: hashlib.sha256(frame).digest(), len(frame), count, each)
             for count in thread_counts()}  # fmt: skip
    yield Codec(name="SHA-256", action="hash", image="CT", by_threads=rates)
    rates = {str(count): _rate(lambda: packing.pack(header), len(header), count, each) for count in thread_counts()}
    yield Codec(
        name="zstd", action="encode", image="header", ratio=len(header) / len(packed.data), by_threads=rates
    )


def each_core(corpus: Corpus, seconds: float) -> list[float]:
    """HTJ2K encoding on each core alone, bytes a second: slow or busy cores stand out."""
    frame, geometry = _frame(corpus, "CT")
    samples = transcode.decode_native(frame, geometry, big_endian=False)
    allowed = os.sched_getaffinity(0)
    each = min(0.2, max(0.02, seconds / 10), 2 * seconds / len(allowed))
    found = []
    try:
        for core in sorted(allowed):
            with suppress(OSError):
                os.sched_setaffinity(0, {core})
                found.append(_rate(lambda: transcode.encode_frame(samples, geometry), len(frame), 1, each))
    finally:
        os.sched_setaffinity(0, allowed)
    return found


def _frame(corpus: Corpus, modality: str) -> tuple[memoryview, FrameGeometry]:
    instance = corpus.images(modality)[0].instance("codec", "codec", 1)
    geometry = attributes.geometry(part10.scan(instance.file).json)
    assert isinstance(geometry, FrameGeometry)
    return instance.frame(), geometry


def _rate(work: Callable[[], object], size: int, threads: int, seconds: float) -> float:
    """Bytes a second that so many threads get done."""
    work()
    done = [0] * threads
    start = threading.Barrier(threads)
    times: list[tuple[float, float]] = [(0.0, 0.0)] * threads

    def run(number: int) -> None:
        start.wait()
        began = time.perf_counter()
        while True:
            work()
            done[number] += 1
            now = time.perf_counter()
            if now - began >= seconds:
                times[number] = began, now
                return

    if threads == 1:
        run(0)
    else:
        running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    return sum(count * size / (end - began) for count, (began, end) in zip(done, times, strict=True))
