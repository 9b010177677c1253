"""Damaged frames of every kind decode to samples that fit, or to a PixelError: nothing else, and no crash."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacs import codestream, transcode, uids
from pacs.errors import PixelError
from pacs.geometry import FrameGeometry

ROWS, COLUMNS = 24, 32


def _described(samples: int, allocated: int, stored: int, photometric: str = "") -> FrameGeometry:
    photometric = photometric or ("RGB" if samples == 3 else "MONOCHROME2")
    return FrameGeometry(ROWS, COLUMNS, samples, allocated, stored, stored - 1, 0, 0, photometric, 1)


def _frames() -> list[tuple[bytes, FrameGeometry, str]]:
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    gray = ((rows * 13 + columns * 7) % 251).astype(np.uint8)
    deep = ((rows * 131 + columns * 77) % 4096).astype(np.uint16)
    rgb = np.stack([gray, gray[::-1], gray[:, ::-1]], axis=-1)
    of_gray, of_deep, of_rgb = _described(1, 8, 8), _described(1, 16, 12), _described(3, 8, 8)
    return [
        (transcode.encode_frame(gray, of_gray).codestream, of_gray, uids.HTJ2K_LOSSLESS_RPCL),
        (transcode.encode_frame(deep, of_deep).codestream, of_deep, uids.HTJ2K_LOSSLESS_RPCL),
        (transcode.encode_frame(rgb, of_rgb).codestream, of_rgb, uids.HTJ2K_LOSSLESS_RPCL),
        (imagecodecs.jpeg2k_encode(deep, level=0, reversible=True), of_deep, uids.JPEG_2000_LOSSLESS),
        (imagecodecs.jpeg2k_encode(rgb, level=0, codecformat="JP2"), of_rgb, uids.JPEG_2000),
        (imagecodecs.jpeg8_encode(gray), of_gray, uids.JPEG_BASELINE),
        (imagecodecs.jpeg8_encode(rgb), of_rgb, uids.JPEG_BASELINE),
        (imagecodecs.jpeg8_encode(deep, bitspersample=12), of_deep, uids.JPEG_EXTENDED),
        (imagecodecs.jpeg8_encode(deep, lossless=True, bitspersample=12), of_deep, uids.JPEG_LOSSLESS_SV1),
        (imagecodecs.jpegxl_encode(rgb, lossless=True), of_rgb, uids.JPEG_XL_LOSSLESS),
        (imagecodecs.jpegxl_encode(rgb, lossless=False, level=90), _described(3, 8, 8, "YBR_FULL_422"),
         uids.JPEG_XL_RECOMPRESSION),
        # Header of one segment, then a replicate run: PS3.5 G.5.
        (b"\1\0\0\0\x40\0\0\0" + bytes(56) + b"\x81\x55" * 6, of_gray, uids.RLE_LOSSLESS),
        (transcode.layered(deep, of_deep).codestream, of_deep, uids.JPEG_2000_LOSSLESS),
        *_encoded(gray, of_gray), *_encoded(deep, of_deep), *_encoded(rgb, of_rgb),
        *_encoded(rgb, _described(3, 8, 8, "YBR_FULL")), *_encoded(gray & 1, _described(1, 1, 1)),
        *_encoded(deep.astype(np.uint32) << 10, _described(1, 32, 22)),
        *_encoded(deep.astype(np.uint32) << 20, _described(1, 32, 32)),
    ]  # fmt: skip


def _encoded(samples: np.ndarray, geometry: FrameGeometry) -> Iterator[tuple[bytes, FrameGeometry, str]]:
    for rendition in transcode.renditions(uids.EXPLICIT_VR_LITTLE_ENDIAN, geometry):
        if rendition.kind == "encoded":
            assert rendition.geometry is not None
            yield transcode.encode(samples, geometry, rendition), rendition.geometry, rendition.transfer_syntax


FRAMES = _frames()


@settings(max_examples=400)
@given(
    st.sampled_from(FRAMES),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(min_size=1, max_size=8)), min_size=1, max_size=5),
    st.integers(0, 4),
)
def test_damage(case: tuple[bytes, FrameGeometry, str], changes: list[tuple[float, int, bytes]], dropped: int) -> None:
    frame, geometry, syntax = case
    damaged = bytearray(frame)
    for where, kind, data in changes:
        # Squared: headers matter most.
        at = int(where * where * len(damaged))
        if kind == 0:
            damaged[at : at + len(data)] = data
        elif kind == 1:
            damaged[at:at] = data
        elif kind == 2:
            del damaged[at : at + len(data)]
        else:
            del damaged[at + len(data) :]
    if syntax not in transcode.decoders.SCALABLE:
        dropped = 0
    try:
        samples = transcode.decode_frame(damaged, geometry, syntax, levels_dropped=dropped)
    except PixelError:
        return
    assert samples.shape[:2] == (-(-ROWS >> dropped), -(-COLUMNS >> dropped))
    assert samples.dtype == f"uint{max(8, geometry.bits_allocated)}"
    assert int(samples.max()) < 1 << geometry.bits_stored


def _of(syntax: str) -> list[tuple[bytes, FrameGeometry]]:
    return [(bytes(frame), geometry) for frame, geometry, found in FRAMES if found == syntax]


@pytest.mark.parametrize("offset", [0, 63, 65, 1 << 20, 0x73CBDB0F, 0xFFFFFFFF])
def test_rle_segments_that_are_not_there(offset: int) -> None:
    """imagecodecs follows any offset out of the frame."""
    for frame, geometry in _of(uids.RLE_LOSSLESS):
        for segment in range(int.from_bytes(frame[:4], "little")):
            at = 4 + 4 * segment
            damaged = frame[:at] + offset.to_bytes(4, "little") + frame[at + 4 :]
            if segment or offset != 65:
                with pytest.raises(PixelError):
                    transcode.decode_frame(damaged, geometry, uids.RLE_LOSSLESS)
        for count in (0, 16, 15, 0xFFFFFFFF):
            with pytest.raises(PixelError, match="segments"):
                transcode.decode_frame(count.to_bytes(4, "little") + frame[4:], geometry, uids.RLE_LOSSLESS)
        with pytest.raises(PixelError, match="no header"):
            transcode.decode_frame(frame[:63], geometry, uids.RLE_LOSSLESS)


@pytest.mark.parametrize("dropped", [0, 1])
def test_bit_planes_that_cannot_be(dropped: int) -> None:
    """OpenJPH 0.26 calls a null pointer for a subband of more than 30 bit-planes in an irreversible stream."""
    for frame, geometry in _of(uids.HTJ2K):
        if codestream.parse(frame).reversible:
            continue
        segment = frame.index(b"\xff\x5c")
        for at in (segment + 5, segment + 9, segment + 5 + 2 * 15):
            damaged = bytearray(frame)
            damaged[at] |= 0xF8
            with pytest.raises(PixelError, match="bit-planes"):
                transcode.decode_frame(damaged, geometry, uids.HTJ2K, levels_dropped=dropped)


def test_cut_jpeg_ls_is_refused_at_once() -> None:
    """CharLS 2.4 counts zeros behind the end of some cut scans for many seconds."""
    for frame, geometry in _of(uids.JPEG_LS_LOSSLESS):
        for end in range(40, len(frame) - 2, 7):
            began = time.thread_time()
            with contextlib.suppress(PixelError):  # the last bits may be padding
                transcode.decode_frame(frame[:end], geometry, uids.JPEG_LS_LOSSLESS)
            assert time.thread_time() - began < 1


@pytest.mark.parametrize("ht", [False, True])
def test_more_precincts_than_bytes(ht: bool) -> None:
    """158 bytes of 2000 x 2000 samples in precincts of 2 x 2 took OpenJPEG 12 s and 2 GB."""
    samples = np.zeros((2000, 2000), np.uint8)
    geometry = FrameGeometry(2000, 2000, 1, 8, 8, 7, 0, 0, "MONOCHROME2", 1)
    syntax = uids.HTJ2K_LOSSLESS if ht else uids.JPEG_2000_LOSSLESS
    rendition = transcode.plan(uids.EXPLICIT_VR_LITTLE_ENDIAN, geometry, syntax)
    assert rendition is not None
    damaged = bytearray(transcode.encode(samples, geometry, rendition))
    assert not transcode.decode_frame(damaged, geometry, syntax).any()
    cod = damaged.index(b"\xff\x52")
    length, levels = int.from_bytes(damaged[cod + 2 : cod + 4], "big"), damaged[cod + 9]
    damaged[cod + 10 : cod + 12] = b"\0\0"
    with pytest.raises(PixelError, match="code-blocks"):
        transcode.decode_frame(damaged, geometry, syntax)
    damaged[cod + 4] |= 1
    damaged[cod + 2 : cod + 4] = (length + levels + 1).to_bytes(2, "big")
    damaged[cod + 2 + length : cod + 2 + length] = b"\x11" * (levels + 1)
    for dropped in (0, 1):
        with pytest.raises(PixelError, match="precincts"):
            transcode.decode_frame(damaged, geometry, syntax, levels_dropped=dropped)


def test_precincts_in_a_tile_part_header_count() -> None:
    samples = np.zeros((600, 600), np.uint8)
    geometry = FrameGeometry(600, 600, 1, 8, 8, 7, 0, 0, "MONOCHROME2", 1)
    rendition = transcode.plan(uids.EXPLICIT_VR_LITTLE_ENDIAN, geometry, uids.JPEG_2000_LOSSLESS)
    assert rendition is not None
    damaged = bytearray(transcode.encode(samples, geometry, rendition))
    cod = damaged.index(b"\xff\x52")
    levels = damaged[cod + 9]
    segment = damaged[cod : cod + 14] + b"\x11" * (levels + 1)
    segment[2:4] = (len(segment) - 2).to_bytes(2, "big")
    segment[4] |= 1
    part = damaged.index(b"\xff\x90")
    longer = int.from_bytes(damaged[part + 6 : part + 10], "big") + len(segment)
    damaged[part + 6 : part + 10] = longer.to_bytes(4, "big")
    damaged[part + 12 : part + 12] = segment
    with pytest.raises(PixelError, match="precincts"):
        transcode.decode_frame(damaged, geometry, uids.JPEG_2000_LOSSLESS)


def test_jpeg_of_endless_scans() -> None:
    for frame, geometry, syntax in FRAMES:
        if syntax in (uids.JPEG_BASELINE, uids.JPEG_EXTENDED):
            scan = frame.index(b"\xff\xda")
            header = frame[scan : scan + 2 + int.from_bytes(frame[scan + 2 : scan + 4], "big")]
            with pytest.raises(PixelError, match="scans"):
                transcode.decode_frame(frame[:scan] + header * 600 + frame[scan:], geometry, syntax)
