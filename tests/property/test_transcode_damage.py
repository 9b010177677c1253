"""Damaged frames of every kind decode to samples that fit, or to a PixelError: nothing else, and no crash."""

from __future__ import annotations

import imagecodecs
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pacs import transcode, uids
from pacs.errors import PixelError
from pacs.geometry import FrameGeometry

ROWS, COLUMNS = 24, 32


def _described(samples: int, allocated: int, stored: int) -> FrameGeometry:
    photometric = "RGB" if samples == 3 else "MONOCHROME2"
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
        # Header of one segment, then a replicate run: PS3.5 G.5.
        (b"\1\0\0\0\x40\0\0\0" + bytes(56) + b"\x81\x55" * 6, of_gray, uids.RLE_LOSSLESS),
    ]  # fmt: skip


FRAMES = _frames()
# JPEG-LS is left out: CharLS needs seconds to refuse some damaged scans.


@given(
    st.sampled_from(FRAMES),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(min_size=1, max_size=8)), min_size=1, max_size=5),
    st.integers(0, 4),
)
def test_damage(
    case: tuple[bytes, FrameGeometry, str], changes: list[tuple[float, int, bytes]], dropped: int
) -> None:
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
    if syntax not in (uids.HTJ2K_LOSSLESS_RPCL, uids.JPEG_2000_LOSSLESS, uids.JPEG_2000):
        dropped = 0
    try:
        samples = transcode.decode_frame(damaged, geometry, syntax, levels_dropped=dropped)
    except PixelError:
        return
    assert samples.shape[:2] == (-(-ROWS >> dropped), -(-COLUMNS >> dropped))
    assert samples.dtype == f"uint{geometry.bits_allocated}"
    assert int(samples.max()) < 1 << geometry.bits_stored
