"""Packets moved, left out and found again: what OpenJPEG and OpenJPH make of the result, and what damage does.

That each packet is where `progression.index` says is compared with a walker of its own in
`tests/property/test_progression_oracle.py`.
"""

from __future__ import annotations

import hashlib
import io
from itertools import pairwise
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pydicom.encaps
import pytest
from numpy.typing import NDArray

from pacs import codestream, progression
from pacs.errors import CodestreamError
from tests.streams import decoders, invented, kinds, rewritten

Samples = list[NDArray[np.int64]]

SUBSAMPLED = tuple(name for name in kinds.NAMES if "halved" in name)
DECODED = tuple(name for name in kinds.NAMES if name not in SUBSAMPLED)


def equal(found: Samples, expected: Samples) -> bool:
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


def openjpeg(encoded: bytes) -> NDArray[np.generic]:
    samples: NDArray[np.generic] = imagecodecs.jpeg2k_decode(encoded)
    return samples


def contents(encoded: bytes) -> dict[tuple[int, ...], tuple[bytes, bytes]]:
    """Header and body of each packet by tile, component, resolution, precinct and layer."""
    found = progression.index(encoded)
    held = {}
    for packet in found.packets:
        source = found.packed_headers if packet.packed else encoded
        header = source[packet.header_offset : packet.header_offset + packet.header_length]
        held[packet[:5]] = (header, encoded[packet.body_offset : packet.body_offset + packet.body_length])
    assert len(held) == len(found.packets)
    return held


def check_form(reordered: bytes, levels: int | None = None) -> None:
    """RPCL, a tile-part for each level of each tile, level by level, TLM and PLT."""
    parsed = codestream.parse(reordered)
    assert parsed.progression == "RPCL" and parsed.complete and parsed.tlm_agrees and parsed.eoc
    numbers = [part.number for part in parsed.tile_parts]
    count = max(numbers) + 1
    assert numbers == sorted(numbers) and len(numbers) == count * parsed.tiles
    found = progression.index(reordered)
    assert found.lengths_agree is True
    data = [part.data for part in parsed.tile_parts] + [len(reordered)]
    for packet in found.packets:
        part = packet.resolution * parsed.tiles + packet.tile
        assert data[part] <= packet.header_offset < data[part + 1]


# --- reorder --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DECODED)
def test_reordered_decodes_to_the_same(name: str) -> None:
    stream = kinds.stream(name)
    reordered = progression.reorder(stream.codestream)
    check_form(reordered)
    assert progression.reorder(reordered) == reordered
    assert np.array_equal(openjpeg(reordered), openjpeg(stream.codestream))
    if stream.ht:
        assert equal(decoders.openjph(reordered), decoders.openjph(stream.codestream))


@pytest.mark.parametrize("name", SUBSAMPLED)
def test_reordered_subsampled_decodes_to_the_same(name: str) -> None:
    stream = kinds.stream(name)
    reordered = progression.reorder(stream.codestream)
    check_form(reordered)
    decode = decoders.openjph if stream.ht else decoders.openjpeg
    assert equal(decode(reordered), list(stream.components))


@pytest.mark.parametrize("name", rewritten.NAMES)
def test_reordered_whatever_the_layout(name: str) -> None:
    """The packets of a stream are the same in every layout, so their order after is the only thing to look at."""
    encoded = rewritten.stream(name).codestream
    reordered = progression.reorder(encoded)
    check_form(reordered)
    assert contents(reordered) == contents(encoded)
    marker = b"\xff\x91\x00\x04"
    assert marker not in reordered and b"\xff\x5f" not in reordered[: codestream.parse(reordered).tile_parts[0].data]


@pytest.mark.parametrize("name", ["ht RPCL colour tiles", "j2k LRCP colour tiles", "j2k tiles at offsets"])
@pytest.mark.parametrize("layout", ["PPM", "PPT in pieces", "PLM", "POC", "COC and QCC", "COD in tiles", "open end"])
def test_reordered_layout_decodes_to_the_same(name: str, layout: str) -> None:
    reordered = progression.reorder(rewritten.stream(f"{name}: {layout}").codestream)
    assert np.array_equal(openjpeg(reordered), openjpeg(kinds.stream(name).codestream))


@pytest.mark.parametrize("seed", range(100))
def test_reordered_invention_keeps_every_packet(seed: int) -> None:
    encoded = invented.codestream(seed)
    reordered = progression.reorder(encoded)
    assert contents(reordered) == contents(encoded)
    # LRCP, RLCP … and back: what `cut` writes when it leaves nothing out.
    again = progression.cut(encoded)
    assert contents(again) == contents(encoded)
    assert progression.reorder(again) == reordered


@pytest.mark.parametrize("name", ["ht LRCP", "ht 202", "ht CPRL colour tiles", "ht 203 irreversible"])
def test_level_of_reordered_is_a_prefix(name: str) -> None:
    stream = kinds.stream(name)
    reordered = progression.reorder(stream.codestream)
    ends = progression.level_ends(reordered)
    levels = codestream.parse(reordered).decompositions
    assert len(ends) == levels + 1 and ends[-1] == len(reordered) - 2
    for dropped in range(levels + 1):
        prefix = reordered[: ends[levels - dropped]]
        expected = decoders.openjph(stream.codestream, dropped)
        assert equal(decoders.openjph(prefix, dropped, resilient=True), expected)


@pytest.mark.parametrize("name", ["j2k LRCP colour tiles", "j2k CPRL", "j2k many tiles"])
def test_level_of_reordered_part_1_is_a_prefix(name: str) -> None:
    encoded = kinds.stream(name).codestream
    reordered = progression.reorder(encoded)
    parsed = codestream.parse(reordered)
    for dropped in range(1, parsed.decompositions + 1):
        end = parsed.level_ends[parsed.decompositions - dropped]
        held = [part for part in parsed.tile_parts if part.offset < end]
        assert len(held) == parsed.tiles * (parsed.decompositions + 1 - dropped)
        assert held[-1].offset + held[-1].length == end
        of_level = {
            packet[:5]
            for packet in progression.index(reordered).packets
            if packet.body_offset + packet.body_length <= end
        }
        assert of_level == {key for key in contents(encoded) if key[2] <= parsed.decompositions - dropped}


# --- cut ------------------------------------------------------------------------------------------------------


CUT = ("j2k LRCP", "j2k PCRL colour tiles", "j2k RLCP halved chroma", "j2k tiles at offsets", "j2k irreversible colour",
       "j2k everything", "j2k POC by layer", "j2k precincts of one block", "ht LRCP", "ht RPCL colour tiles",
       "ht CPRL halved chroma", "ht irreversible")  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_cut_at_a_level(name: str) -> None:
    stream = kinds.stream(name)
    decode = decoders.openjph if stream.ht else decoders.openjpeg
    levels = codestream.parse(stream.codestream).decompositions
    for dropped in range(levels + 1):
        try:
            smaller = progression.cut(stream.codestream, levels_dropped=dropped)
        except CodestreamError as error:
            assert "cannot be divided" in str(error) and codestream.parse(stream.codestream).tiles > 1
            continue
        parsed = codestream.parse(smaller)
        assert parsed.decompositions == levels - dropped and parsed.complete and parsed.tlm_agrees
        assert progression.index(smaller).lengths_agree is True
        assert equal(decode(smaller), decode(stream.codestream, dropped))


def test_cut_at_more_levels_than_there_are() -> None:
    with pytest.raises(CodestreamError, match="cannot be dropped"):
        progression.cut(kinds.stream("j2k LRCP").codestream, levels_dropped=4)


@pytest.mark.parametrize("rows", range(1, 60, 7))
@pytest.mark.parametrize("edge", [3, 20, 28, 33])
def test_cut_tiles(edge: int, rows: int) -> None:
    """Any size of tile: either its edges can be divided and the samples are right, or it is said that they cannot."""
    samples = kinds.stream("j2k many tiles").components[0][: rows + 5, :77]
    encoded = bytes(imagecodecs.htj2k_encode(samples, reversible=True, resolutions=3, tile=(edge, edge + 1)))
    for dropped in range(4):
        try:
            smaller = progression.cut(encoded, levels_dropped=dropped)
        except CodestreamError as error:
            assert dropped and str(error).startswith("tiles of")
            continue
        assert equal(decoders.openjph(smaller), decoders.openjph(encoded, dropped))


LAYERED = ("j2k LRCP", "j2k RLCP colour tiles", "j2k RPCL", "j2k all styles", "j2k POC by layer")


@pytest.mark.parametrize("name", LAYERED)
def test_cut_at_a_layer(name: str) -> None:
    encoded = kinds.stream(name).codestream
    layers = codestream.parse(encoded).layers
    for kept in range(1, layers + 1):
        smaller = progression.cut(encoded, layers=kept)
        parsed = codestream.parse(smaller)
        assert parsed.layers == kept and parsed.complete
        assert equal(decoders.openjpeg(smaller), decoders.openjpeg(encoded, layers=kept))
    assert parsed.progression == codestream.parse(encoded).progression or "POC" in name


BUDGETS = (
    "j2k LRCP", "j2k six layers ending lossless", "j2k CPRL colour tiles", "j2k everything", "ht 202",
    "j2k thirty layers", "j2k many tiles",
)  # fmt: skip


@pytest.mark.parametrize("name", BUDGETS)
def test_cut_at_bytes(name: str) -> None:
    encoded = kinds.stream(name).codestream
    whole = openjpeg(encoded).astype(np.float64)
    held = contents(encoded)
    errors = []
    for most in range(len(encoded) // 8, len(encoded) * 5 // 4, len(encoded) // 8):
        try:
            smaller = progression.cut(encoded, most_bytes=most)
        except CodestreamError as error:
            assert "do not hold" in str(error)
            continue
        assert len(smaller) <= most
        found = contents(smaller)
        assert all(packet in (held[key], (b"\x00", b"")) for key, packet in found.items())
        # A packet that is left out ends its precinct.
        left_out = {key for key in found if found[key] != held[key]}
        assert not [key for key in left_out if found.get((*key[:4], key[4] + 1), (b"", b""))[1]]
        if name.startswith("ht"):
            # OpenJPH does not clamp what overshoots where detail is missing.
            clamped = np.isin(openjpeg(smaller), (0, 65535))
            assert np.array_equal(decoders.openjph(smaller)[0][~clamped], openjpeg(smaller)[~clamped])
        errors.append(float(np.square(openjpeg(smaller) - whole).mean()))
    assert len(errors) > 3 and errors[-1] == 0
    assert all(later <= earlier * 1.02 for earlier, later in pairwise(errors)), errors


def test_cut_to_bytes_that_cannot_hold_a_header() -> None:
    encoded = kinds.stream("j2k LRCP").codestream
    for most in (0, 10, 150):
        with pytest.raises(CodestreamError, match="do not hold"):
            progression.cut(encoded, most_bytes=most)


def test_cut_at_everything_at_once() -> None:
    encoded = kinds.stream("j2k six layers ending lossless").codestream
    smaller = progression.cut(encoded, levels_dropped=1, layers=4, most_bytes=1500)
    parsed = codestream.parse(smaller)
    assert len(smaller) <= 1500 and parsed.decompositions == 4 and parsed.layers <= 4 and parsed.rows == 64
    assert openjpeg(smaller).shape == (64, 64)


@pytest.mark.parametrize("arguments", [{"levels_dropped": -1}, {"layers": 0}, {"layers": -3}])
def test_cut_refuses_nonsense(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="dropped"):
        progression.cut(kinds.stream("j2k LRCP").codestream, **arguments)


# --- real files -----------------------------------------------------------------------------------------------


PINNED = (
    "large2d/966_fixed.dcm", "photometric/SC_rgb_gdcm_KY.dcm", "transfer-syntax/htj2k-lossless-rpcl/CT1_JPH",
    "transfer-syntax/j2k-lossless/CT1_J2KR", "transfer-syntax/j2k-lossy/ELSCINT1_JP2vsJ2K.dcm",
)  # fmt: skip


def test_real_files(shared_data: Path, manifest: list[dict[str, str]]) -> None:
    """Every JPEG 2000 frame of the real files that is whole, and one digest over what they are re-ordered to."""
    digest = hashlib.sha256()
    frames = decoded = 0
    for row in manifest:
        if "JPEG 2000" not in row["transfer_syntax"] or row["path"].startswith(("malformed", "transfer-syntax/frag")):
            continue
        dataset = pydicom.dcmread(io.BytesIO((shared_data / row["path"]).read_bytes()), force=True)
        count = int(dataset.get("NumberOfFrames") or 1)
        for frame in list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=count))[:3]:
            reordered = progression.reorder(frame)
            assert contents(reordered) == contents(frame)
            assert len(progression.level_ends(reordered)) == codestream.parse(frame).decompositions + 1
            if row["path"] in PINNED:
                digest.update(reordered)
            frames += 1
            if codestream.parse(frame).ht:
                planar = None if len(codestream.parse(frame).components) == 1 else False
                assert np.array_equal(
                    imagecodecs.htj2k_decode(reordered, planar=planar), imagecodecs.htj2k_decode(frame, planar=planar)
                )
            if len(frame) < 250_000:
                assert np.array_equal(openjpeg(reordered), openjpeg(frame))
                decoded += 1
    assert frames >= 45 and decoded >= 30
    # Entity tags of what is served depend on these bytes.
    assert digest.hexdigest() == "c89696febd260cbdd1bf2ca5f064fee5dae345d4b9a93b3761636dc11274f115"
