"""Full-size renditions of fewer bytes: irreversible to a stated quality, and quality layers that end lossless."""

from __future__ import annotations

import math

import imagecodecs
import msgspec
import numpy as np
import openjpeg
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import bench_rungs
from pacs import codestream, transcode, uids
from pacs.errors import PixelError
from pacs.geometry import FrameGeometry
from pacs.transcode import rungs

RNG = np.random.default_rng(3)


def image(dtype: str, bits: int, photometric: str = "MONOCHROME2", rows: int = 200, columns: int = 170) -> np.ndarray:
    """Something like anatomy: smooth areas, edges and noise, over most of the range."""
    y, x = np.mgrid[:rows, :columns] / 60
    field = np.sin(x * 3) * np.cos(y * 2) + (x * x + y * y < 5) + RNG.normal(0, 0.01, x.shape)
    field = (field - field.min()) / np.ptp(field)
    low = -(1 << (bits - 1)) if dtype[0] == "i" else 0
    gray = (field * ((1 << bits) - 1) + low).astype(dtype)
    return np.stack([gray, gray[::-1], gray[:, ::-1]], axis=-1) if photometric == "RGB" else gray


def described(samples: np.ndarray, bits: int, photometric: str = "MONOCHROME2") -> FrameGeometry:
    return FrameGeometry(
        samples.shape[0], samples.shape[1], samples.ndim * 2 - 3, 8 * samples.itemsize, bits, bits - 1,
        int(samples.dtype.kind == "i"), 0, photometric, 1,
    )  # fmt: skip


def psnr(samples: np.ndarray, decoded: np.ndarray) -> float:
    square = np.mean((samples.astype(float) - decoded) ** 2)
    return math.inf if square == 0 else 20 * math.log10(np.ptp(samples.astype(float)) / math.sqrt(square))


KINDS = [
    ("uint16", 12, "MONOCHROME2"), ("int16", 16, "MONOCHROME1"), ("uint16", 16, "MONOCHROME2"),
    ("int16", 12, "MONOCHROME2"), ("uint8", 8, "MONOCHROME2"), ("uint8", 8, "RGB"), ("uint16", 9, "MONOCHROME2"),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "bits", "photometric"), KINDS)
@pytest.mark.parametrize("quality", [35, 50])
def test_irreversible_reaches_the_quality(dtype: str, bits: int, photometric: str, quality: float) -> None:
    samples = image(dtype, bits, photometric)
    geometry = described(samples, bits, photometric)
    encoded = transcode.irreversible(samples, geometry, quality)
    parsed = codestream.parse(encoded)
    assert (parsed.precision, parsed.signed, parsed.reversible, parsed.ht) == (bits, geometry.signed, False, True)
    assert parsed.mct == (photometric == "RGB") and len(parsed.level_ends) == geometry.decompositions + 1
    found = transcode.decode_frame(encoded, geometry, uids.HTJ2K)
    assert quality <= psnr(samples, found) < quality + 4
    # OpenJPEG reads the same values from it, precision and sign included.
    other = imagecodecs.jpeg2k_decode(encoded, planar=False if samples.ndim == 3 else None)
    assert other.dtype == samples.dtype and np.abs(other.astype(int) - found).max() <= max(1, 1 << max(0, bits - 12))
    assert len(encoded) < len(transcode.encode_frame(samples, geometry).codestream)


def test_more_quality_takes_more_bytes() -> None:
    samples = image("uint16", 12)
    sizes = [len(transcode.irreversible(samples, described(samples, 12), quality)) for quality in (30, 40, 50, 60, 70)]
    assert sizes == sorted(sizes) and sizes[-1] > 4 * sizes[0]


def test_quality_counts_the_values_that_are_there() -> None:
    """12 bits of values in 16 bits stored, far padding left out: the same bytes as for 12 bits stored, nearly."""
    samples = image("int16", 12)
    narrow = len(transcode.irreversible(samples, described(samples, 12), 45))
    assert abs(len(transcode.irreversible(samples, described(samples, 16), 45)) - narrow) < narrow * 0.15
    padded = samples.copy()
    padded[:, :20] = -32768
    assert rungs.span(padded) == np.ptp(samples[:, 20:].astype(int)) != np.ptp(padded.astype(int))
    assert rungs.span(np.full((9, 9), 7, np.uint8)) == 1
    assert rungs.span(np.array([[0, 0, 255, 255]], np.uint8)) == 255


def test_what_no_quantization_reaches_is_reversible() -> None:
    samples = (image("uint8", 8) > 127).astype(np.uint8)
    for syntax in (uids.HTJ2K, uids.JPEG_2000):
        rendition = transcode.plan(uids.EXPLICIT_VR_LITTLE_ENDIAN, described(samples, 2), syntax)
        assert rendition is not None
        encoded = transcode.encode(samples, described(samples, 2), rendition, quality=90)
        assert np.array_equal(transcode.decode_frame(encoded, described(samples, 2), syntax), samples)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_no_value_is_beyond_the_bits_stored(bits: int) -> None:
    """Fewer than 9 of 16 bits are declared as 9: what a decoder of another make returns is not masked."""
    edges = np.where(np.indices((33, 17)).sum(0) // 9 % 2, (1 << bits) - 1, 0).astype(np.uint16)
    for samples in (edges, np.zeros_like(edges), edges // 2):
        geometry = described(samples, bits)
        for encode in (rungs.irreversible, rungs.jpeg_2000):
            found = imagecodecs.jpeg2k_decode(encode(samples, geometry, 30))
            assert found.max() < 1 << bits and psnr(samples, found) >= 29.9


def test_little_quality_takes_few_bytes() -> None:
    """A few hot spots on nothing: an empty image has 25 dB, so every coarser step is tried. 0 dB means everything."""
    samples = np.abs(RNG.normal(0, 40, (128, 128))).astype(np.int16)
    samples[60:64, 50:54] = np.linspace(30000, 32767, 16).reshape(4, 4)
    sizes = [len(rungs.jpeg_2000(samples, described(samples, 16), quality)) for quality in (20, 25, 40)]
    assert sizes == sorted(sizes) and sizes[-1] < 3000


@pytest.mark.parametrize(("bits", "allocated"), [(1, 1), (1, 8), (2, 8)])
def test_dither_fits_into_the_buffer_of_openjpeg(bits: int, allocated: int) -> None:
    """Which has room for 1.4 times the bits of the samples; the wavelet takes more for 1 and 2 bits."""
    samples = (RNG.integers(0, 2, (300, 300)) * ((1 << bits) - 1)).astype(np.uint8)
    geometry = msgspec.structs.replace(described(samples, bits), bits_allocated=allocated)
    encoded = [rungs.jpeg_2000(samples, geometry)]
    if bits > 1:
        encoded += [rungs.jpeg_2000(samples, geometry, 90), transcode.layered(samples, geometry).codestream]
    for codestream_ in encoded:
        assert np.array_equal(transcode.decode_frame(codestream_, geometry, uids.JPEG_2000_LOSSLESS), samples)


@pytest.mark.parametrize(
    ("kind", "bits"), [("u", 1), *((kind, bits) for kind in ("u", "i") for bits in (2, 5, 8, 12, 16))]
)
def test_saturated_colours_lose_nothing(bits: int, kind: str) -> None:
    """The chroma of RCT takes a bit more than the samples, which OpenJPEG has no room for in every subband."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if kind == "i" else (0, (1 << bits) - 1)
    y, x = np.indices((60, 50))
    for field in ((y // 3 + x // 3) % 2, RNG.integers(0, 2, (60, 50)), (y + x > 55) ^ (x < 10)):
        gray = np.where(field, high, low).astype(f"{kind}{1 if bits <= 8 else 2}")
        samples = np.stack([gray, gray[::-1], gray[:, ::-1]], axis=-1)
        geometry = described(samples, bits, "RGB")
        found = [rungs.jpeg_2000(samples, geometry), transcode.layered(samples, geometry).codestream]
        for stream in found:
            assert codestream.parse(stream).mct
            other = openjpeg.decode(stream).astype(np.int64)
            assert np.array_equal(other, samples) or np.array_equal(other, samples.astype(np.int64) & ((1 << bits) - 1))


@pytest.mark.parametrize("quality", [None, 40])
def test_signed_bytes_are_no_chars_of_c(monkeypatch: pytest.MonkeyPatch, quality: float | None) -> None:
    """imagecodecs takes int8 for char, which has no sign on arm64: what is below 0 got lost there."""
    samples = RNG.integers(-100, 100, (40, 50)).astype(np.int8)
    direct = imagecodecs.jpeg2k_encode
    given = []

    def spied(data: np.ndarray, **options: object) -> bytes:
        given.append(data.dtype)
        return bytes(direct(data, **options))

    monkeypatch.setattr(imagecodecs, "jpeg2k_encode", spied)
    stream = rungs.jpeg_2000(samples, described(samples, 8), quality)
    assert given and np.int8 not in given
    parsed = codestream.parse(stream)
    assert (parsed.signed, parsed.precision) == (True, 8)
    error = np.abs(openjpeg.decode(stream).astype(int) - samples)
    assert error.max() <= (0 if quality is None else 20)


def test_samples_that_are_far_apart_in_gray_lose_nothing() -> None:
    for bits in range(1, 9):
        samples = np.where(np.indices((67, 71)).sum(0) // 2 % 2, (1 << bits) - 1, 0).astype(np.uint8)
        stream = rungs.jpeg_2000(samples, described(samples, bits))
        assert np.array_equal(openjpeg.decode(stream), samples)


@pytest.mark.parametrize("quality", [60, 80, 100])
def test_lossy_is_never_larger_than_lossless(quality: float) -> None:
    for samples, bits, photometric in (
        (image("uint16", 12), 12, "MONOCHROME2"), (image("uint8", 8, "RGB"), 8, "RGB"),
        (RNG.integers(0, 256, (64, 64)).astype(np.uint8), 8, "MONOCHROME2"),
    ):  # fmt: skip
        geometry = described(samples, bits, photometric)
        for encode, lossless in (
            (transcode.irreversible, transcode.encode_frame(samples, geometry).codestream),
            (rungs.jpeg_2000, rungs.jpeg_2000(samples, geometry)),
        ):
            encoded = encode(samples, geometry, quality)
            assert len(encoded) <= len(lossless)
            found = transcode.decode_frame(encoded, geometry, uids.HTJ2K)
            assert psnr(samples, found) >= quality - 0.01


def test_palette_indices_are_never_lossy() -> None:
    samples = image("uint8", 8)
    with pytest.raises(PixelError, match="PALETTE COLOR"):
        transcode.irreversible(samples, described(samples, 8, "PALETTE COLOR"), 40)


@pytest.mark.parametrize(("dtype", "bits", "photometric"), KINDS)
def test_part_1_reaches_the_quality(dtype: str, bits: int, photometric: str) -> None:
    samples = image(dtype, bits, photometric)
    geometry = described(samples, bits, photometric)
    rendition = transcode.plan(uids.HTJ2K_LOSSLESS_RPCL, geometry, uids.JPEG_2000)
    assert rendition is not None and not rendition.lossless
    encoded = transcode.encode(samples, geometry, rendition, quality=45)
    assert not codestream.parse(encoded).ht
    assert 45 <= psnr(samples, transcode.decode_frame(encoded, geometry, uids.JPEG_2000)) < 50


@pytest.mark.parametrize(("dtype", "bits", "photometric"), [*KINDS, ("uint8", 8, "PALETTE COLOR")])
def test_each_layer_adds_quality_and_the_last_is_lossless(dtype: str, bits: int, photometric: str) -> None:
    samples = image(dtype, bits, photometric)
    geometry = described(samples, bits, photometric)
    frame = transcode.layered(samples, geometry)
    parsed = codestream.parse(frame.codestream)
    assert (parsed.layers, parsed.progression, parsed.reversible, parsed.complete) == (6, "LRCP", True, True)
    assert (parsed.precision, parsed.signed) == (bits, geometry.signed)
    assert parsed.mct == (photometric == "RGB") and parsed.tlm_agrees and parsed.packet_lengths
    assert len(frame.layer_ends) == 6 and frame.layer_ends[-1] + 2 == len(frame.codestream)
    assert np.array_equal(transcode.decode_frame(frame.codestream, geometry, uids.JPEG_2000_LOSSLESS), samples)
    planar = False if samples.ndim == 3 else None
    prefixes = [frame.codestream[:end] + b"\xff\xd9" for end in frame.layer_ends]
    found = [psnr(samples, imagecodecs.jpeg2k_decode(prefix, planar=planar)) for prefix in prefixes]
    assert found == sorted(found) and found[0] > 15 and found[-1] == math.inf
    assert psnr(samples, openjpeg.decode(prefixes[3])) == pytest.approx(found[3])
    # The third is readable, the others are about as far from it as they should be. 8 bits are hardly 60 dB and lossy.
    full = 20 * math.log10(((1 << bits) - 1) / np.ptp(samples.astype(float)))
    readable = max(45 - full, 35)
    assert readable <= found[2] <= readable + 1.5
    assert found[:4] == pytest.approx([readable + more for more in rungs.LAYERS[:4]], abs=4)


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 12])
def test_a_readable_layer_of_what_gains_little_by_each_pass(bits: int) -> None:
    """Dither, noise, stripes and lone spots: OpenJPEG leaves the last passes of these to the lossless layer."""
    high = (1 << bits) - 1
    y, _ = np.indices((90, 80))
    for field in (
        RNG.random((90, 80)) < 0.4, y % 3 == 0, RNG.random((90, 80)) < 0.01, np.ones((9, 1)), RNG.random((90, 80)),
        (y % (high + 1)) / high,
    ):  # fmt: skip
        samples = np.rint(field * high).astype(np.uint16 if bits > 8 else np.uint8)
        frame = transcode.layered(samples, described(samples, bits))
        found = imagecodecs.jpeg2k_decode(frame.codestream[: frame.layer_ends[2]] + b"\xff\xd9").reshape(samples.shape)
        error = np.mean((samples.astype(float) - found) ** 2)
        peak = (1 << max(bits, 9 if bits > 8 else 1)) - 1
        wanted = max(45, 35 + 20 * math.log10(peak / max(1, int(np.ptp(samples)))))
        assert error == 0 or 20 * math.log10(peak / math.sqrt(error)) >= wanted - 0.01
        assert np.array_equal(openjpeg.decode(frame.codestream).reshape(samples.shape), samples)


def test_a_readable_layer_of_an_image_that_uses_few_of_its_bits() -> None:
    samples = image("int16", 11)
    frame = transcode.layered(samples, described(samples, 16))
    found = imagecodecs.jpeg2k_decode(frame.codestream[: frame.layer_ends[2]] + b"\xff\xd9")
    assert 35 <= psnr(samples, found) <= 36.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 2), (64, 65)])
def test_layers_of_small_images(shape: tuple[int, int]) -> None:
    samples = RNG.integers(0, 4096, shape).astype(np.uint16)
    frame = transcode.layered(samples, described(samples, 12))
    found = transcode.decode_frame(frame.codestream, described(samples, 12), uids.JPEG_2000_LOSSLESS)
    assert np.array_equal(found, samples)


def test_layers_are_refused_for_what_they_cannot_hold() -> None:
    samples = np.zeros((8, 8), np.uint16)
    for changes in ({"bits_allocated": 32}, {"samples_per_pixel": 2}, {"bits_allocated": 1}):
        with pytest.raises(PixelError):
            transcode.layered(samples, msgspec.structs.replace(described(samples, 12), **changes))
    with pytest.raises(PixelError, match="do not fit"):
        transcode.layered(samples[:4], described(samples, 12))
    with pytest.raises(PixelError, match="do not fit"):
        transcode.irreversible(samples.astype(np.int16), described(samples, 12))


def test_the_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks.main(["rungs", "--tiny"]) == 0
    out = capsys.readouterr().out
    assert ".90, layers 1 to 6" in out and "at 45 dB sharp, .90, whole layers" in out and "OpenJPEG" in out


def test_bytes_at_a_quality_between_two_results() -> None:
    assert bench_rungs.fewest([(10, 40.0), (20, 45.0), (30, 44.0), (40, 50.0)]) == 20
    assert bench_rungs.sharp([(100, 40.0), (400, 50.0), (900, 60.0)]) == pytest.approx(200)
    assert bench_rungs.fewest([(10, 40.0)]) is bench_rungs.sharp([(10, 40.0)]) is None
    assert bench_rungs.sharp([(10, 40.0), (90, math.inf)]) == 90
