"""Encoding and decoding of single frames, the limits of both, and what damaged frames come to."""

from __future__ import annotations

import zlib
from typing import Any

import imagecodecs
import msgspec
import numpy as np
import openjpeg
import pytest

from pacs import codestream, transcode, uids
from pacs.errors import PixelError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry

RNG = np.random.default_rng(5)


def described(samples: np.ndarray, stored: int | None = None, photometric: str = "") -> FrameGeometry:
    allocated = 8 * samples.itemsize
    several = samples.ndim == 3
    return FrameGeometry(
        rows=samples.shape[0],
        columns=samples.shape[1],
        samples_per_pixel=samples.shape[2] if several else 1,
        bits_allocated=allocated,
        bits_stored=stored or allocated,
        high_bit=(stored or allocated) - 1,
        pixel_representation=int(samples.dtype.kind == "i"),
        planar_configuration=0,
        photometric_interpretation=photometric or ("RGB" if several else "MONOCHROME2"),
        frames=1,
    )


def noise(dtype: str, stored: int, shape: tuple[int, ...]) -> np.ndarray:
    low, high = (-(1 << (stored - 1)), 1 << (stored - 1)) if dtype[0] == "i" else (0, 1 << stored)
    return RNG.integers(low, high, shape).astype(dtype)


def decode(encoded: transcode.EncodedFrame, geometry: FrameGeometry, **options: Any) -> np.ndarray:
    return transcode.decode_frame(encoded.codestream, geometry, uids.HTJ2K_LOSSLESS_RPCL, **options)


@pytest.mark.parametrize("shape", [(33, 40), (20, 31, 3), (9, 8, 2), (9, 8, 4)])
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [(kind + "int8", bits) for kind in ("u", "") for bits in range(1, 9)]
    + [(kind + "int16", bits) for kind in ("u", "") for bits in (1, 7, 8, 9, 10, 12, 15, 16)],
)
def test_every_decoder_gives_the_samples(dtype: str, stored: int, shape: tuple[int, ...]) -> None:
    samples = noise(dtype, stored, shape)
    for photometric in ("RGB", "YBR_FULL") if shape[-1] == 3 else ("",):
        geometry = described(samples, stored, photometric)
        encoded = transcode.encode_frame(samples, geometry)
        parsed = codestream.parse(encoded.codestream)
        assert (parsed.precision, parsed.signed) == (transcode.declared_precision(geometry), dtype[0] == "i")
        assert parsed.mct == (photometric == "RGB")
        planar = False if samples.ndim == 3 else None
        for decoded in (
            decode(encoded, geometry),
            imagecodecs.htj2k_decode(encoded.codestream, planar=planar),
            imagecodecs.jpeg2k_decode(encoded.codestream, planar=planar),
            openjpeg.decode(encoded.codestream),
        ):
            assert decoded.dtype == samples.dtype and np.array_equal(decoded, samples)


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 2), (2, 1), (1, 40), (40, 1), (3, 3), (31, 31), (33, 1), (1, 3000), (3000, 1)]
)
def test_very_small_and_very_thin_images(shape: tuple[int, int]) -> None:
    samples = noise("uint16", 12, shape)
    geometry = described(samples, 12)
    encoded = transcode.encode_frame(samples, geometry)
    assert len(encoded.level_ends) == geometry.decompositions + 1
    assert np.array_equal(decode(encoded, geometry), samples)
    assert np.array_equal(openjpeg.decode(encoded.codestream).reshape(shape), samples)


def test_base_resolution_is_at_most_64() -> None:
    for side, decompositions in ((64, 5), (512, 5), (2048, 5), (2049, 6), (4100, 7)):
        samples = np.zeros((4, side), np.uint8)
        encoded = transcode.encode_frame(samples, described(samples))
        assert codestream.parse(encoded.codestream).decompositions == decompositions
        assert -(-side >> decompositions) <= 64


@pytest.mark.parametrize(
    ("dtype", "stored"), [("uint8", 8), ("uint16", 12), ("uint16", 16), ("int16", 16), ("uint16", 7)]
)
@pytest.mark.parametrize("dropped", [1, 2, 3, 5])
def test_lower_levels_never_wrap(dtype: str, stored: int, dropped: int) -> None:
    """Squares of the extreme values overshoot in every low-pass band; OpenJPEG clamps by itself."""
    low, high = (-(1 << (stored - 1)), (1 << (stored - 1)) - 1) if dtype[0] == "i" else (0, (1 << stored) - 1)
    samples = np.where(np.kron(RNG.integers(0, 2, (30, 41)), np.ones((5, 6))) > 0, high, low).astype(dtype)
    geometry = described(samples, stored)
    encoded = transcode.encode_frame(samples, geometry)
    oracle = imagecodecs.jpeg2k_decode(codestream.reduce(encoded.codestream, dropped))
    # With Bits Stored below 9 the declared 9 bits are what OpenJPEG clamps to.
    oracle = np.clip(oracle, low, high)
    end = encoded.level_ends[-1 - dropped]
    for given in (encoded.codestream, encoded.codestream[:end]):
        level = transcode.decode_frame(given, geometry, uids.HTJ2K_LOSSLESS_RPCL, levels_dropped=dropped)
        assert level.dtype == samples.dtype and np.array_equal(level, oracle)
    part_1 = imagecodecs.jpeg2k_encode(samples, codecformat="J2K", level=0, reversible=True, bitspersample=stored)
    if dropped <= codestream.parse(part_1).decompositions:
        level = transcode.decode_frame(part_1, geometry, uids.JPEG_2000_LOSSLESS, levels_dropped=dropped)
        assert np.array_equal(level, oracle)
    cut = encoded.codestream[: end - 1]
    with pytest.raises(PixelError, match="are needed"):
        transcode.decode_frame(cut, geometry, uids.HTJ2K_LOSSLESS_RPCL, levels_dropped=dropped)


def test_irreversible_htj2k_never_wraps() -> None:
    samples = (np.kron(RNG.integers(0, 2, (30, 41)), np.ones((5, 6))) * 65535).astype(np.uint16)
    encoded = imagecodecs.htj2k_encode(samples, reversible=False, level=0.01)
    oracle = imagecodecs.jpeg2k_decode(encoded).astype(int)
    found = transcode.decode_frame(encoded, described(samples), uids.HTJ2K)
    assert np.abs(found - oracle).max() <= 8
    assert np.abs(found - samples.astype(int)).max() < 2000


def encoded_in(syntax: str, samples: np.ndarray) -> bytes:
    match syntax:
        case uids.JPEG_LOSSLESS_SV1 | uids.JPEG_LOSSLESS:
            bits = 12 if samples.itemsize == 2 else 8
            return bytes(imagecodecs.jpeg8_encode(samples, lossless=True, bitspersample=bits))
        case uids.JPEG_LS_LOSSLESS:
            return bytes(imagecodecs.jpegls_encode(samples))
        case uids.JPEG_XL_LOSSLESS:
            return bytes(imagecodecs.jpegxl_encode(samples, lossless=True))
        case uids.JPEG_2000_LOSSLESS | uids.JPEG_2000:
            return bytes(imagecodecs.jpeg2k_encode(samples, level=0, reversible=True))
        case uids.HTJ2K_LOSSLESS | uids.HTJ2K:
            return bytes(imagecodecs.htj2k_encode(samples, reversible=True))
        case uids.DEFLATED_IMAGE_FRAME:
            compressor = zlib.compressobj(wbits=-15)
            return compressor.compress(samples.astype(samples.dtype.newbyteorder("<")).tobytes()) + compressor.flush()
        case _:
            return samples.astype(samples.dtype.newbyteorder("<")).tobytes() + bytes(samples.nbytes % 2)


LOSSLESS = [
    uids.JPEG_LOSSLESS, uids.JPEG_LOSSLESS_SV1, uids.JPEG_LS_LOSSLESS, uids.JPEG_XL_LOSSLESS, uids.JPEG_2000_LOSSLESS,
    uids.HTJ2K_LOSSLESS, uids.HTJ2K, uids.DEFLATED_IMAGE_FRAME, uids.ENCAPSULATED_UNCOMPRESSED,
]  # fmt: skip


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(
    ("dtype", "stored", "shape"), [("uint8", 8, (13, 17)), ("uint16", 12, (13, 17)), ("uint8", 8, (13, 17, 3))]
)
def test_table_of_decoders(syntax: str, dtype: str, stored: int, shape: tuple[int, ...]) -> None:
    samples = noise(dtype, stored, shape)
    if syntax == uids.JPEG_LS_LOSSLESS and samples.ndim == 3:
        samples = np.repeat(samples[:, :1], shape[1], axis=1)
    decoded = transcode.decode_frame(encoded_in(syntax, samples), described(samples, stored), syntax)
    assert decoded.dtype == samples.dtype and np.array_equal(decoded, samples)


def test_a_size_that_contradicts_the_data_set_is_refused() -> None:
    samples = noise("uint8", 8, (13, 17))
    larger = msgspec.structs.replace(described(samples), rows=14)
    for syntax in LOSSLESS:
        with pytest.raises(PixelError):
            transcode.decode_frame(encoded_in(syntax, samples), larger, syntax)


@pytest.mark.parametrize("syntax", sorted(transcode.decoders.DECODERS))
@pytest.mark.parametrize("side", [30_000, 65_535])
def test_a_short_stream_of_a_huge_frame_is_not_decoded(syntax: str, side: int) -> None:
    """Stream and Data Set agree, so that the decoder would go on."""
    geometry = described(np.zeros((8, 8), np.uint8))
    stream = bytearray(transcode.encode_frame(np.zeros((8, 8), np.uint8), geometry).codestream)
    size = stream.index(b"\xff\x51")
    for at in (6, 10, 22, 26):
        stream[size + at : size + at + 4] = side.to_bytes(4, "big")
    geometry = msgspec.structs.replace(geometry, rows=side, columns=side)
    with pytest.raises(PixelError, match="cannot be a frame of 900000000" if side == 30_000 else "1073741824"):
        transcode.decode_frame(bytes(stream), geometry, syntax)


def test_a_header_that_claims_a_huge_image_allocates_nothing() -> None:
    """60,000 by 60,000 would be 3.6 GB: the claim is compared before a decoder sees it."""
    samples = noise("uint8", 8, (16, 16))
    claim = (60_000).to_bytes(2, "big")
    jpeg = bytearray(imagecodecs.jpeg8_encode(samples))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = claim + claim
    j2k = bytearray(transcode.encode_frame(samples, described(samples)).codestream)
    for field in (8, 12, 24, 28):
        j2k[field : field + 4] = b"\0\0" + claim
    for data, syntax in ((jpeg, uids.JPEG_BASELINE), (j2k, uids.HTJ2K)):
        with pytest.raises(PixelError, match="60000 rows"):
            transcode.decode_frame(data, described(samples), syntax)
    bomb = zlib.compress(bytes(1 << 24), wbits=-15)
    assert not transcode.decode_frame(bomb, described(samples), uids.DEFLATED_IMAGE_FRAME).any()


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.1", "1.2.3", ""])
def test_transfer_syntaxes_without_a_decoder(syntax: str) -> None:
    with pytest.raises(UnsupportedTransferSyntaxError):
        transcode.decode_frame(b"", described(np.zeros((2, 2), np.uint8)), syntax)


def test_levels_of_what_has_none() -> None:
    with pytest.raises(UnsupportedTransferSyntaxError):
        transcode.decode_frame(b"", described(np.zeros((2, 2), np.uint8)), uids.JPEG_BASELINE, levels_dropped=1)


def test_damage_that_the_decoder_swallows_is_refused() -> None:
    """imagecodecs returns an array in spite of an error of OpenJPH while it copies samples."""
    samples = noise("uint8", 8, (200, 210))
    encoded = bytearray(transcode.encode_frame(samples, described(samples)).codestream)
    refused = 0
    for at in range(codestream.parse(encoded).level_ends[1], len(encoded) - 40, 997):
        damaged = bytearray(encoded)
        damaged[at : at + 30] = b"\xff\x7f" * 15
        try:
            transcode.decode_frame(damaged, described(samples), uids.HTJ2K_LOSSLESS_RPCL)
        except PixelError:
            refused += 1
    assert refused


def test_samples_that_do_not_fit_are_not_encoded() -> None:
    samples = np.zeros((4, 4), np.uint16)
    for wrong in (samples.astype(np.int16), samples[:3], samples.astype(np.uint8)):
        with pytest.raises(PixelError):
            transcode.encode_frame(wrong, described(samples))


def test_colour_of_jpeg_follows_the_data_set() -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[:] = (200, 40, 90)
    jfif = bytes(imagecodecs.jpeg8_encode(rgb, level=100, subsampling="444"))
    as_rgb = transcode.decode_frame(jfif, described(rgb, photometric="RGB"), uids.JPEG_BASELINE)
    assert np.abs(as_rgb.astype(int) - rgb).max() <= 2
    as_ybr = transcode.decode_frame(jfif, described(rgb, photometric="YBR_FULL"), uids.JPEG_BASELINE)
    assert np.abs(as_ybr[0, 0].astype(int) - (94, 126, 204)).max() <= 2


def test_pictures() -> None:
    gray = (np.arange(64 * 64) % 256).astype(np.uint8).reshape(64, 64)
    for picture in (gray, np.stack([gray, gray.T, gray], axis=-1)):
        assert np.array_equal(imagecodecs.png_decode(transcode.encode_png(picture)), picture)
        jpeg = transcode.encode_jpeg(picture[::-1], 90)
        assert imagecodecs.jpeg8_decode(jpeg).shape == picture.shape
