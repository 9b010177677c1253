"""Marker segments that contradict the standard, and codestreams whose headers claim what costs memory or time."""

from __future__ import annotations

import contextlib
import random
import struct
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest

from pacs import codestream, progression
from pacs._codecs import progression as kernel
from pacs._codecs import rewrite
from pacs.errors import CodestreamError
from tests.streams import decoders, invented, kinds, rewritten
from tests.streams.rewriting import segment

COD, COC, QCD, RGN, POC, TLM, PLT, PPT, PPM, PLM, CRG, COM = (
    0xFF52, 0xFF53, 0xFF5C, 0xFF5E, 0xFF5F, 0xFF55, 0xFF58, 0xFF61, 0xFF60, 0xFF57, 0xFF63, 0xFF64,
)  # fmt: skip


def image(
    columns: int = 64, rows: int = 64, tile: tuple[int, int] = (64, 64), *, components: int = 1, separation: int = 1,
    layers: int = 1, levels: int = 1, block: tuple[int, int] = (4, 4), scod: int = 0, precincts: bytes = b"",
    more: bytes = b"",
) -> bytes:  # fmt: skip
    """A main header."""
    siz = struct.pack(">H8IH", 0, columns, rows, 0, 0, *tile, 0, 0, components)
    siz += bytes([7, separation, separation]) * components
    cod = struct.pack(">BBHB5B", scod, 0, layers, 0, levels, *block, 0, 1) + precincts
    qcd = b"\x40" + bytes([8]) * (1 + 3 * levels)
    return b"\xff\x4f" + segment(0xFF51, siz) + segment(COD, cod) + segment(QCD, qcd) + more


def tile_part(data: bytes, tile: int = 0, number: int = 0, header: bytes = b"", *, open_ended: bool = False) -> bytes:
    length = 0 if open_ended else 14 + len(header) + len(data)
    return struct.pack(">HHHIBB", 0xFF90, 10, tile, length, number, 0) + header + b"\xff\x93" + data


EMPTY = b"\x00\x00"  # two packets


def test_the_headers_of_these_tests_are_sound() -> None:
    encoded = image(more=segment(COM, b"\x00\x00")) + tile_part(EMPTY) + b"\xff\xd9"
    assert len(progression.index(encoded).packets) == 2


@pytest.mark.parametrize("block", [(9, 0), (0, 9), (0xFE, 0), (0xFF, 0), (0, 0xFE), (0, 0xFF), (5, 4)])
def test_code_blocks_larger_than_they_may_be(block: tuple[int, int]) -> None:
    """T.800 Table A.18: exponents up to 10, 12 together. A byte of FF is not 1."""
    with pytest.raises(CodestreamError, match="impossible"):
        progression.index(image(block=block) + tile_part(EMPTY))
    coc = segment(COC, struct.pack(">7B", 0, 0, 1, *block, 0, 1))
    with pytest.raises(CodestreamError, match="impossible"):
        progression.index(image(more=coc) + tile_part(EMPTY))


@pytest.mark.parametrize(("scod", "precincts"), [(0, b"\xff\xff"), (1, b""), (1, b"\xff"), (1, b"\xff" * 3)])
def test_precinct_sizes_that_are_not_those_of_the_levels(scod: int, precincts: bytes) -> None:
    refused = image(scod=scod, precincts=precincts) + tile_part(EMPTY) + b"\xff\xd9"
    for read in (progression.index, codestream.parse):
        with pytest.raises(CodestreamError, match="precinct size"):
            read(refused)
    with pytest.raises(ValueError, match="COD"):
        decoders.openjpeg(refused)
    coc = segment(COC, bytes([0, scod, 1, 4, 4, 0, 1]) + precincts)
    with pytest.raises(CodestreamError, match="precinct size"):
        progression.index(image(more=coc) + tile_part(EMPTY))
    cod = segment(COD, struct.pack(">BBHB5B", scod, 0, 1, 0, 1, 4, 4, 0, 1) + precincts)
    with pytest.raises(CodestreamError, match="precinct size"):
        progression.index(image() + tile_part(EMPTY, header=cod))


def test_a_body_does_not_reach_into_eoc() -> None:
    """Psot 0: two bytes are missing from the last body, and EOC stands where they should be. T.800 A.4.2"""
    encoded = rewritten.stream("j2k bypass termall: open end").codestream
    whole = progression.index(encoded)
    last = max(packet.body_offset + packet.body_length for packet in whole.packets)
    assert encoded[last:] == b"\xff\xd9"
    for padding in (b"", b"\x00"):
        assert progression.index(encoded + padding) == whole
        with pytest.raises(CodestreamError, match="longer than its tile-part"):
            progression.index(encoded[: last - 2] + b"\xff\xd9" + padding)


@pytest.mark.parametrize("marker", [0xFF91, 0xFF92, 0xFF4F, 0xFF51, 0xFF93, 0xFFD9, PLT, PPT])
def test_markers_that_a_main_header_has_no_place_for(marker: int) -> None:
    with pytest.raises(CodestreamError, match=f"marker {marker:04X} inside the main header"):
        codestream.parse(image(more=segment(marker, b"\x00\x01")) + tile_part(EMPTY))


@pytest.mark.parametrize("marker", [0xFF91, 0xFF92, 0xFF4F, 0xFF51, 0xFF90, 0xFFD9, TLM, PLM, PPM, CRG, 0xFF50])
def test_markers_that_a_tile_part_header_has_no_place_for(marker: int) -> None:
    with pytest.raises(CodestreamError, match=f"marker {marker:04X} inside a tile-part header"):
        codestream.parse(image() + tile_part(EMPTY, header=segment(marker, b"\x00\x01")))


def test_markers_without_a_segment_are_passed_over() -> None:
    plain = image() + tile_part(EMPTY) + b"\xff\xd9"
    encoded = image(more=b"\xff\x30") + tile_part(EMPTY, header=b"\xff\x3f") + b"\xff\xd9"
    assert len(progression.index(encoded).packets) == 2
    assert progression.reorder(encoded) == progression.reorder(plain)


@pytest.mark.parametrize("marker", [COD, COC, QCD, 0xFF5D, RGN])
def test_coding_that_comes_too_late(marker: int) -> None:
    late = tile_part(EMPTY[1:], 0, 1, segment(marker, bytes(9)))
    with pytest.raises(CodestreamError):
        progression.index(image() + tile_part(EMPTY[1:]) + late)


def test_packed_headers_in_two_places() -> None:
    ppm = segment(PPM, b"\x00" + struct.pack(">I", 2) + EMPTY)
    with pytest.raises(CodestreamError, match="PPM and PPT"):
        progression.index(image(more=ppm) + tile_part(b"", header=segment(PPT, b"\x00" + EMPTY)))
    first = tile_part(b"", header=segment(PPT, b"\x00\x00"))
    with pytest.raises(CodestreamError, match="bytes are left"):
        progression.index(image() + first + tile_part(b"\x00", 0, 1))


@pytest.mark.parametrize("number", range(3))
def test_reduced_tlm_names_the_tile_of_each_tile_part(number: int) -> None:
    """ST 0 is for one tile-part a tile; one TLM with the lengths that are, whatever the old ones said. T.800 A.7.1"""
    encoded = bytearray(progression.reorder(kinds.stream("j2k plain").codestream))
    at = encoded.index(b"\xff\x55")
    if number == 1:
        encoded[at + 4] = 7  # Ztlm: one that does not start with 0
    elif number == 2:
        encoded[at + 11] ^= 1  # a length that is not right
    small = codestream.reduce(encoded, 1)
    parsed = codestream.parse(small)
    assert small.count(b"\xff\x55") == 1 and parsed.tlm_agrees
    assert small[small.index(b"\xff\x55") + 5] == 0x50
    assert parsed.tlm == tuple(part.length for part in parsed.tile_parts) and len(parsed.tlm) >= 2


def test_levels_are_those_of_the_components() -> None:
    """COD says one level; every component has a COC, with two."""
    name = next(name for name in rewritten.NAMES if name.endswith("COC and QCC"))
    encoded = rewritten.stream(name).codestream
    assert codestream.parse(encoded).decompositions == 1
    smaller = progression.cut(encoded, levels_dropped=2)
    assert {packet.resolution for packet in progression.index(smaller).packets} == {0}
    with pytest.raises(CodestreamError, match="3 of 2 levels"):
        progression.cut(encoded, levels_dropped=3)


# --- costs ----------------------------------------------------------------------------------------------------


def test_progressions_of_tiles_without_samples_take_no_time() -> None:
    """Of a component that is subsampled by 255 most tiles have nothing, for 27,000 progressions each."""
    poc = segment(POC, struct.pack(">BBHBBB", 0, 0, 65535, 33, 255, 0) * 9000) * 3
    header = image(10_000, 1, (1, 1), separation=255, levels=0, more=poc)
    parts = b"".join(tile_part(b"\x00" if tile % 255 == 0 else b"", tile) for tile in range(10_000))
    began = time.thread_time()
    assert len(progression.index(header + parts).packets) == 40
    assert time.thread_time() - began < 1.5


def test_segments_and_entries_are_not_kept_without_bound() -> None:
    small = segment(COM, b"") * 600_000
    for encoded in (image(more=small) + tile_part(EMPTY), image() + tile_part(EMPTY, header=small)):
        with pytest.raises(CodestreamError, match="more marker segments"):
            codestream.parse(encoded)
    entries = segment(TLM, b"\x00\x00" + bytes(2 * 256))
    with pytest.raises(CodestreamError, match="TLM with too many tile-parts for 1 tiles"):
        codestream.parse(image(more=entries) + tile_part(EMPTY))
    with pytest.raises(CodestreamError, match="TLM with too many"):
        codestream.parse(image(255, 255, (1, 1), more=segment(TLM, bytes(65532)) * 130) + tile_part(EMPTY))


def test_one_tile_of_many_levels_does_not_cut_all_others_up() -> None:
    cod = segment(COD, struct.pack(">BBHB5B", 0, 0, 1, 0, 32, 4, 4, 0, 1))
    header = image(20_000, 1, (1, 1), levels=0)
    parts = b"".join(tile_part(b"\x00", tile) for tile in range(1, 20_000))
    encoded = header + tile_part(bytes(33), 0, header=cod) + parts
    with pytest.raises(CodestreamError, match="660000 tile-parts"):
        progression.reorder(encoded)
    assert len(progression.index(encoded).packets) == 20_032


def test_tiles_of_33_levels_are_not_too_many() -> None:
    header = image(16_000, 1, (16, 1), levels=32)
    parts = b"".join(tile_part(bytes(33) if tile == 0 else bytes(5 + (tile & -tile).bit_length() - 1), tile)
                     for tile in range(1000))  # fmt: skip
    try:
        reordered = progression.reorder(header + parts + b"\xff\xd9")
    except CodestreamError as error:
        pytest.fail(str(error))
    assert len(codestream.parse(reordered).tile_parts) == 33_000


# --- bytes that change meanwhile ------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [progression.reorder, lambda data: progression.cut(data, most_bytes=9000)])
def test_a_buffer_cannot_shrink_between_reading_and_copying(read: Callable[[bytearray], bytes]) -> None:
    """Packets are copied from where they were found, so the bytes are held from the first step to the last."""
    whole = invented.codestream(11)
    shared = bytearray(whole)
    refusals = []

    def shrink(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_globals.get("__name__") == "pacs.progression" and frame.f_code.co_name[0] == "_":
            try:
                del shared[100:]
            except BufferError as error:
                refusals.append(error)

    sys.setprofile(shrink)
    try:
        found = read(shared)
    finally:
        sys.setprofile(None)
    assert found == read(bytearray(whole)) and len(refusals) >= 2


def test_packets_of_other_data_are_not_copied() -> None:
    whole = kinds.stream("j2k plain").codestream
    walked = kernel.walk(whole)
    with pytest.raises(ValueError, match="other data"):
        rewrite.write(walked, whole[:-1], b"", {}, 2, 0, 1, None)


def test_threads_share_a_buffer() -> None:
    whole = progression.reorder(kinds.stream("j2k everything").codestream)
    with ThreadPoolExecutor(4) as pool:
        view = memoryview(bytearray(whole))
        assert set(pool.map(progression.reorder, [view] * 60)) == {whole}


def test_bytes_that_change_while_they_are_walked_without_the_lock() -> None:
    """Whatever another thread writes: packets of the bytes given or a CodestreamError."""
    header = image(4096, 4096, (4096, 4096), levels=0, precincts=b"\x22", scod=1)
    shared = bytearray(header + tile_part(bytes(1 << 20)))
    stop = threading.Event()

    def change() -> None:
        noise = random.Random(1)
        while not stop.is_set():
            shared[noise.randrange(len(header) + 14, len(shared))] ^= 0x80

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(6):
            with contextlib.suppress(CodestreamError):
                assert len(progression.reorder(shared)) > 1 << 20
    finally:
        stop.set()
        thread.join()
