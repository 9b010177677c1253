"""A video or a document of any length passes through the archive without being in memory."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LENGTH = 300 << 20
"""Above every size from which this program goes another way."""
LIMIT = 150 << 20
"""Bytes of private memory that the process may take: half of one value."""

STORE = """
import hashlib, mmap, resource, sys
from pathlib import Path
from pacs.archive import Archive
path, archive, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
with path.open("rb") as file, Archive.open(archive, create=True, threads=1) as opened:
    data = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    taken = int(Path("/proc/self/statm").read_text().split()[5]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_DATA, (taken + limit, taken + limit))
    result = opened.store(memoryview(data))
    assert result.status == "stored", result
    entry = opened.instance(result.study, result.series, result.instance)
    digest = hashlib.sha256()
    for piece in opened.part10(entry):
        digest.update(piece)
    assert digest.digest() == hashlib.sha256(data).digest()
    if entry.descriptor.array_key is not None:
        assert len(opened.read_frame(opened.frame(entry, 1))) == int(sys.argv[4])
"""


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def long_element(tag: int, vr: bytes, length: int) -> bytes:
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, length)


def head(transfer_syntax: bytes, number: bytes) -> bytes:
    meta = element(0x00020010, b"UI", transfer_syntax)
    return (
        bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta
        + element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.77.1.4.1")
        + element(0x00080018, b"UI", b"1.2.3.4.5." + number)
        + element(0x0020000D, b"UI", b"1.2.3.4") + element(0x0020000E, b"UI", b"1.2.3.4.5")
    )  # fmt: skip


def video(fragments: int = 1) -> tuple[bytes, ...]:
    """What stands before, between and after the fragments of a video."""
    image = (
        element(0x00280002, b"US", struct.pack("<H", 3)) + element(0x00280004, b"CS", b"YBR_PARTIAL_420")
        + element(0x00280008, b"IS", b"1") + element(0x00280010, b"US", struct.pack("<H", 1080))
        + element(0x00280011, b"US", struct.pack("<H", 1920)) + element(0x00280100, b"US", struct.pack("<H", 8))
        + element(0x00280101, b"US", struct.pack("<H", 8)) + element(0x00280102, b"US", struct.pack("<H", 7))
        + element(0x00280103, b"US", struct.pack("<H", 0))
    )  # fmt: skip
    item = struct.pack("<HHI", 0xFFFE, 0xE000, LENGTH // fragments)
    table = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    syntax = b"1.2.840.10008.1.2.4.102" + b".1" * (fragments > 1)
    before = head(syntax, b"1") + image + long_element(0x7FE00010, b"OB", 0xFFFFFFFF) + table + item
    return before, *[item] * (fragments - 1), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def fragmented_video() -> tuple[bytes, ...]:
    return video(4)


def document() -> tuple[bytes, bytes]:
    """What stands before and after the value of an encapsulated document."""
    return head(b"1.2.840.10008.1.2.1", b"2") + long_element(0x00420011, b"OB", LENGTH), b""


def text() -> tuple[bytes, bytes]:
    """What stands before and after a long text."""
    return head(b"1.2.840.10008.1.2.1", b"3") + long_element(0x0040A160, b"UT", LENGTH), b""


@pytest.mark.parametrize("kind", [video, fragmented_video, document, text])
def test_a_long_value_is_never_in_memory(kind: Callable[[], tuple[bytes, ...]], tmp_path: Path) -> None:
    pieces = kind()
    path = tmp_path / "long.dcm"
    with path.open("wb") as file:
        for number, piece in enumerate(pieces):
            if number:
                file.seek(LENGTH // (len(pieces) - 1), 1)  # a hole reads as zeros
            file.write(piece)
        file.truncate(sum(map(len, pieces)) + LENGTH)
    command = [sys.executable, "-c", STORE, str(path), str(tmp_path / "archive"), str(LIMIT), str(LENGTH)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert ran.returncode == 0, ran.stderr
