"""`pacs.progression` against the plain walker: every packet of every kind of codestream, moved, cut and damaged."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import generate_frames

from pacs import codestream as codestreams
from pacs import progression
from pacs.errors import CodestreamError
from tests.reference import j2k
from tests.reference.j2k import Walk
from tests.reference.j2k_geometry import Turn, Volume, turns
from tests.reference.j2k_headers import PLT
from tests.streams import decoders, invented, kinds, rewritten
from tests.streams.kinds import Stream

NAMES = kinds.NAMES + rewritten.NAMES
Told = list[tuple[Any, ...]]
Contents = dict[tuple[int, Turn], tuple[bytes, bytes]]


walk = functools.cache(j2k.walk)
openjpeg = functools.cache(decoders.openjpeg)


@pytest.fixture(scope="module", autouse=True)
def forget() -> Iterator[None]:
    """Many tests walk and decode the same codestream; nobody does after them."""
    yield
    walk.cache_clear()
    openjpeg.cache_clear()


def stream(name: str) -> Stream:
    return kinds.stream(name) if name in kinds.NAMES else rewritten.stream(name)


def walked(name: str) -> Walk:
    return walk(stream(name).codestream)


def by_reference(found: Walk) -> Told:
    """Packets tile by tile: who they are, their header, their body. Where an empty body lies means nothing."""
    assert found.fault is None
    return [
        (
            packet.tile,
            *packet.turn,
            packet.packed,
            packet.header_bytes if packet.packed else packet.header,
            packet.body if packet.body[1] else None,
        )
        for packet in sorted(found.packets, key=lambda packet: packet.tile)
    ]


def by_index(codestream: bytes) -> Told:
    return told_by(progression.index(codestream))


def told_by(found: progression.PacketIndex) -> Told:
    out: Told = []
    for packet in found.packets:
        span = packet.header_offset, packet.header_length
        header = found.packed_headers[span[0] : sum(span)] if packet.packed else span
        body = (packet.body_offset, packet.body_length) if packet.body_length else None
        turn = packet.layer, packet.resolution, packet.component, packet.precinct
        out.append((packet.tile, *turn, packet.packed, header, body))
    return out


def contents(found: Walk) -> Contents:
    """Header and body of every packet."""
    out = {}
    for packet in found.packets:
        at, length = packet.body
        out[packet.tile, packet.turn] = packet.header_bytes, found.data[at : at + length]
    return out


def sound(codestream: bytes) -> Walk:
    """A codestream in which nothing contradicts anything: TLM, PLT, Nsop, TNsot, the progression."""
    found = walk(codestream)
    assert found.fault is None
    assert found.notes == []
    assert found.eoc == len(codestream) - 2
    assert found.tlm
    told, there = found.packet_lengths, found.lengths_by_tile_part()
    assert [lengths or [] for lengths in told] == there
    return found


def assert_equal_samples(left: list[Any], right: Any) -> None:
    assert [plane.shape for plane in left] == [plane.shape for plane in right]
    assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


# --- the index ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_packet_is_where_the_reference_finds_it(name: str) -> None:
    found = progression.index(stream(name).codestream)
    assert told_by(found) == by_reference(walked(name))
    told = any(lengths is not None for lengths in walked(name).packet_lengths)
    assert found.lengths_agree is (True if told else None)


@settings(max_examples=40)
@given(seed=st.integers(0, 1 << 32), style=st.sampled_from(invented.STYLES))
def test_every_packet_of_an_invented_codestream(seed: int, style: int) -> None:
    codestream = invented.codestream(seed, style)
    found = j2k.walk(codestream)
    assert by_index(codestream) == by_reference(found)
    again = sound(progression.reorder(codestream))
    assert contents(again) == contents(found)


def test_told_packet_lengths_that_lie_are_found_out_and_not_followed() -> None:
    data = bytearray(stream("j2k PLT TLM").codestream)
    part = walked("j2k PLT TLM").tile_parts[0]
    plt = next(segment for segment in part.segments if segment.marker == PLT)
    data[plt.at + 5] ^= 1
    assert progression.index(bytes(data)).lengths_agree is False
    assert by_index(bytes(data)) == by_reference(walked("j2k PLT TLM"))


def real_frames(shared_data: Path, manifest: list[dict[str, str]]) -> list[tuple[str, bytes]]:
    """The first frames of every file in a JPEG 2000 Transfer Syntax, damaged ones too."""
    out = []
    for row in manifest:
        if "JPEG 2000" in row["transfer_syntax"] and "fragments-and-offset-tables" not in row["path"]:
            dataset = dcmread(shared_data / row["path"], force=True)
            count = int(dataset.get("NumberOfFrames") or 1)
            for number, frame in enumerate(generate_frames(dataset.PixelData, number_of_frames=count)):
                if number < 3:
                    out.append((f"{row['path']} {number}", frame))
    return out


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom, of files that are odd
def test_every_real_codestream(shared_data: Path, manifest: list[dict[str, str]]) -> None:
    frames = real_frames(shared_data, manifest)
    assert len(frames) > 45
    refused = []
    for label, frame in frames:
        found = j2k.walk(frame)
        if found.fault:
            refused.append(label)
            with pytest.raises(CodestreamError):
                progression.index(frame)
            continue
        assert by_index(frame) == by_reference(found), label
        again = sound(progression.reorder(frame))
        assert contents(again) == contents(found), label
    assert refused == ["malformed/JPEG2000-embedded-sequence-delimiter.dcm 0"]


# --- reorder ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_reordered_packets_are_the_same_in_rpcl(name: str) -> None:
    again = progression.reorder(stream(name).codestream)
    found = sound(again)
    assert contents(found) == contents(walked(name))
    levels = []
    for index, part in enumerate(found.tile_parts):
        turn = [packet.turn for packet in found.packets if packet.tile_part == index]
        tile = found.tiles[part.tile]
        assert tile.packing is not None
        rpcl = turns(tile.resolutions, tile.area, [Volume(0, 0, tile.packing.layers, 33, 16384, 2)])
        level = turn[0].resolution
        assert turn == [expected for expected in rpcl if expected.resolution == level]
        levels.append((level, part.tile))
    assert levels == sorted(levels)
    assert progression.reorder(again) == again


@pytest.mark.parametrize("name", NAMES)
def test_reordered_samples_are_the_same(name: str) -> None:
    given_stream = stream(name)
    again = progression.reorder(given_stream.codestream)
    if "placeholder" not in name:  # which OpenJPEG does not read
        expected = given_stream.components if given_stream.lossless else openjpeg(given_stream.codestream)
        assert_equal_samples(openjpeg(again), expected)
    if given_stream.ht and not name.endswith(("COC and QCC", "COD in tiles")):  # which ojph_expand does not
        expected = given_stream.components if given_stream.lossless else decoders.openjph(given_stream.codestream)
        assert_equal_samples(decoders.openjph(again), expected)


@pytest.mark.parametrize("name", ["j2k plain", "ht LRCP", "ht plain", "j2k POC by layer"])
def test_levels_of_a_reordered_codestream_are_prefixes(name: str) -> None:
    again = progression.reorder(stream(name).codestream)
    ends = progression.level_ends(again)
    assert ends == codestreams.parse(again).level_ends
    decompositions = len(ends) - 1
    assert decompositions >= 2
    for dropped in range(1, decompositions + 1):
        prefix = again[: ends[decompositions - dropped]]
        found = walk(prefix)  # its packets are all there, those of finer levels are not
        assert {packet.resolution for packet in found.packets} == set(range(decompositions - dropped + 1))
        if stream(name).ht:
            expected = decoders.openjph(stream(name).codestream, dropped)
            assert_equal_samples(decoders.openjph(prefix, dropped, resilient=True), expected)


# --- cut ----------------------------------------------------------------------------------------------------------


def sizes_of(name: str) -> tuple[int, int]:
    """Resolution levels that every tile-component has at least, less one, and layers."""
    tiles = walked(name).tiles.values()
    levels = min(len(levels) for tile in tiles for levels in tile.resolutions) - 1
    return levels, max(tile.packing.layers for tile in tiles if tile.packing)


CUT = [name for name in NAMES if "tiles at offsets" not in name]
"""All but tiles that cannot be divided by 2."""


@pytest.mark.parametrize("name", CUT)
def test_what_is_cut_is_left_out_and_the_rest_is_the_same(name: str) -> None:
    choice = random.Random(name)
    levels, layers = sizes_of(name)
    dropped, kept = choice.randint(0, levels), choice.randint(1, layers)
    codestream, whole = stream(name).codestream, walked(name)
    cut = progression.cut(codestream, levels_dropped=dropped, layers=kept)
    expected = {
        (tile, turn): content
        for (tile, turn), content in contents(whole).items()
        if turn.layer < kept and turn.resolution < len(whole.tiles[tile].resolutions[turn.component]) - dropped
    }
    assert contents(sound(cut)) == expected
    if "placeholder" not in name and not name.endswith(rewritten.BEYOND_OPENJPEG):
        # OpenJPEG asks COD how many levels may go, also where every component has a COC.
        same = stream(name.split(":")[0]).codestream if "COC" in name else codestream
        assert_equal_samples(openjpeg(cut), openjpeg(same, dropped, kept))
    if stream(name).ht and not name.endswith(rewritten.BEYOND_OPENJPH) and kept == layers:
        assert_equal_samples(decoders.openjph(cut), decoders.openjph(codestream, dropped))


def check_choice(full: Contents, found: Contents, most: int, length: int) -> None:
    """Of a stream cut to `most` bytes: each precinct has its first layers, what comes first in the order layer,
    resolution, tile, component, precinct is preferred, and nothing is left out that would have fitted."""
    order = sorted(found, key=lambda key: (key[1].layer, key[1].resolution, key[0], *key[1][2:]))
    sizes = {key: sum(map(len, full[key])) for key in full}
    ended: set[tuple[Any, ...]] = set()
    # The room is rounded down, and a length in PLT may take 4 bytes more than that of an empty packet.
    loose = 24
    taken = length - sum(len(header) + len(body) for header, body in found.values())
    for at, key in enumerate(order):
        precinct = (key[0], *key[1][1:])
        if found[key] == full[key]:
            assert precinct not in ended or not full[key][1]
            taken += sizes[key]
            continue
        if precinct not in ended:
            ended.add(precinct)
            assert taken + sizes[key] + len(order) - at + loose > most
            assert length + sizes[key] + loose > most
        taken += 1


@pytest.mark.parametrize("name", NAMES[::5])
def test_a_byte_budget_is_kept_and_layers_come_first(name: str) -> None:
    codestream = stream(name).codestream
    whole = progression.cut(codestream)
    choice = random.Random(name)
    full = contents(walked(name))
    sizes = {len(whole), len(whole) - 1, *(choice.randrange(len(whole)) for _ in range(3))}
    used = []
    for most in sorted(sizes):
        try:
            cut = progression.cut(codestream, most_bytes=most)
        except CodestreamError:
            assert most < len(whole) and not used  # not even empty packets fit; more bytes are never worse
            continue
        assert len(cut) <= most
        used.append(len(cut))
        found = contents(sound(cut))
        assert all(found[key] == full[key] or found[key] == (b"\x00", b"") for key in found)
        check_choice(full, found, most, len(cut))
    assert used == sorted(used)
    assert progression.cut(codestream, most_bytes=len(whole)) == whole


# --- region -------------------------------------------------------------------------------------------------------


def component_slices(found: Walk, rectangle: progression.Rectangle, dropped: int) -> list[tuple[slice, slice]]:
    """Where the samples inside a rectangle of the image, `dropped` levels down, are in each component."""
    assert found.image is not None
    x0, y0 = -(-found.image.area.x0 >> dropped), -(-found.image.area.y0 >> dropped)
    out = []
    for component in found.image.components:
        dx, dy = component.separation
        edges = []
        for start, first, count, step in (
            (y0, rectangle.top, rectangle.rows, dy),
            (x0, rectangle.left, rectangle.columns, dx),
        ):
            origin = -(-start // step)
            low, high = (-(-(start + edge) // step) - origin for edge in (first, first + count))
            edges.append(slice(low, high))
        out.append((edges[0], edges[1]))
    return out


@pytest.mark.parametrize("name", CUT[::2])
def test_inside_a_region_the_samples_are_those_of_the_whole(name: str) -> None:
    choice = random.Random(name)
    levels, _ = sizes_of(name)
    dropped = choice.randint(0, levels)
    codestream = stream(name).codestream
    whole = progression.cut(codestream, levels_dropped=dropped)
    image = walked(name).image
    assert image is not None
    rows = -(-image.area.y1 >> dropped) + (-image.area.y0 >> dropped)
    columns = -(-image.area.x1 >> dropped) + (-image.area.x0 >> dropped)
    top, left = choice.randrange(rows), choice.randrange(columns)
    size = choice.randint(1, min(rows - top, 9)), choice.randint(1, min(columns - left, 9))
    rectangle = progression.Rectangle(top, left, *size)
    part = progression.region(codestream, rectangle, dropped)
    full, found = contents(sound(whole)), contents(sound(part))
    assert found.keys() == full.keys()
    assert all(found[key] == full[key] or found[key][1] == b"" for key in found)
    by_openjpeg = "placeholder" not in name
    by_openjph = stream(name).ht and not name.endswith(("COD in tiles", "COC and QCC"))
    for decode in [openjpeg] * by_openjpeg + [decoders.openjph] * by_openjph:
        inside, expected = decode(part), decode(whole)
        for (y, x), plane, original in zip(
            component_slices(walked(name), rectangle, dropped), inside, expected, strict=True
        ):
            assert np.array_equal(plane[y, x], original[y, x])


@pytest.mark.parametrize(
    "name", ["j2k RPCL", "j2k precincts of one block", "j2k many tiles", "ht LRCP", "ht small blocks"]
)
def test_a_region_leaves_far_precincts_out(name: str) -> None:
    """A corner: no precinct of the finest level that lies in the opposite half carries data."""
    found = sound(progression.region(stream(name).codestream, progression.Rectangle(0, 0, 4, 4), 0))
    for packet in found.packets:
        tile = found.tiles[packet.tile]
        where = tile.resolutions[packet.component][packet.resolution]
        column = where.precincts.first_column + packet.precinct % where.precincts.columns
        row = where.precincts.first_row + packet.precinct // where.precincts.columns
        finest = packet.resolution == len(tile.resolutions[packet.component]) - 1
        if finest and ((column << where.precinct[0]) > 16 or (row << where.precinct[1]) > 16):
            assert packet.blocks == ()
    assert any(packet.blocks for packet in found.packets)


# --- damage -------------------------------------------------------------------------------------------------------

def same_or_refused(codestream: bytes) -> None:
    """Both walkers give one answer: the same packets, or that the codestream cannot be followed."""
    try:
        found = j2k.walk(codestream)
    except j2k.TooLarge:
        try:
            progression.index(codestream)
        except CodestreamError:
            pass
        return
    try:
        packets = by_index(codestream)
    except CodestreamError as error:
        assert found.fault is not None, f"refused: {error}"
        return
    assert found.fault is None, f"accepted in spite of: {found.fault}"
    assert packets == by_reference(found)
    again = j2k.walk(progression.reorder(codestream))
    assert again.fault is None
    assert again.notes == []
    assert contents(again) == contents(found)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A codestream with some bytes changed, left out or put in, mostly in its headers; or cut."""
    name = draw(st.sampled_from(NAMES))
    data = bytearray(stream(name).codestream)
    for _ in range(draw(st.integers(1, 3))):
        last = len(data) - 1
        at = draw(st.one_of(st.integers(0, min(last, 250)), st.integers(0, last)))
        match draw(st.sampled_from(["set", "set", "flip", "insert", "remove", "cut"])):
            case "set":
                data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))
            case "flip":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=6))
            case "remove":
                del data[max(at, 1) : at + draw(st.integers(1, 12))]
            case _:
                del data[max(at, 1) :]
    return bytes(data)


@settings(max_examples=400)
@given(codestream=damaged())
def test_damage_is_refused_or_read_alike(codestream: bytes) -> None:
    same_or_refused(codestream)


@pytest.mark.parametrize("name", ["j2k 1 bits", "ht 7 bits", "j2k boxed", "j2k SOP EPH", "ht 201 signed bytes"])
def test_cut_at_every_byte(name: str) -> None:
    """Before the end of the last packet it is refused; from there on the answer is the whole one."""
    data = stream(name).codestream
    expected = by_reference(walked(name))
    last = max(packet.end for packet in walked(name).packets)
    for end in range(len(data)):
        if end < last:
            with pytest.raises(CodestreamError):
                progression.index(data[:end])
        else:
            assert by_index(data[:end]) == expected


@pytest.mark.parametrize("name", NAMES[::4])
def test_cut_around_every_packet_and_marker(name: str) -> None:
    data = stream(name).codestream
    found = walked(name)
    expected = by_reference(found)
    last = max((packet.end for packet in found.packets if packet.body[1] or not packet.packed), default=0)
    places = {edge for packet in found.packets for edge in (packet.start, packet.body[0], packet.end)}
    places |= {edge for part in found.tile_parts for edge in (part.at, part.data, part.end)}
    places |= {segment.at for segment in found.main_segments}
    sample = sorted({place + step for place in places for step in (-1, 0, 1)})
    for end in sample[:: max(1, len(sample) // 150)]:
        if end < last:
            with pytest.raises(CodestreamError):
                progression.index(data[:end])
        elif end < len(data):
            assert by_index(data[:end]) == expected
