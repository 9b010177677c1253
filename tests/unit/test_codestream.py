"""Codestream headers, level ends and smaller codestreams, against OpenJPH and OpenJPEG."""

from __future__ import annotations

import shutil
import subprocess
import tracemalloc
from pathlib import Path

import imagecodecs
import numpy as np
import openjpeg
import pytest

from pacs import codestream
from pacs.errors import CodestreamError

LEVELS = 5


def image(rows: int = 150, columns: int = 217, samples: int = 0) -> np.ndarray:
    rng = np.random.default_rng(rows * columns)
    shape = (rows, columns, samples) if samples else (rows, columns)
    return (np.cumsum(rng.integers(-9, 10, shape), axis=0) + 40).astype(np.int16)


def htj2k(samples: np.ndarray, *, tlm: bool = True, parts: bool = True, **options: object) -> bytes:
    options.setdefault("reversible", True)
    tilepart = imagecodecs.HTJ2K.TILEPART.RESOLUTIONS if parts else None
    return bytes(imagecodecs.htj2k_encode(samples, resolutions=LEVELS, tlm=tlm, tilepart=tilepart, **options))


def test_headers_of_a_frame_of_ours() -> None:
    encoded = htj2k(image())
    parsed = codestream.parse(encoded)
    assert (parsed.rows, parsed.columns, parsed.tiles) == (150, 217, 1)
    assert parsed.components == (codestream.Component(16, True, 1, 1),)
    assert (parsed.progression, parsed.layers, parsed.decompositions) == ("RPCL", 1, LEVELS)
    assert parsed.ht and parsed.reversible and not parsed.mct
    assert parsed.tlm_agrees and parsed.complete and parsed.eoc
    assert len(parsed.level_ends) == LEVELS + 1
    assert parsed.level_ends[-1] == parsed.promised == len(encoded) - 2


@pytest.mark.parametrize("dropped", range(LEVELS + 1))
@pytest.mark.parametrize("eoc", [b"", b"\xff\xd9"])
def test_prefix_at_a_level_end_decodes_to_that_level(dropped: int, eoc: bytes) -> None:
    encoded = htj2k(image())
    end = codestream.parse(encoded).level_ends[LEVELS - dropped]
    prefix = encoded[:end] + eoc
    expected = imagecodecs.htj2k_decode(encoded, skipres=dropped or None)
    found = imagecodecs.htj2k_decode(prefix, skipres=dropped or None, resilient=True)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("samples", [0, 3])
@pytest.mark.parametrize("dropped", range(LEVELS + 1))
def test_reduced_codestream_stands_alone(dropped: int, samples: int) -> None:
    encoded = htj2k(image(samples=samples), planar=False if samples else None)
    parsed = codestream.parse(encoded)
    # No more of the original is needed than its data up to the last level kept.
    smaller = codestream.reduce(encoded[: parsed.level_ends[LEVELS - dropped]], dropped)
    again = codestream.parse(smaller)
    assert again.complete and again.eoc and again.tlm_agrees
    assert again.decompositions == LEVELS - dropped == len(again.level_ends) - 1
    assert (again.rows, again.columns) == (-(-150 >> dropped), -(-217 >> dropped))
    planar = False if samples else None
    expected = imagecodecs.htj2k_decode(encoded, skipres=dropped or None, planar=planar)
    assert np.array_equal(imagecodecs.htj2k_decode(smaller, planar=planar), expected)
    assert np.array_equal(imagecodecs.jpeg2k_decode(smaller, planar=planar), expected)
    assert np.array_equal(openjpeg.decode(smaller), expected)


def test_reduced_irreversible_codestream() -> None:
    encoded = htj2k(image(), reversible=False, level=0.001)
    expected = imagecodecs.htj2k_decode(encoded, skipres=2)
    assert np.array_equal(imagecodecs.htj2k_decode(codestream.reduce(encoded, 2)), expected)


@pytest.mark.skipif(shutil.which("opj_decompress") is None, reason="opj_decompress (libopenjp2-tools) is not installed")
def test_reduced_part_1_codestream_of_another_encoder(tmp_path: Path) -> None:
    """OpenJPEG's own RPCL stream with a tile-part for each resolution, against its own reduction."""
    samples = (image() & 0xFF).astype(np.uint8)
    (tmp_path / "in.pgm").write_bytes(b"P5\n217 150\n255\n" + samples.tobytes())
    run = ["opj_compress", "-i", "in.pgm", "-o", "out.j2k", "-n", "6", "-p", "RPCL", "-TP", "R", "-TLM", "-PLT"]
    subprocess.run(run, cwd=tmp_path, capture_output=True, check=True)
    encoded = (tmp_path / "out.j2k").read_bytes()
    parsed = codestream.parse(encoded)
    assert parsed.packet_lengths and parsed.tlm_agrees and not parsed.ht and len(parsed.level_ends) == 6
    (tmp_path / "small.j2k").write_bytes(codestream.reduce(encoded, 2))
    for source, out, extra in (("out.j2k", "a.pgm", ["-r", "2"]), ("small.j2k", "b.pgm", [])):
        run = ["opj_decompress", "-i", source, "-o", out, *extra]
        subprocess.run(run, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "a.pgm").read_bytes() == (tmp_path / "b.pgm").read_bytes()


@pytest.mark.parametrize("cut", [3, 100, 2000])
def test_truncation_is_seen(cut: int) -> None:
    encoded = htj2k(image())
    parsed = codestream.parse(encoded[:-cut])
    assert not parsed.complete and not parsed.eoc
    assert parsed.promised == len(encoded) - 2
    assert parsed.length == len(encoded) - cut
    # TLM still tells where every level ends.
    assert parsed.level_ends == codestream.parse(encoded).level_ends


def test_truncation_is_seen_without_tlm() -> None:
    encoded = htj2k(image(), tlm=False)
    parsed = codestream.parse(encoded)
    assert parsed.complete and len(parsed.level_ends) == LEVELS + 1
    assert not codestream.parse(encoded[: parsed.tile_parts[3].offset]).complete
    assert not codestream.parse(encoded[:-5]).complete


def test_tlm_that_contradicts_the_tile_parts() -> None:
    encoded = bytearray(htj2k(image()))
    at = encoded.index(b"\xff\x55")
    encoded[at + 10] ^= 1
    parsed = codestream.parse(encoded)
    assert parsed.tlm and not parsed.tlm_agrees
    assert parsed.complete and len(parsed.level_ends) == LEVELS + 1


def test_boxed_codestream() -> None:
    samples = (image() & 0xFF).astype(np.uint8)
    boxed = bytes(imagecodecs.jpeg2k_encode(samples, codecformat="JP2", level=0, reversible=True))
    raw = bytes(imagecodecs.jpeg2k_encode(samples, codecformat="J2K", level=0, reversible=True))
    parsed = codestream.parse(boxed)
    assert parsed.start > 0
    assert boxed[parsed.start : parsed.start + 2] == b"\xff\x4f"
    assert parsed.tile_parts == codestream.parse(raw).tile_parts
    assert not parsed.ht and parsed.complete and parsed.level_ends == ()
    with pytest.raises(CodestreamError, match="one tile-part"):
        codestream.reduce(boxed, 1)


def test_tiles() -> None:
    parsed = codestream.parse(htj2k(image(), tile=(64, 64)))
    assert parsed.tiles == 3 * 4 and parsed.complete and parsed.level_ends == ()


@pytest.mark.parametrize(
    ("bits", "signed", "byte"), [(12, False, 11), (16, True, 0x8F), (1, False, 0), (38, True, 165)]
)
def test_set_precision_changes_one_byte_a_component(bits: int, signed: bool, byte: int) -> None:
    encoded = bytearray(htj2k(image(samples=3), planar=False))
    before = bytes(encoded)
    codestream.set_precision(encoded, bits, signed)
    assert [encoded[42 + 3 * i] for i in range(3)] == [byte] * 3
    assert sum(a != b for a, b in zip(before, encoded, strict=True)) <= 3
    parsed = codestream.parse(encoded)
    assert (parsed.precision, parsed.signed) == (bits, signed)


def test_a_claim_of_many_components_allocates_nothing_for_them() -> None:
    siz = bytes.fromhex("ff51 c029 0000 00000001 00000001 00000000 00000000 00000001 00000001 00000000 00000000 4000")
    data = b"\xff\x4f" + siz
    tracemalloc.start()
    try:
        with pytest.raises(CodestreamError, match="SIZ is cut at byte 2"):
            codestream.parse(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\x4f", b"\xff\x4f\xff\x52\0\x0c", b"no codestream", bytes(40)])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CodestreamError):
        codestream.parse(data)


def test_every_cut_of_the_main_header_is_refused() -> None:
    encoded = htj2k(image())
    first = codestream.parse(encoded).tile_parts[0].offset
    for length in range(first + 2):
        with pytest.raises(CodestreamError) as caught:
            codestream.parse(encoded[:length])
        assert caught.value.offset <= length


@pytest.mark.parametrize("dropped", [-1, LEVELS + 1])
def test_levels_that_are_not_there(dropped: int) -> None:
    with pytest.raises(CodestreamError):
        codestream.reduce(htj2k(image()), dropped)


def test_reduce_refuses_data_that_ends_too_early() -> None:
    encoded = htj2k(image())
    end = codestream.parse(encoded).level_ends[3]
    with pytest.raises(CodestreamError, match="ends before"):
        codestream.reduce(encoded[: end - 1], LEVELS - 3)
