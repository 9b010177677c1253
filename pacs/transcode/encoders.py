"""Samples to codestreams on request: an encoder for each row of the table; JPEG and PNG for the eye."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pacs import pixels, uids
from pacs.errors import CodestreamError, PixelError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry
from pacs.transcode import charls, rungs
from pacs.transcode.frames import MEMORY, Samples, check_samples, working_memory
from pacs.transcode.htj2k import declared_precision, encode_frame
from pacs.transcode.table import REVERSIBLE, Rendition, decoded_geometry

_codecs: Any = imagecodecs

JPEG_QUALITY: Final = 90
"""Of JPEG baseline where none is asked for, as libjpeg counts."""


def encode(
    samples: Samples, geometry: FrameGeometry, rendition: Rendition, *, quality: float | None = None
) -> bytes:
    """One frame's codestream: `samples`, which `geometry` describes as the Data Set does, as `rendition` plans it.

    `samples` are as `decode_frame` and `pixels.decode_native` give them. `quality` counts for lossy renditions alone:
    1 to 100 for JPEG, PSNR in dB for the others (`irreversible`). The result may be of odd length. Raises
    PixelError, UnsupportedTransferSyntaxError.
    """
    syntax = rendition.transfer_syntax
    row = REVERSIBLE.get(syntax, syntax) if rendition.lossless else syntax
    encoder = ENCODERS.get(row) if rendition.kind == "encoded" else None
    if encoder is None:
        name = uids.transfer_syntax(syntax).name
        raise UnsupportedTransferSyntaxError(f"frames are not encoded as {name} ({rendition.kind})")
    described = decoded_geometry(geometry)
    check_samples(samples, described)
    with MEMORY.hold(working_memory(samples.nbytes, samples.itemsize)):
        try:
            return encoder(np.ascontiguousarray(samples), described, quality)
        except (RuntimeError, ValueError, TypeError, MemoryError, CodestreamError) as error:
            name = uids.transfer_syntax(syntax).name
            raise PixelError(f"this frame cannot be encoded as {name}: {error}") from error


def _htj2k(samples: Samples, geometry: FrameGeometry, quality: float | None) -> bytes:
    return encode_frame(samples, geometry).codestream


def _htj2k_irreversible(samples: Samples, geometry: FrameGeometry, quality: float | None) -> bytes:
    return rungs.htj2k_irreversible(samples, geometry, quality)


def _jpeg_2000(samples: Samples, geometry: FrameGeometry, quality: float | None) -> bytes:
    return rungs.jpeg_2000(samples, geometry, None)


def _jpeg_2000_irreversible(samples: Samples, geometry: FrameGeometry, quality: float | None) -> bytes:
    return rungs.jpeg_2000(samples, geometry, rungs.QUALITY if quality is None else quality)


def _jpeg_lossless(samples: Samples, geometry: FrameGeometry, quality: float | None) -> bytes:
    """Process 14, first-order prediction. The sign is the Data Set's alone. PS3.5 8.2.1"""
    # As RGB nothing is transformed, whatever the samples are.
    space = {"colorspace": "RGB", "outcolorspace": "RGB"} if samples.ndim == 3 else {}
    bits = declared_precision(geometry)
    encoded = bytearray(
        _codecs.jpeg8_encode(_unsigned(samples, geometry), lossless=True, predictor=1, bitspersample=bits, **space)
    )
    return _renamed(encoded, "RGB" if geometry.photometric_interpretation == "RGB" else "\1\2\3")


def _renamed(encoded: bytearray, names: str) -> bytes:
    """A JPEG without APPn segments, its three components renamed: decoders go by either. T.81 B.2.2, B.2.3, B.2.4.6"""
    at = 2
    while encoded[at + 1] != _SOS:
        length = 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
        if 0xE0 <= encoded[at + 1] <= 0xEF:
            del encoded[at : at + length]
            continue
        if encoded[at + 1] == _SOF3 and encoded[at + 9] == 3:
            encoded[at + 10 : at + 19 : 3] = names.encode()
        at += length
    if encoded[at + 4] == 3:
        encoded[at + 5 : at + 11 : 2] = names.encode()
    return bytes(encoded)


_SOF3, _SOS = 0xC3, 0xDA


def _unsigned(samples: Samples, geometry: FrameGeometry) -> Samples:
    """The bits of each sample that the codestream carries."""
    if not geometry.signed:
        return samples
    unsigned = samples.view(f"u{samples.itemsize}")
    carried: Samples = np.bitwise_and(unsigned, (1 << declared_precision(geometry)) - 1)
    return carried


def _jpeg_ls(samples: Samples, geometry: FrameGeometry, quality: float | None) -> bytes:
    if not charls.available():
        # All bits of the cells, so that the highest one is the sign for decoders.
        return bytes(_codecs.jpegls_encode(samples.view(f"u{samples.itemsize}")))
    return charls.encode(_unsigned(samples, geometry), declared_precision(geometry))


def _jpeg_baseline(samples: Samples, geometry: FrameGeometry, quality: float | None) -> bytes:
    level = JPEG_QUALITY if quality is None else max(1, min(100, round(quality)))
    if samples.ndim == 2:
        return bytes(_codecs.jpeg8_encode(samples, level=level))
    space = "RGB" if geometry.photometric_interpretation == "RGB" else "YCBCR"
    return bytes(
        _codecs.jpeg8_encode(samples, level=level, colorspace=space, outcolorspace="YCBCR", subsampling="422")
    )


def _rle(samples: Samples, geometry: FrameGeometry, quality: float | None) -> bytes:
    """A segment for each byte of a sample, highest first, sample after sample; rows apart. PS3.5 Annex G

    A sample of 1 bit takes a byte. PS3.5 8.2.2 and G.2 as CP 2301 has them.
    """
    planes = np.moveaxis(samples, -1, 0) if samples.ndim == 3 else samples[None]
    big_endian = planes.astype(planes.dtype.newbyteorder(">"), copy=False)
    cells = np.ascontiguousarray(big_endian).view(np.uint8).reshape(*planes.shape, samples.itemsize)
    segments = []
    for plane in cells:
        for place in range(samples.itemsize):
            # A copy, which is contiguous to imagecodecs even where numpy sees no difference: in a single sample.
            packed = bytes(_codecs.packbits_encode(plane[..., place].copy(), axis=-1))
            segments.append(packed + bytes(len(packed) % 2))
    header = [len(segments)]
    at = 64
    for segment in segments:
        header.append(at)
        at += len(segment)
    return np.array(header + [0] * (16 - len(header)), "<u4").tobytes() + b"".join(segments)


def _deflated(samples: Samples, geometry: FrameGeometry, quality: float | None) -> bytes:
    """PS3.5 A.4.12"""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    return compressor.compress(pixels.encode_native(samples, geometry)) + compressor.flush()


def _uncompressed(samples: Samples, geometry: FrameGeometry, quality: float | None) -> bytes:
    return pixels.encode_native(samples, geometry)


ENCODERS: Final[dict[str, Callable[[Samples, FrameGeometry, float | None], bytes]]] = {
    uids.HTJ2K_LOSSLESS_RPCL: _htj2k,
    uids.HTJ2K_LOSSLESS: _htj2k,
    uids.HTJ2K: _htj2k_irreversible,
    uids.JPEG_2000_LOSSLESS: _jpeg_2000,
    uids.JPEG_2000: _jpeg_2000_irreversible,
    uids.JPEG_LS_LOSSLESS: _jpeg_ls,
    uids.JPEG_LOSSLESS: _jpeg_lossless,
    uids.JPEG_LOSSLESS_SV1: _jpeg_lossless,
    uids.JPEG_BASELINE: _jpeg_baseline,
    uids.RLE_LOSSLESS: _rle,
    uids.DEFLATED_IMAGE_FRAME: _deflated,
    uids.ENCAPSULATED_UNCOMPRESSED: _uncompressed,
}


# --- for display ------------------------------------------------------------------------------------------------


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """A rendered image, (rows, columns[, 3]) uint8, as baseline JPEG. T.81"""
    return bytes(_codecs.jpeg8_encode(np.ascontiguousarray(image), level=max(1, min(100, quality))))


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """A rendered image as PNG: quickly rather than as small as can be."""
    rle, sub = 3, 16
    return bytes(_codecs.png_encode(np.ascontiguousarray(image), level=1, strategy=rle, filter=sub))
