"""Smaller images straight from the codestream: every kind of JPEG 2000 against OpenJPEG's own reduced decoding."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames

from pacs import codestream, transcode, uids
from pacs.errors import PixelError
from pacs.geometry import FrameGeometry
from tests.streams import decoders, kinds

OFF_THE_GRID = {"j2k offsets", "j2k tiles at offsets", "ht tiles at offsets"}
"""Their levels are not half as large, rounded up."""
UNEVEN_TILES = {name for name in kinds.NAMES if "tile" in name} | {"j2k many tiles", "j2k everything"}
WHOLE = [name for name in kinds.NAMES if "chroma" not in name]


def described(parsed: codestream.Codestream) -> FrameGeometry:
    allocated = 8 if parsed.precision <= 8 else 16
    count = len(parsed.components)
    photometric = "RGB" if count == 3 else "MONOCHROME2"
    return FrameGeometry(
        parsed.rows, parsed.columns, count, allocated, parsed.precision, parsed.precision - 1, int(parsed.signed), 0,
        photometric, 1,
    )  # fmt: skip


def oracle(data: bytes, dropped: int) -> np.ndarray:
    planes = decoders.openjpeg(data, dropped)
    return np.stack(planes, axis=-1) if len(planes) > 1 else planes[0]


@pytest.mark.parametrize("name", WHOLE)
def test_levels_of_every_kind(name: str) -> None:
    stream = kinds.stream(name)
    parsed = codestream.parse(stream.codestream)
    geometry = described(parsed)
    syntax = uids.HTJ2K if stream.ht else uids.JPEG_2000
    assert transcode.droppable_levels(stream.codestream, syntax) == parsed.decompositions
    whole = transcode.decode_frame(stream.codestream, geometry, syntax).astype(int)
    tolerance = 0 if parsed.reversible else 1 << max(0, parsed.precision - 13)
    assert np.abs(whole - oracle(stream.codestream, 0)).max() <= tolerance
    for dropped in range(1, min(parsed.decompositions, 2) + 1):
        found = transcode.decode_frame(stream.codestream, geometry, syntax, levels_dropped=dropped)
        assert found.shape[:2] == (-(-geometry.rows >> dropped), -(-geometry.columns >> dropped))
        if name in OFF_THE_GRID:
            continue
        expected = oracle(stream.codestream, dropped)
        difference = np.abs(found.astype(int) - expected)
        if name in UNEVEN_TILES:
            # Each tile has low-pass bands of its own; where they could not be taken, the image's are near.
            assert difference.mean() <= 3 * (1 << max(0, parsed.precision - 8))
        else:
            assert difference.max() <= tolerance


def test_no_more_levels_than_there_are() -> None:
    stream = kinds.stream("j2k plain")
    geometry = described(codestream.parse(stream.codestream))
    levels = transcode.droppable_levels(stream.codestream, uids.JPEG_2000_LOSSLESS)
    with pytest.raises(PixelError, match="cannot be dropped"):
        transcode.decode_frame(stream.codestream, geometry, uids.JPEG_2000_LOSSLESS, levels_dropped=levels + 1)
    most = transcode.decode_reduced(stream.codestream, geometry, uids.JPEG_2000_LOSSLESS, 99)
    assert most.shape == (-(-geometry.rows >> levels), -(-geometry.columns >> levels))
    for levels in (0, -1):
        whole = transcode.decode_reduced(stream.codestream, geometry, uids.JPEG_2000_LOSSLESS, levels)
        assert whole.shape == (geometry.rows, geometry.columns)


def test_what_has_no_levels_is_decoded_whole() -> None:
    samples = np.arange(64, dtype=np.uint8).reshape(8, 8)
    geometry = FrameGeometry(8, 8, 1, 8, 8, 7, 0, 0, "MONOCHROME2", 1)
    assert transcode.droppable_levels(samples.tobytes(), uids.ENCAPSULATED_UNCOMPRESSED) == 0
    assert transcode.droppable_levels(b"no codestream", uids.JPEG_2000) == 0
    found = transcode.decode_reduced(samples.tobytes(), geometry, uids.ENCAPSULATED_UNCOMPRESSED, 3)
    assert np.array_equal(found, samples)


def test_extremes_do_not_wrap_in_any_part_1_stream() -> None:
    """Black and white squares overshoot in every low-pass band."""
    samples = (np.kron(np.random.default_rng(2).integers(0, 2, (20, 23)), np.ones((7, 5))) * 4095).astype(np.uint16)
    geometry = FrameGeometry(*samples.shape, 1, 16, 12, 11, 0, 0, "MONOCHROME2", 1)
    frame = transcode.layered(samples, geometry)
    for dropped in (1, 2, 3, 4):
        found = transcode.decode_frame(frame.codestream, geometry, uids.JPEG_2000_LOSSLESS, levels_dropped=dropped)
        assert np.array_equal(found, oracle(frame.codestream, dropped)) and found.max() <= 4095


def test_samples_at_a_high_bit_come_down_before_they_are_clamped() -> None:
    samples = np.random.default_rng(3).integers(0, 4096, (40, 50)).astype(np.uint16)
    geometry = FrameGeometry(40, 50, 1, 16, 12, 11, 0, 0, "MONOCHROME2", 1)
    cell = msgspec.structs.replace(geometry, bits_stored=16, high_bit=15)
    high = msgspec.structs.replace(geometry, high_bit=15)
    encoded = transcode.encode_frame(samples << 4, cell).codestream
    low = transcode.decode_frame(encoded, cell, uids.HTJ2K_LOSSLESS_RPCL, levels_dropped=1)
    found = transcode.decode_frame(encoded, high, uids.HTJ2K_LOSSLESS_RPCL, levels_dropped=1)
    assert np.array_equal(found, np.clip(low >> 4, 0, 4095))


def test_real_files(shared_data: Path, manifest: list[dict[str, str]]) -> None:
    compared = 0
    seen = set()
    for row in manifest:
        path = shared_data / row["path"]
        kind = (row["transfer_syntax"], row["photometric"], row["bits_stored"], row["signed"], path.parent)
        if "2000" not in row["transfer_syntax"] or kind in seen or path.parent.name in ("large2d", "malformed"):
            continue
        if path.name.startswith("generated_encapsulated"):  # its frames are eight bytes that count from 0
            continue
        seen.add(kind)
        dataset = pydicom.dcmread(path)
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        assert syntax in transcode.decoders.SCALABLE
        frame = next(generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)))
        parsed = codestream.parse(frame)
        for dropped in range(1, min(parsed.decompositions, 2) + 1):
            found = transcode.decode_frame(frame, described(parsed), syntax, levels_dropped=dropped)
            tolerance = 0 if parsed.reversible else 1
            expected = oracle(frame[parsed.start :] if frame[:2] == b"\xff\x4f" else frame, dropped)
            assert np.abs(found.astype(int) - expected).max() <= tolerance, (path, dropped)
            compared += 1
    assert compared > 20
