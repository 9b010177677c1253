"""Every encoder on request: exact, with the precision that is meant, and what it refuses."""

from __future__ import annotations

import imagecodecs
import msgspec
import numpy as np
import openjpeg
import pydicom.pixels
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.rle import _rle_decode_segment

from pacs import codestream, jpeg, pixels, transcode, uids
from pacs.errors import PixelError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry
from pacs.transcode import charls
from pacs.transcode.table import TARGETS

RNG = np.random.default_rng(11)
NATIVE = uids.EXPLICIT_VR_LITTLE_ENDIAN
RPCL = uids.HTJ2K_LOSSLESS_RPCL
KINDS = [
    ("uint8", 8, "MONOCHROME2"), ("uint8", 2, "MONOCHROME1"), ("uint8", 1, "MONOCHROME2"), ("int8", 8, "MONOCHROME2"),
    ("int8", 5, "MONOCHROME2"), ("uint16", 16, "MONOCHROME2"), ("uint16", 12, "MONOCHROME2"),
    ("uint16", 7, "MONOCHROME2"), ("int16", 16, "MONOCHROME2"), ("int16", 12, "MONOCHROME2"),
    ("int16", 9, "MONOCHROME2"), ("uint8", 8, "PALETTE COLOR"), ("uint16", 16, "PALETTE COLOR"), ("uint8", 8, "RGB"),
    ("uint8", 8, "YBR_FULL"), ("uint8", 6, "RGB"), ("uint16", 12, "RGB"), ("uint16", 16, "RGB"),
    ("bool", 1, "MONOCHROME2"), ("uint32", 32, "MONOCHROME2"), ("int32", 32, "MONOCHROME2"),
    ("uint32", 31, "MONOCHROME1"), ("int32", 22, "MONOCHROME2"), ("uint32", 22, "MONOCHROME2"),
    ("uint32", 12, "MONOCHROME2"),
]  # fmt: skip


def noise(
    dtype: str, bits: int, photometric: str, rows: int = 23, columns: int = 37
) -> tuple[np.ndarray, FrameGeometry]:
    several = photometric in ("RGB", "YBR_FULL")
    shape = (rows, columns, 3) if several else (rows, columns)
    low = -(1 << (bits - 1)) if dtype[0] == "i" else 0
    samples = RNG.integers(low, low + (1 << bits), shape).astype("uint8" if dtype == "bool" else dtype)
    # Half of it flat, so that runs are coded too.
    samples[: rows // 2] = samples[0, 0]
    allocated = 1 if dtype == "bool" else 8 * samples.itemsize
    geometry = FrameGeometry(
        rows, columns, 3 if several else 1, allocated, bits, bits - 1, int(low < 0), 0, photometric, 1
    )
    return samples, geometry


def lossless(geometry: FrameGeometry) -> list[transcode.Rendition]:
    return [r for r in transcode.renditions(NATIVE, geometry) if r.kind == "encoded" and r.lossless]


@pytest.mark.parametrize(("dtype", "bits", "photometric"), KINDS)
def test_lossless_encodings_are_exact(dtype: str, bits: int, photometric: str) -> None:
    samples, geometry = noise(dtype, bits, photometric)
    assert lossless(geometry)
    for rendition in lossless(geometry):
        assert rendition.geometry is not None
        encoded = transcode.encode(samples, geometry, rendition)
        found = transcode.decode_frame(encoded, rendition.geometry, rendition.transfer_syntax)
        assert found.dtype == samples.dtype and np.array_equal(found, samples), rendition


@pytest.mark.parametrize(("dtype", "bits", "photometric"), KINDS)
def test_other_decoders_agree(dtype: str, bits: int, photometric: str) -> None:
    """pydicom with pylibjpeg: other implementations of JPEG, JPEG-LS and RLE, another binding of OpenJPEG."""
    samples, geometry = noise(dtype, bits, photometric)
    for rendition in lossless(geometry):
        syntax = rendition.transfer_syntax
        if syntax in (uids.DEFLATED_IMAGE_FRAME, uids.ENCAPSULATED_UNCOMPRESSED):
            continue
        if geometry.bits_allocated == 32 and uids.transfer_syntax(syntax).media_type == "image/jphc":
            continue  # OpenJPEG has 31 bit-planes for HTJ2K, of which the encoder takes more
        # pydicom before 3.1 takes bits in RLE for those of bytes.
        allocated = 8 if syntax == uids.RLE_LOSSLESS and geometry.bits_allocated == 1 else geometry.bits_allocated
        encoded = transcode.encode(samples, geometry, rendition)
        assert rendition.geometry is not None
        found, _ = pydicom.pixels.get_decoder(syntax).as_array(
            encapsulate([encoded]), raw=True, index=0, rows=geometry.rows, columns=geometry.columns,
            samples_per_pixel=geometry.samples_per_pixel, bits_allocated=allocated,
            bits_stored=geometry.bits_stored, pixel_representation=geometry.pixel_representation,
            photometric_interpretation=rendition.geometry.photometric_interpretation, number_of_frames=1,
            planar_configuration=0, pixel_keyword="PixelData",
        )  # fmt: skip
        assert np.array_equal(found, samples), rendition


@pytest.mark.parametrize(("dtype", "bits", "photometric"), KINDS)
def test_codestreams_declare_bits_stored_and_sign(dtype: str, bits: int, photometric: str) -> None:
    samples, geometry = noise(dtype, bits, photometric)
    # 16-bit samples of fewer than 9 bits declare 9, so that decoders choose 16-bit samples; 32-bit ones 17.
    expected = max(bits, {1: 1, 2: 9, 4: 17}[samples.itemsize])
    for rendition in transcode.renditions(NATIVE, geometry):
        if rendition.kind != "encoded":
            continue
        encoded = transcode.encode(samples, geometry, rendition)
        if uids.transfer_syntax(rendition.transfer_syntax).media_type in ("image/jp2", "image/jphc"):
            parsed = codestream.parse(encoded)
            assert (parsed.precision, parsed.signed) == (expected, geometry.signed)
            assert rendition.geometry is not None
            assert parsed.mct == (rendition.geometry.photometric_interpretation in ("YBR_RCT", "YBR_ICT"))
            assert parsed.reversible or not rendition.lossless
        elif uids.transfer_syntax(rendition.transfer_syntax).media_type in ("image/jls", "image/jpeg"):
            header = jpeg.parse(encoded)
            assert header.precision == expected and not (header.ycbcr and rendition.lossless)


def high_pass(level: int, side: int) -> np.ndarray:
    """Signs of what the middle coefficient of a 5-3 high-pass band is made of: the row that makes it largest."""
    low = np.eye(side)
    for _ in range(level):
        even, odd = low[0::2], low[1::2]
        high = odd - (even + np.concatenate((even[1:], even[-1:]))) / 2
        low = even + (np.concatenate((high[:1], high[:-1])) + high) / 4
    return np.sign(high[len(high) // 2])


@pytest.mark.parametrize(
    ("syntax", "bits"), [(uids.JPEG_2000_LOSSLESS, 22), (RPCL, 32), (RPCL, 31), (RPCL, 25), (RPCL, 23)]
)
@pytest.mark.parametrize("signed", [False, True])
def test_no_image_is_too_much_for_the_bit_planes(syntax: str, bits: int, signed: bool) -> None:
    """Images of the extreme values that drive one coefficient as far as the transform can, eight times as far as they
    go themselves: OpenJPEG loses bits of some with 23 bits stored."""
    low = -(1 << (bits - 1)) if signed else 0
    high = low + (1 << bits) - 1
    for level in (1, 2, 3, 4, 5):
        row = high_pass(level, 256)
        for signs in (np.outer(row, row), -np.outer(row, row)):
            samples = np.where(signs > 0, high, low).astype("int32" if signed else "uint32")
            geometry = FrameGeometry(256, 256, 1, 32, bits, bits - 1, int(signed), 0, "MONOCHROME2", 1)
            rendition = transcode.plan(NATIVE, geometry, syntax)
            assert rendition is not None
            encoded = transcode.encode(samples, geometry, rendition)
            assert np.array_equal(transcode.decode_frame(encoded, geometry, syntax), samples)
            if syntax == uids.JPEG_2000_LOSSLESS:
                assert np.array_equal(openjpeg.decode(encoded), samples)


@pytest.mark.parametrize(("bits", "signed"), [(20, False), (30, True), (32, False), (32, True)])
@pytest.mark.parametrize("dropped", [1, 3])
def test_lower_levels_of_many_bits_never_wrap(bits: int, signed: bool, dropped: int) -> None:
    low = -(1 << (bits - 1)) if signed else 0
    high = low + (1 << bits) - 1
    blocks = np.kron(RNG.integers(0, 2, (12, 13)), np.ones((16, 16))) > 0
    samples = np.where(blocks, high, low).astype("int32" if signed else "uint32")
    geometry = FrameGeometry(*samples.shape, 1, 32, bits, bits - 1, int(signed), 0, "MONOCHROME2", 1)
    encoded = transcode.encode_frame(samples, geometry).codestream
    found = transcode.decode_frame(encoded, geometry, RPCL, levels_dropped=dropped)
    assert found.dtype == samples.dtype
    # In the middle of a block nothing but its value is left.
    middle = slice((8 >> dropped), None, 16 >> dropped)
    assert np.abs(found[middle, middle] - samples[8::16, 8::16].astype(float)).max() < (high - low) * 0.15


def test_bits_in_rle_are_bytes_or_packed() -> None:
    """CP 2301 gives each a byte, and so do we; encoders from before it packed eight."""
    samples, geometry = noise("bool", 1, "MONOCHROME2", 13, 11)
    rendition = transcode.plan(NATIVE, geometry, uids.RLE_LOSSLESS)
    assert rendition is not None
    encoded = transcode.encode(samples, geometry, rendition)
    header = np.frombuffer(encoded, "<u4", 16)
    assert header.tolist() == [1, 64] + [0] * 14
    assert _rle_decode_segment(encoded[64:])[: samples.size] == samples.tobytes()
    packed = np.packbits(samples, bitorder="little")
    old = encoded[:64] + imagecodecs.packbits_encode(packed.tobytes())
    for data in (encoded, old, old + b"\0" * (len(old) % 2)):
        assert np.array_equal(transcode.decode_frame(data, geometry, uids.RLE_LOSSLESS), samples)
    with pytest.raises(PixelError, match="RLE gave"):
        transcode.decode_frame(encoded[:70], geometry, uids.RLE_LOSSLESS)


def test_jpeg_ls_is_lossless_and_by_sample() -> None:
    samples, geometry = noise("uint16", 12, "RGB")
    rendition = transcode.plan(NATIVE, geometry, uids.JPEG_LS_LOSSLESS)
    assert rendition is not None and charls.available()
    encoded = transcode.encode(samples, geometry, rendition)
    scan = encoded.index(b"\xff\xda")
    components = encoded[scan + 4]
    near, interleave = encoded[scan + 5 + 2 * components : scan + 7 + 2 * components]
    assert (components, near, interleave) == (3, 0, 2)


@pytest.mark.parametrize(("dtype", "bits"), [("int16", 12), ("uint16", 10), ("int8", 6)])
def test_jpeg_ls_without_the_library(dtype: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the interface of CharLS is not to be had the precision is 8 or 16, and the samples are the same."""
    monkeypatch.setattr(charls, "_library", lambda: None)
    samples, geometry = noise(dtype, bits, "MONOCHROME2")
    rendition = transcode.plan(NATIVE, geometry, uids.JPEG_LS_LOSSLESS)
    assert rendition is not None
    encoded = transcode.encode(samples, geometry, rendition)
    assert jpeg.parse(encoded).precision == 8 * samples.itemsize
    assert np.array_equal(transcode.decode_frame(encoded, geometry, uids.JPEG_LS_LOSSLESS), samples)


@pytest.mark.parametrize(("bits", "shape"), [(8, (200, 200)), (16, (150, 150, 3)), (8, (100, 140, 3)), (5, (200, 200))])
def test_noise_takes_more_room_than_jpeg_ls_expects(bits: int, shape: tuple[int, ...]) -> None:
    """CharLS estimates the size of the samples and a kilobyte."""
    samples = RNG.integers(0, 1 << bits, shape).astype(f"u{2 if bits > 8 else 1}")
    encoded = charls.encode(samples, bits)
    assert len(encoded) > samples.nbytes + 1024 or bits == 5
    assert np.array_equal(imagecodecs.jpegls_decode(encoded), samples)


@pytest.mark.parametrize("fill", [1, 2, 3, 100])
def test_jpeg_ls_filled_up_with_zeros(fill: int) -> None:
    """As some encoders write it before EOI, and fragments behind it. Some scans end with a zero of their own."""
    endings = set()
    for _ in range(40):
        samples, geometry = noise("uint16", 12, "MONOCHROME2", 7, 5)
        rendition = transcode.plan(NATIVE, geometry, uids.JPEG_LS_LOSSLESS)
        assert rendition is not None
        encoded = transcode.encode(samples, geometry, rendition)
        endings.add(encoded[-3] == 0)
        for filled in (encoded[:-2] + bytes(fill) + encoded[-2:], encoded + bytes(fill)):
            assert np.array_equal(transcode.decode_frame(filled, geometry, uids.JPEG_LS_LOSSLESS), samples)
    assert False in endings


@pytest.mark.parametrize("fill", [1, 100])
def test_jpeg_ls_that_ends_with_two_zeros_of_its_own(fill: int) -> None:
    """One image of noise in ten thousand: a last sample whose Golomb code ends with a run of zeros, and padding."""
    samples = np.array([[2516, 106, 1436], [3484, 1519, 238]], np.uint16)
    _, geometry = noise("uint16", 12, "MONOCHROME2", 2, 3)
    rendition = transcode.plan(NATIVE, geometry, uids.JPEG_LS_LOSSLESS)
    assert rendition is not None
    encoded = transcode.encode(samples, geometry, rendition)
    assert encoded.endswith(b"\0\0\xff\xd9")
    filled = encoded[:-2] + bytes(fill) + encoded[-2:]
    assert np.array_equal(transcode.decode_frame(filled, geometry, uids.JPEG_LS_LOSSLESS), samples)


def test_rle_of_pydicom_is_the_same_size_or_larger() -> None:
    """Both put every row in segments of its own, so neither is far from the other."""
    samples, geometry = noise("uint16", 12, "MONOCHROME2", 64, 64)
    samples[:, 40:] = 7
    rendition = transcode.plan(NATIVE, geometry, uids.RLE_LOSSLESS)
    assert rendition is not None
    encoded = transcode.encode(samples, geometry, rendition)
    other = pydicom.pixels.get_encoder(uids.RLE_LOSSLESS).encode(
        samples, rows=64, columns=64, samples_per_pixel=1, bits_allocated=16, bits_stored=12, pixel_representation=0,
        photometric_interpretation="MONOCHROME2", number_of_frames=1, encoding_plugin="pydicom",
    )  # fmt: skip
    assert len(encoded) % 2 == 0 and len(encoded) <= len(other) * 1.05
    assert int.from_bytes(encoded[:4], "little") == 2 and int.from_bytes(encoded[4:8], "little") == 64


def test_high_bit_above_bits_stored() -> None:
    """A codestream of whole cells whose samples lie higher: they come down when decoded, and go back up as native."""
    samples, geometry = noise("uint16", 12, "MONOCHROME2")
    raised = samples << 4
    cell = msgspec.structs.replace(geometry, bits_stored=16, high_bit=15)
    high = msgspec.structs.replace(geometry, high_bit=15)
    for syntax in (uids.JPEG_2000_LOSSLESS, RPCL, uids.JPEG_LS_LOSSLESS, uids.JPEG_LOSSLESS, uids.RLE_LOSSLESS):
        whole = transcode.plan(NATIVE, cell, syntax)
        assert whole is not None
        found = transcode.decode_frame(transcode.encode(raised, cell, whole), high, syntax)
        assert np.array_equal(found, samples), syntax
    assert pixels.encode_native(samples, high) == raised.astype("<u2").tobytes()
    assert np.array_equal(pixels.decode_native(raised.astype("<u2").tobytes(), high, big_endian=False), samples)
    # Where the codestream has no such bit the samples lie low, whatever High Bit says.
    low = transcode.plan(NATIVE, geometry, RPCL)
    assert low is not None
    assert np.array_equal(transcode.decode_frame(transcode.encode(samples, geometry, low), high, RPCL), samples)


def test_what_is_not_planned_is_not_encoded() -> None:
    samples, geometry = noise("uint16", 12, "MONOCHROME2")
    for rendition in transcode.renditions(RPCL, geometry):
        if rendition.kind == "encoded":
            for wrong in (samples[:-1], samples.astype(np.int16), samples.astype(np.uint8)):
                with pytest.raises(PixelError, match="do not fit"):
                    transcode.encode(wrong, geometry, rendition)
        else:
            with pytest.raises(UnsupportedTransferSyntaxError):
                transcode.encode(samples, geometry, rendition)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_tiny_images(shape: tuple[int, int]) -> None:
    for bits, photometric in ((8, "MONOCHROME2"), (8, "RGB"), (16, "MONOCHROME2"), (16, "RGB")):
        samples, geometry = noise(f"uint{bits}", bits, photometric, *shape)
        for rendition in transcode.renditions(NATIVE, geometry):
            if rendition.kind == "encoded":
                assert rendition.geometry is not None
                encoded = transcode.encode(samples, geometry, rendition)
                found = transcode.decode_frame(encoded, rendition.geometry, rendition.transfer_syntax)
                assert np.array_equal(found, samples) or not rendition.lossless


def test_every_row_of_the_table_has_an_encoder_and_a_decoder() -> None:
    assert set(TARGETS) == set(transcode.encoders.ENCODERS)
    assert set(TARGETS) <= set(transcode.decoders.DECODERS)


def test_openjpeg_reads_part_1_and_htj2k() -> None:
    samples, geometry = noise("int16", 12, "MONOCHROME2")
    for syntax in (uids.JPEG_2000_LOSSLESS, uids.HTJ2K_LOSSLESS):
        rendition = transcode.plan(NATIVE, geometry, syntax)
        assert rendition is not None
        assert np.array_equal(openjpeg.decode(transcode.encode(samples, geometry, rendition)), samples)
