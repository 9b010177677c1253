"""Frame N costs what frame 1 costs: counted in calls, system calls, bytes read and memory, not in time."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import numpy as np
import pytest

from pacs.archive import Archive, StoreResult
from pacs.storage.model import Encoding
from tests.objects.base import Built
from tests.objects.images import JPEG_BASELINE, compressed, long_multi_frame, native, pattern

MANY = 100_000


def many_pieces() -> Built:
    """Few frames of many fragments: what makes a frame must not be searched for when it is read."""
    return compressed(JPEG_BASELINE, 300, fragments=20, rows=16, columns=16)


def pixel_array() -> Built:
    return native("long pixel array", [pattern(8, 8, 16, number=number) for number in range(3000)])


LONG = {
    "encapsulated": (lambda: long_multi_frame(MANY), Encoding.ENCAPSULATED, 20_000),
    "native": (lambda: long_multi_frame(MANY, transfer_syntax="1.2.840.10008.1.2.1"), Encoding.NATIVE, 2_500_000),
    "fragments": (many_pieces, Encoding.ENCAPSULATED, 20_000),
    "pixel array": (pixel_array, Encoding.HTJ2K, 20_000),
}
"""How to build it, how it is stored, and bytes of memory that reading a frame may take (of pieces: two of them)."""


def io_counters() -> tuple[int, int, int]:
    """(bytes read, read calls) of this thread so far, by read(2) and its kin; bytes read to learn that."""
    text = Path("/proc/thread-self/io").read_text()
    lines = dict(line.split(": ") for line in text.splitlines())
    return int(lines["rchar"]), int(lines["syscr"]), len(text)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Memory is traced, and nothing else is called in between: the collector of garbage tells others when it runs."""
    gc.disable()
    tracemalloc.start()
    try:
        yield
    finally:
        sys.setprofile(None)
        tracemalloc.stop()
        gc.enable()


def work(archive: Archive, of: StoreResult, number: int) -> tuple[bytes, int, tuple[int, int], int]:
    """(the frame, calls of functions, (bytes read, read calls), peak of memory) of finding and reading one frame."""
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    with undisturbed():
        before = io_counters()
        sys.setprofile(count)
        entry = archive.instance(of.study, of.series, of.instance)
        data = archive.read_frame(archive.frame(entry, number))
        sys.setprofile(None)
        after = io_counters()
        peak = tracemalloc.get_traced_memory()[1]
    return bytes(data), calls, (after[0] - before[0] - before[2], after[1] - before[1]), peak


@pytest.mark.parametrize("kind", LONG)
def test_any_frame_costs_what_the_first_costs(tmp_path: Path, kind: str) -> None:
    make, encoding, memory = LONG[kind]
    built = make()
    assert built.frames is not None
    count = len(built.frames)
    with Archive.open(tmp_path / "archive", create=True, threads=1) as archive:
        result = archive.store(built.file)
        assert result.status == "stored" and not result.warnings
        entry = archive.instance(result.study, result.series, result.instance)
        assert archive.frame_count(entry) == count
        assert entry.descriptor.array_key is not None and entry.descriptor.array_key.encoding is encoding
        assert len(msgspec.msgpack.encode(entry)) < 1500, "what the index decodes does not grow with the frames"
        archive._engine.settle()  # else its thread would, in a moment
        work(archive, result, 1)
        _, first_calls, (first_bytes, first_reads), _ = work(archive, result, 1)
        for number in (2, count // 2, count - 1, count):
            frame, calls, (read, reads), peak = work(archive, result, number)
            if encoding is Encoding.HTJ2K:
                frame = archive.native_frame(entry, number)
            assert frame == built.frames[number - 1]
            assert calls == first_calls and reads == first_reads and peak < memory
            assert read < first_bytes + 2000, "but for the lengths of two frames, the same bytes are read"


def test_the_first_frame_costs_what_a_single_frame_costs(tmp_path: Path) -> None:
    found = []
    for count in (1, 2000):
        with Archive.open(tmp_path / str(count), create=True, threads=1) as archive:
            result = archive.store(compressed(JPEG_BASELINE, count, rows=8, columns=8).file)
            archive._engine.settle()
            work(archive, result, 1)
            found.append(work(archive, result, 1)[1:3])
    assert found[0] == found[1]


def test_all_frames_are_the_right_ones(tmp_path: Path) -> None:
    built = long_multi_frame(3000)
    with Archive.open(tmp_path / "archive", create=True, threads=1) as archive:
        result = archive.store(built.file)
        entry = archive.instance(result.study, result.series, result.instance)
        assert built.frames is not None
        read = [bytes(archive.read_frame(archive.frame(entry, number + 1))) for number in range(3000)]
        assert tuple(read) == built.frames
        assert np.unique([len(frame) for frame in read]).tolist() == [8]
        assert b"".join(archive.part10(entry)) == built.file
