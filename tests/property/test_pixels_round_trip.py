"""Whatever bytes a frame has, `join` gives back what `split` took apart, and the samples are a slow loop's."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pacs import pixels, transcode
from pacs.geometry import FrameGeometry


@st.composite
def frames(draw: st.DrawFn) -> tuple[FrameGeometry, bytes, bool]:
    allocated = draw(st.sampled_from((8, 16)))
    stored = draw(st.integers(1, allocated))
    samples = draw(st.sampled_from((1, 1, 2, 3, 4)))
    geometry = FrameGeometry(
        rows=draw(st.integers(1, 9)),
        columns=draw(st.integers(1, 9)),
        samples_per_pixel=samples,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1,
        pixel_representation=draw(st.integers(0, 1)),
        planar_configuration=draw(st.integers(0, 1)),
        photometric_interpretation=draw(st.sampled_from(("RGB", "YBR_FULL"))) if samples == 3 else "MONOCHROME2",
        frames=1,
    )
    count = geometry.rows * geometry.columns * samples
    used = st.integers(0, (1 << stored) - 1)
    unused = draw(st.sampled_from(("zero", "sign", "any")))
    word = used if unused != "any" else st.integers(0, (1 << allocated) - 1)
    words = draw(st.lists(word, min_size=count, max_size=count))
    if unused == "sign":
        high = (1 << allocated) - (1 << stored)
        words = [value | high if value >> (stored - 1) else value for value in words]
    big_endian = draw(st.booleans())
    order = "big" if big_endian else "little"
    return geometry, b"".join(value.to_bytes(allocated // 8, order) for value in words), big_endian


def slow_samples(geometry: FrameGeometry, frame: bytes, big_endian: bool) -> np.ndarray:
    """PS3.5 8.1.1 and PS3.3 C.7.6.3.1.3, one sample at a time."""
    width, count = geometry.bits_allocated // 8, geometry.samples_per_pixel
    values = [
        int.from_bytes(frame[at : at + width], "big" if big_endian else "little") & ((1 << geometry.bits_stored) - 1)
        for at in range(0, len(frame), width)
    ]
    if geometry.signed:
        half = 1 << (geometry.bits_stored - 1)
        values = [value - 2 * half if value >= half else value for value in values]
    shape = (geometry.rows, geometry.columns, count)
    if geometry.planar_configuration:
        return np.array(values).reshape(count, *shape[:2]).transpose(1, 2, 0).reshape(pixels.shape(geometry))
    return np.array(values).reshape(pixels.shape(geometry))


@given(frames())
def test_split_and_join(case: tuple[FrameGeometry, bytes, bool]) -> None:
    geometry, frame, big_endian = case
    samples, kind, residual = pixels.split(frame, geometry, big_endian=big_endian)
    assert samples.dtype == pixels.dtype(geometry) and samples.flags.c_contiguous
    assert np.array_equal(samples, slow_samples(geometry, frame, big_endian))
    assert (kind == pixels.RESIDUAL) == bool(residual)
    assert pixels.join(samples, geometry, big_endian=big_endian, unused_bits=kind, residual=residual) == frame
    assert np.array_equal(pixels.decode_native(frame, geometry, big_endian=big_endian), samples)


@given(frames())
def test_encode_and_decode(case: tuple[FrameGeometry, bytes, bool]) -> None:
    geometry, frame, big_endian = case
    samples = pixels.split(frame, geometry, big_endian=big_endian)[0]
    encoded = transcode.encode_frame(samples, geometry)
    decoded = transcode.decode_frame(encoded.codestream, geometry, "1.2.840.10008.1.2.4.202")
    assert decoded.dtype == samples.dtype and np.array_equal(decoded, samples)
