"""Encapsulated frames to samples: one table from Transfer Syntax to decoder.

Whatever a frame's bytes hold, the outcome is samples that fit the Data Set's description or a PixelError, and what a
header claims is compared with that description before a decoder allocates for it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Final

import imagecodecs
import numpy as np

from pacs import jpeg, pixels, uids
from pacs.errors import CodestreamError, PixelError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry
from pacs.transcode import jpeg2000
from pacs.transcode.frames import (
    MEMORY,
    Buffer,
    Samples,
    aligned,
    check_agrees,
    check_described,
    check_size,
    conform,
    dtype,
    size,
    value_range,
    working_memory,
)

_codecs: Any = imagecodecs


def decode_frame(
    codestream: Buffer, geometry: FrameGeometry, transfer_syntax: str, *, levels_dropped: int = 0
) -> Samples:
    """The samples of one encapsulated frame, (rows, columns[, samples]), typed as the Data Set says.

    Values are those of pydicom's `pixel_array(raw=True)`: colour by pixel, YBR left as YBR except that of a JPEG 2000
    component transform. With `levels_dropped` (JPEG 2000 and HTJ2K only) rows and columns are divided by 2 that often,
    rounded up. Waits while other frames take the memory. Raises PixelError, UnsupportedTransferSyntaxError.
    """
    decode = DECODERS.get(transfer_syntax)
    if decode is None:
        raise UnsupportedTransferSyntaxError(f"no decoder for {uids.transfer_syntax(transfer_syntax).name}")
    if levels_dropped and transfer_syntax not in SCALABLE:
        raise UnsupportedTransferSyntaxError(f"no resolution levels in {uids.transfer_syntax(transfer_syntax).name}")
    check_described(geometry)
    check_size(len(codestream), geometry)
    with MEMORY.hold(working_memory(size(geometry), dtype(geometry).itemsize)):
        return _decode(decode, codestream, geometry, transfer_syntax, levels_dropped)


def _decode(
    decode: Callable[[Buffer, FrameGeometry], Samples],
    codestream: Buffer,
    geometry: FrameGeometry,
    transfer_syntax: str,
    levels_dropped: int,
) -> Samples:
    try:
        if levels_dropped:
            return jpeg2000.decode_level(codestream, geometry, levels_dropped)
        return decode(codestream, geometry)
    except PixelError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, OverflowError, MemoryError, zlib.error) as error:
        name = uids.transfer_syntax(transfer_syntax).name
        raise PixelError(f"the {name} frame cannot be decoded: {_first_line(error)}") from error
    except CodestreamError as error:
        raise PixelError(f"the JPEG 2000 frame cannot be decoded: {error}") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def decode_reduced(codestream: Buffer, geometry: FrameGeometry, transfer_syntax: str, levels: int) -> Samples:
    """As `decode_frame`, without the `levels` finest resolution levels, or as many of them as this frame has."""
    dropped = min(levels, droppable_levels(codestream, transfer_syntax)) if levels > 0 else 0
    return decode_frame(codestream, geometry, transfer_syntax, levels_dropped=dropped)


def droppable_levels(codestream: Buffer, transfer_syntax: str) -> int:
    """How many resolution levels `decode_frame` can leave out; 0 for what has none or cannot be read."""
    if transfer_syntax not in SCALABLE:
        return 0
    try:
        return jpeg2000.decompositions(codestream)
    except CodestreamError:
        return 0


def _decode_jpeg(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    """All kinds of T.81. Colour is left as coded, unless the Data Set says RGB and the JPEG itself says YCbCr."""
    header = jpeg.parse(codestream)
    check_agrees(header.rows, header.columns, header.components, geometry)
    scans = bytes(codestream).count(_SOS)
    if scans > _MOST_SCANS:
        raise PixelError(f"JPEG of {scans} scans")
    convert = geometry.photometric_interpretation == "RGB" and header.ycbcr
    # The lossless process has no colour transform, and libjpeg refuses to undo one that a marker claims.
    coded = header.components == 3 and (header.ycbcr if header.lossless else not convert)
    space = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"} if coded else {}
    # libjpeg-turbo does the lossless process too. The alternatives here (liblj92) crash on a damaged file.
    decoded = aligned(_codecs.jpeg8_decode(codestream, **space), geometry, header.precision)
    samples = conform(decoded, geometry, geometry.bits_stored)
    return _as_described(samples, geometry) if header.rgb and not header.ycbcr else samples


_SOS: Final = b"\xff\xda"
_MOST_SCANS: Final = 500
"""Progressive JPEG has about ten. A scan can be ten bytes, and each has the decoder pass over the whole image."""


def _decode_jpeg_ls(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    header = jpeg.parse(codestream)
    check_agrees(header.rows, header.columns, header.components, geometry)
    decoded = _decode_scans(bytes(codestream))
    moved = aligned(decoded, geometry, header.precision)
    if moved is not decoded:
        return conform(moved, geometry, geometry.bits_stored)
    # JPEG-LS knows no sign: the highest bit of its precision is that of the Data Set. PS3.5 8.2.3
    return conform(decoded, geometry, header.precision if geometry.signed else geometry.bits_stored)


_EOI: Final = b"\xff\xd9"
_MOST_ZEROS_OF_A_SCAN: Final = 2


def _decode_scans(data: bytes) -> Samples:
    """A JPEG-LS that may lack EOI, or have zeros before it, which CharLS 2.3 and later refuses."""
    if _EOI not in data[-3:]:
        # CharLS counts zeros behind the end of cut data for 10 seconds and more; at a marker it stops at once.
        data += _EOI
    try:
        whole: Samples = _codecs.jpegls_decode(data)
        return whole
    except imagecodecs.JpeglsError:
        scans = data[: data.rindex(_EOI)].removesuffix(_EOI)
        if not scans.endswith(b"\0"):
            raise
    # The scan can end with zeros of its own: after the last 1 of a Golomb code come at most 16 bits (k, or those of an
    # escape) and 7 of padding. ITU-T T.87 A.5.3
    scans = scans.rstrip(b"\0")
    for own in range(_MOST_ZEROS_OF_A_SCAN):
        try:
            unfilled: Samples = _codecs.jpegls_decode(scans + bytes(own) + _EOI)
            return unfilled
        except imagecodecs.JpeglsError:
            continue
    return _codecs.jpegls_decode(scans + bytes(_MOST_ZEROS_OF_A_SCAN) + _EOI)  # type: ignore[no-any-return]


def _decode_jpeg_xl(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    # An `out` of another shape or type than the header's is refused before anything is decoded.
    out = np.empty(pixels.shape(geometry), f"u{max(1, geometry.bits_allocated // 8)}")
    decoded = aligned(_codecs.jpegxl_decode(codestream, out=out), geometry, geometry.bits_allocated)
    return conform(decoded, geometry, geometry.bits_stored)


def _decode_rle(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    """Samples come out by plane. Of 1 bit each takes a byte, as CP 2301 has it; some encoders packed eight of them
    as in a native frame. PS3.5 Annex G"""
    _check_rle_header(codestream, geometry)
    # A replicate run makes 128 bytes of 2: never more than the frame has room for.
    room = np.empty(size(geometry), np.uint8)
    word = f"<u{max(1, geometry.bits_allocated // 8)}"
    unpacked = _codecs.dicomrle_decode(codestream, word, out=room)
    if len(unpacked) != len(room):
        if geometry.bits_allocated == 1 and len(unpacked) == -(-geometry.frame_bits // 8):
            return pixels.decode_native(room.data, geometry, big_endian=False)
        raise PixelError(f"RLE gave {len(unpacked)} bytes where {len(room)} are described")
    decoded: Samples = room.view(word)
    if geometry.samples_per_pixel > 1:
        decoded = decoded.reshape(geometry.samples_per_pixel, geometry.rows, geometry.columns).transpose(1, 2, 0)
    return conform(aligned(decoded, geometry, geometry.bits_allocated), geometry, geometry.bits_stored)


def _check_rle_header(codestream: Buffer, geometry: FrameGeometry) -> None:
    """PixelError unless the segments lie one behind the other in the frame: imagecodecs believes any. PS3.5 G.5"""
    if len(codestream) < _RLE_HEADER:
        raise PixelError(f"RLE of {len(codestream)} bytes has no header")
    count, *offsets = np.frombuffer(codestream, "<u4", 16).tolist()
    expected = geometry.samples_per_pixel * max(1, geometry.bits_allocated // 8)
    if count != expected or count > len(offsets):
        raise PixelError(f"RLE of {count} segments where {expected} are described")
    ends = [*offsets[1:count], len(codestream)]
    if offsets[0] < _RLE_HEADER or any(start > end for start, end in zip(offsets, ends, strict=False)):
        raise PixelError("RLE segments that are not in the frame")


_RLE_HEADER: Final = 64


def _decode_uncompressed(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    """PS3.5 A.4.11. A fragment is padded to even length."""
    return pixels.decode_native(memoryview(codestream)[: -(-geometry.frame_bits // 8)], geometry, big_endian=False)


def _decode_deflated(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    """PS3.5 A.4.12; no more is inflated than the frame needs."""
    expected = -(-geometry.frame_bits // 8)
    inflated = zlib.decompressobj(-15).decompress(codestream, expected)
    return pixels.decode_native(inflated, geometry, big_endian=False)


def _decode_recompressed(codestream: Buffer, geometry: FrameGeometry) -> Samples:
    """A JPEG inside JPEG XL: the decoder gives RGB where the JPEG, and with it the Data Set, has YBR. PS3.5 8.2.15"""
    return _as_described(_decode_jpeg_xl(codestream, geometry), geometry)


def _as_described(rgb: Samples, geometry: FrameGeometry) -> Samples:
    """RGB where a Data Set says YBR as what it says: whoever shows these samples believes the Data Set."""
    if geometry.samples_per_pixel != 3 or not geometry.photometric_interpretation.startswith("YBR_FULL"):
        return rgb
    middle = 1 << (geometry.bits_stored - 1)
    ybr = rgb.astype(np.float32) @ np.array(_TO_YBR, np.float32).T + np.array((0, middle, middle), np.float32)
    rounded: Samples = np.clip(np.rint(ybr), *value_range(geometry.bits_stored, False)).astype(rgb.dtype)
    return rounded


_TO_YBR: Final = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""PS3.3 C.7.6.3.1.2"""

DECODERS: Final[dict[str, Callable[[Buffer, FrameGeometry], Samples]]] = {
    uids.ENCAPSULATED_UNCOMPRESSED: _decode_uncompressed,
    uids.JPEG_BASELINE: _decode_jpeg,
    uids.JPEG_EXTENDED: _decode_jpeg,
    # Retired: spectral selection, full progression, and the arithmetic coding of 52, 54 and 56. Hierarchical
    # processes and lossless arithmetic coding have no decoder here.
    "1.2.840.10008.1.2.4.52": _decode_jpeg,
    "1.2.840.10008.1.2.4.53": _decode_jpeg,
    "1.2.840.10008.1.2.4.54": _decode_jpeg,
    "1.2.840.10008.1.2.4.55": _decode_jpeg,
    "1.2.840.10008.1.2.4.56": _decode_jpeg,
    uids.JPEG_LOSSLESS: _decode_jpeg,
    uids.JPEG_LOSSLESS_SV1: _decode_jpeg,
    uids.JPEG_LS_LOSSLESS: _decode_jpeg_ls,
    uids.JPEG_LS_NEAR_LOSSLESS: _decode_jpeg_ls,
    uids.JPEG_2000_LOSSLESS: jpeg2000.decode,
    uids.JPEG_2000: jpeg2000.decode,
    uids.JPEG_2000_PART_2_LOSSLESS: jpeg2000.decode,
    uids.JPEG_2000_PART_2: jpeg2000.decode,
    uids.JPEG_XL_LOSSLESS: _decode_jpeg_xl,
    uids.JPEG_XL_RECOMPRESSION: _decode_recompressed,
    uids.JPEG_XL: _decode_jpeg_xl,
    uids.HTJ2K_LOSSLESS: jpeg2000.decode,
    uids.HTJ2K_LOSSLESS_RPCL: jpeg2000.decode,
    uids.HTJ2K: jpeg2000.decode,
    uids.RLE_LOSSLESS: _decode_rle,
    uids.DEFLATED_IMAGE_FRAME: _decode_deflated,
}

SCALABLE: Final = frozenset(uid for uid, decode in DECODERS.items() if decode is jpeg2000.decode)
