"""Frames and their samples: the cases by hand, and what costs nothing."""

from __future__ import annotations

import numpy as np
import pytest

from pacs import pixels
from pacs.errors import PixelError
from pacs.geometry import FrameGeometry


def described(**changes: object) -> FrameGeometry:
    fields: dict[str, object] = {
        "rows": 4, "columns": 6, "samples_per_pixel": 1, "bits_allocated": 16, "bits_stored": 12, "high_bit": 11,
        "pixel_representation": 0, "planar_configuration": 0, "photometric_interpretation": "MONOCHROME2", "frames": 1,
    } | changes  # fmt: skip
    if "high_bit" not in changes:
        fields["high_bit"] = int(str(fields["bits_stored"])) - 1
    return FrameGeometry(**fields)  # type: ignore[arg-type]


def test_clean_samples_are_a_view() -> None:
    frame = np.arange(24, dtype="<u2").tobytes()
    samples, kind, residual = pixels.split(frame, described(), big_endian=False)
    assert (kind, residual) == (pixels.ZERO, b"")
    assert samples.base is not None and not samples.flags.owndata
    assert np.array_equal(samples.ravel(), np.arange(24))


@pytest.mark.parametrize(
    ("signed", "raw", "value", "kind"),
    [
        (False, 0x0FFF, 0x0FFF, pixels.ZERO),
        (False, 0xFFFF, 0x0FFF, pixels.SIGN),
        (False, 0x1001, 0x0001, pixels.RESIDUAL),
        (True, 0xFFFF, -1, pixels.SIGN),
        (True, 0x0FFF, -1, pixels.ZERO),
        (True, 0x07FF, 0x07FF, pixels.SIGN),
        (True, 0xF001, 0x0001, pixels.RESIDUAL),
    ],
)
def test_unused_bits(signed: bool, raw: int, value: int, kind: str) -> None:
    geometry = described(pixel_representation=int(signed))
    words = np.zeros(24, "<u2")
    words[7] = raw
    for big_endian in (False, True):
        frame = words.astype(">u2" if big_endian else "<u2").tobytes()
        samples, found, residual = pixels.split(frame, geometry, big_endian=big_endian)
        assert (found, int(samples.ravel()[7])) == (kind, value)
        assert len(residual) == (48 if kind == pixels.RESIDUAL else 0)
        assert pixels.join(samples, geometry, big_endian=big_endian, unused_bits=found, residual=residual) == frame


def test_one_dirty_sample_among_many_is_found() -> None:
    geometry = described(rows=512, columns=512)
    words = np.full(512 * 512, 7, "<u2")
    for at in (0, 1, 262_143):
        words[at] |= 0x8000
        assert pixels.split(words.tobytes(), geometry, big_endian=False)[1] == pixels.RESIDUAL
        words[at] = 7


def test_both_planar_configurations_are_colour_by_pixel() -> None:
    by_pixel = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    common = {"samples_per_pixel": 3, "bits_allocated": 8, "bits_stored": 8, "photometric_interpretation": "RGB"}
    for planar, frame in ((0, by_pixel.tobytes()), (1, by_pixel.transpose(2, 0, 1).tobytes())):
        geometry = described(planar_configuration=planar, **common)
        samples, kind, _ = pixels.split(frame, geometry, big_endian=False)
        assert np.array_equal(samples, by_pixel)
        assert pixels.join(samples, geometry, big_endian=False, unused_bits=kind) == frame


def test_a_frame_at_an_odd_address() -> None:
    words = np.arange(24, dtype="<u2").tobytes()
    for extra in (0, 1):
        frame = memoryview(bytes(extra) + words)[extra:]
        samples, kind, residual = pixels.split(frame, described(), big_endian=False)
        assert pixels.join(samples, described(), big_endian=False, unused_bits=kind, residual=residual) == words


@pytest.mark.parametrize(
    "changes",
    [
        {"bits_allocated": 32}, {"bits_allocated": 12}, {"bits_allocated": 1, "bits_stored": 1}, {"bits_stored": 0},
        {"bits_stored": 17}, {"high_bit": 15}, {"rows": 0}, {"columns": -1}, {"samples_per_pixel": 0},
        {"pixel_representation": 2}, {"planar_configuration": 2},
        {"photometric_interpretation": "YBR_FULL_422", "samples_per_pixel": 3},
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PixelError):
        pixels.split(bytes(48), described(**changes), big_endian=False)


@pytest.mark.parametrize("length", [0, 47, 49])
def test_a_frame_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(PixelError):
        pixels.split(bytes(length), described(), big_endian=False)


def test_join_refuses_what_does_not_fit() -> None:
    with pytest.raises(PixelError):
        pixels.join(np.zeros((4, 6), np.int16), described(), big_endian=False, unused_bits=pixels.ZERO)
    with pytest.raises(PixelError):
        pixels.join(np.zeros((4, 5), np.uint16), described(), big_endian=False, unused_bits=pixels.ZERO)
    with pytest.raises(PixelError):
        pixels.join(np.zeros((4, 6), np.uint16), described(), big_endian=False, unused_bits="residual", residual=b"1")


def test_native_follows_any_high_bit() -> None:
    frame = (np.arange(24, dtype="<u2") << 4).tobytes()
    samples = pixels.decode_native(frame, described(high_bit=15), big_endian=False)
    assert np.array_equal(samples.ravel(), np.arange(24))


@pytest.mark.parametrize("high", [10, 16, 300, -1])
def test_a_high_bit_that_cannot_be_is_passed_over(high: int) -> None:
    """The samples are where they nearly always are, and are written there again."""
    values = np.arange(-12, 12, dtype="<i2").reshape(4, 6)
    geometry = described(pixel_representation=1, high_bit=high)
    assert np.array_equal(pixels.decode_native(values.tobytes(), geometry, big_endian=False), values)
    assert pixels.encode_native(values, geometry) == values.tobytes()


def test_samples_that_a_high_bit_has_moved_are_written_where_they_were() -> None:
    geometry = described(high_bit=15)
    values = np.arange(24, dtype="<u2").reshape(4, 6)
    frame = (values << 4).astype("<u2").tobytes()
    assert np.array_equal(pixels.decode_native(frame, geometry, big_endian=False), values)
    assert pixels.encode_native(values, geometry) == frame
    with pytest.raises(PixelError, match="are described"):
        pixels.encode_native(values.T, geometry)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bits_allocated": 24}, "24 bits allocated"), ({"bits_stored": 17}, "17 bits stored"),
        ({"bits_stored": 0}, "0 bits stored"), ({"rows": 0}, "0 rows"), ({"samples_per_pixel": -1}, "-1 samples"),
        ({"photometric_interpretation": "YBR_FULL_422", "samples_per_pixel": 3, "rows": 3, "columns": 3}, "odd number"),
    ],
)  # fmt: skip
def test_native_frames_that_no_samples_are_in(changes: dict[str, object], said: str) -> None:
    with pytest.raises(PixelError, match=said):
        pixels.decode_native(bytes(1000), described(**changes), big_endian=False)


def test_native_bits_start_anywhere_in_a_byte() -> None:
    bits = np.random.default_rng(3).integers(0, 2, 3 * 24 + 5).astype(np.uint8)
    packed = np.packbits(bits, bitorder="little").tobytes()
    geometry = described(bits_allocated=1, bits_stored=1)
    for start in (0, 5, 24, 48):
        samples = pixels.decode_native(packed[start // 8 :], geometry, big_endian=False, bit_offset=start % 8)
        assert np.array_equal(samples.ravel(), bits[start : start + 24])


@pytest.mark.parametrize(("bits", "floating"), [(32, False), (64, False), (32, True), (64, True)])
def test_native_wide_samples(bits: int, floating: bool) -> None:
    geometry = described(bits_allocated=bits, bits_stored=bits, pixel_representation=0)
    kind = "f" if floating else "u"
    expected = np.arange(24, dtype=f"{kind}{bits // 8}").reshape(4, 6)
    for order in "<>":
        value = expected.astype(expected.dtype.newbyteorder(order)).tobytes()
        found = pixels.decode_native(value, geometry, big_endian=order == ">", floating=floating)
        assert found.dtype == expected.dtype and np.array_equal(found, expected)


def test_native_shared_chroma_is_doubled() -> None:
    shared = {"samples_per_pixel": 3, "photometric_interpretation": "YBR_FULL_422"}
    geometry = described(rows=1, columns=4, bits_allocated=8, bits_stored=8, **shared)
    samples = pixels.decode_native(bytes([1, 2, 10, 20, 3, 4, 30, 40]), geometry, big_endian=False)
    assert samples.tolist() == [[[1, 10, 20], [2, 10, 20], [3, 30, 40], [4, 30, 40]]]


def test_native_bytes_in_big_endian_words() -> None:
    geometry = described(rows=1, columns=3, bits_allocated=8, bits_stored=8)
    samples = pixels.decode_native(bytes([2, 1, 0, 3]), geometry, big_endian=True, word_swapped=True)
    assert samples.tolist() == [[1, 2, 3]]


def test_native_cut_is_refused() -> None:
    with pytest.raises(PixelError):
        pixels.decode_native(bytes(47), described(), big_endian=False)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4"])
def test_range_and_level_shift_are_those_of_numpy(kind: str) -> None:
    chance = np.random.default_rng(3)
    whole = np.iinfo(kind)
    samples = chance.integers(whole.min, whole.max + 1, (7, 33)).astype(kind)
    for bits in range(1, whole.bits + 1):
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if kind[0] == "i" else (0, (1 << bits) - 1)
        for cut in (samples, samples.clip(low, high), samples[::2, ::3].clip(0, high), np.full((1, 1), high, kind)):
            assert cut.itemsize > 2 or pixels.fit(cut, bits) == (low <= cut.min() and cut.max() <= high)
            if kind[0] == "u":
                expected = (cut - cut.dtype.type(1 << (bits - 1))).view(f"i{cut.itemsize}")
                assert np.array_equal(pixels.level_shifted(cut, bits), expected)
                assert pixels.level_shifted(cut, bits).dtype == expected.dtype


def test_buffers_are_the_same_or_not() -> None:
    data = bytes(range(256)) * 8192  # long enough to be compared without the interpreter
    assert pixels.same(data, memoryview(b"x" + data)[1:])
    assert not pixels.same(data, bytearray(data[:-1] + b"x"))
    assert pixels.same(b"", memoryview(b"")) and not pixels.same(b"", b"x") and not pixels.same(b"ab", b"ac")
