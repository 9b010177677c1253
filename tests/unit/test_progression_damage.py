"""Truncated, changed and invented codestreams: the right answer or a CodestreamError, in bounded memory and time."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
import pydicom.encaps
import pytest

from pacs import codestream, progression
from pacs.errors import CodestreamError
from pacs.progression import Rectangle
from tests.streams import encoders, images, kinds, rewritten
from tests.streams.rewriting import segment

ROOT = Path(__file__).resolve().parents[2]


def test_cut_at_every_byte_of_a_long_stream() -> None:
    encoded = encoders.openjpeg([images.plane(230, 210, 8)], 8, ["-r", "6,2,1", "-c", "[64,64]", "-PLT", "-TLM"])
    assert 20_000 < len(encoded) < 32_768
    check_prefixes(encoded, range(len(encoded)))


SHORT = (
    *(kinds.stream(name).codestream for name in (
        "j2k everything", "j2k boxed colour", "ht 202 colour", "j2k POC by layer",
    )),
    *(rewritten.stream(name).codestream for name in (
        "j2k tiles at offsets: PPM in pieces", "ht PCRL halved chroma: PPT in pieces", "ht 202 colour: PLM",
        "j2k bypass termall: open end", "ht 202 colour recoded with placeholder passes",
    )),
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(SHORT)))
def test_cut_at_every_byte(number: int) -> None:
    check_prefixes(SHORT[number], range(len(SHORT[number])))


def check_prefixes(encoded: bytes, lengths: range | list[int]) -> None:
    """A prefix is refused, with an offset inside it, until every packet is there; then the answer is the right one."""
    whole = progression.reorder(encoded)
    packets = progression.index(encoded).packets
    end = max(packet.body_offset + packet.body_length for packet in packets)
    for length in lengths:
        prefix = memoryview(encoded)[:length]
        try:
            found = progression.reorder(prefix)
        except CodestreamError as error:
            assert 0 <= error.offset <= length
            assert length < end
        else:
            assert length >= end and found == whole


def test_cut_around_every_boundary_of_a_large_stream(shared_data: Path) -> None:
    for name in ("transfer-syntax/j2k-lossless/US1_J2KR", "photometric/GDCMJ2K_TextGBR.dcm"):
        dataset = pydicom.dcmread(io.BytesIO((shared_data / name).read_bytes()))
        encoded = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
        places = {0, len(encoded)}
        for packet in progression.index(encoded).packets:
            places |= {packet.header_offset, packet.body_offset, packet.body_offset + packet.body_length}
        places |= {at for at in range(codestream.parse(encoded).tile_parts[0].data) if encoded[at] == 0xFF}
        around = {place + step for place in places for step in range(-2, 3)}
        check_prefixes(encoded, sorted(place for place in around if 0 <= place < len(encoded)))


@pytest.mark.parametrize("number", range(len(SHORT)))
def test_changed_bytes(number: int) -> None:
    """What can still be walked keeps its packets when it is re-ordered, and can be walked when it has been cut."""
    noise = random.Random(number)
    encoded = SHORT[number]
    for _ in range(600):
        damaged = bytearray(encoded)
        for _ in range(noise.choice([1, 1, 2, 5])):
            at = noise.randrange(len(damaged) if noise.random() < 0.5 else min(400, len(damaged)))
            damaged[at] = noise.choice([0, 1, 0x7F, 0x80, 0xFF, noise.randrange(256)])
        check_damaged(bytes(damaged))


def check_damaged(damaged: bytes) -> None:
    try:
        found = progression.index(damaged)
    except CodestreamError as error:
        assert 0 <= error.offset <= len(damaged)
        return
    reordered = progression.reorder(damaged)
    assert len(progression.index(reordered).packets) == len(found.packets)
    works: tuple[Callable[[], bytes], ...] = (
        lambda: progression.cut(damaged, levels_dropped=1, layers=1),
        lambda: progression.cut(damaged, most_bytes=len(damaged) // 2),
        lambda: progression.region(damaged, Rectangle(3, 5, 7, 9)),
    )
    for work in works:
        with contextlib.suppress(CodestreamError, ValueError):
            assert len(progression.index(work()).packets) <= len(found.packets)


def test_padding_behind_the_end() -> None:
    """DICOM makes fragments even; a last tile-part without a length is followed by EOC and then by that."""
    for name in ("ht 202 colour: open end", "j2k bypass termall: open end", "j2k bypass termall: PLM"):
        encoded = rewritten.stream(name).codestream
        assert progression.reorder(encoded + b"\x00") == progression.reorder(encoded)


def test_packet_lengths_that_are_wrong_are_noted() -> None:
    encoded = bytearray(kinds.stream("j2k PLT TLM").codestream)
    whole = progression.index(encoded)
    assert whole.lengths_agree is True
    at = encoded.index(b"\xff\x58") + 5
    encoded[at] ^= 1
    found = progression.index(encoded)
    assert found.lengths_agree is False and found.packets == whole.packets
    assert progression.index(progression.reorder(encoded)).lengths_agree is True


# --- what headers claim ---------------------------------------------------------------------------------------


def claims(
    columns: int = 64, rows: int = 64, tile: int = 0, *, components: int = 1, levels: int = 1, layers: int = 1,
    block: int = 4, precinct: int | None = None, poc: bytes = b"", data: bytes = b"\x00\x00", separation: int = 1,
) -> bytes:  # fmt: skip
    """A codestream of one tile-part."""
    siz = struct.pack(">H8IH", 0, columns, rows, 0, 0, tile or columns, tile or rows, 0, 0, components)
    siz += bytes([7, separation, separation]) * components
    cod = struct.pack(">BBHBBBBBB", precinct is not None, 0, layers, 0, levels, block, block, 0, 1)
    cod += b"" if precinct is None else bytes([precinct]) * (levels + 1)
    header = segment(0xFF51, siz) + segment(0xFF52, cod) + segment(0xFF5C, b"\x40" + bytes([8]) * (1 + 3 * levels))
    part = struct.pack(">HHHIBB", 0xFF90, 10, 0, 14 + len(data), 0, 1) + b"\xff\x93" + data
    return b"\xff\x4f" + header + poc + part + b"\xff\xd9"


def poc_of(count: int) -> bytes:
    entry = struct.pack(">BBHBBB", 0, 0, 65535, 33, 255, 0)
    return segment(0xFF5F, entry * count)


# One packet whose header says 1 (not empty) and then, for each sub-band, that nothing is included.
NOTHING = b"\x80"

CLAIMS = {
    "precincts of one sample": claims(1 << 31, 1 << 31, levels=0, precinct=0),
    "precincts of two samples": claims(1 << 31, 1 << 31, levels=32, precinct=0x11),
    "one packet with every code-block there can be": claims(1 << 31, 1 << 31, levels=0, block=0, data=NOTHING * 9),
    "a precinct full of code-blocks": claims(1 << 15, 1 << 15, levels=0, block=0, data=NOTHING),
    "layers": claims(layers=65535, levels=5),
    "code-blocks looked at for each layer": claims(1 << 11, 1 << 11, levels=0, block=0, layers=60_000,
                                                   data=b"\xc0\x00" + NOTHING * 70_000),
    "components": claims(components=16384, levels=32, data=b"\x00" * 500),
    "tiles": claims(60_000, 1, 1, data=b"\x00" * 10),
    "tiles of many components": claims(250, 250, 1, components=16384, separation=255, data=b"\x00" * 10),
    "progressions": claims(levels=5, layers=200, poc=poc_of(9000), data=b"\x00" * 1200),
    "progressions that have nothing": claims(levels=0, poc=poc_of(9000) * 40, data=b"\x00"),
}  # fmt: skip


def limited() -> None:
    """Every claim in a process that may have 90 MB more: run as `python -c` by the test below."""
    import resource

    # What is mapped already depends on the number of cores: OpenBLAS has a buffer for each.
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (90 << 20),) * 2)
    for name, encoded in CLAIMS.items():
        began = time.process_time()
        try:
            progression.reorder(encoded)
            said = "walked"
        except CodestreamError as error:
            said = str(error)
        print(f"{name}\t{time.process_time() - began:.2f}\t{said}")


def test_claims_take_neither_memory_nor_time() -> None:
    code = "from tests.unit import test_progression_damage as t; t.limited()"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr
    said = [line.split("\t") for line in run.stdout.splitlines()]
    assert [name for name, _, _ in said] == list(CLAIMS)
    assert not [(name, seconds) for name, seconds, _ in said if float(seconds) > 2]
    walked = [name for name, _, answer in said if answer == "walked"]
    assert walked == ["progressions that have nothing"]
