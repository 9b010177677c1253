"""A frame that is cut anywhere is an image of the level that is there, or none; it is final only when it is whole."""

from __future__ import annotations

from dataclasses import replace

import google_crc32c
import numpy as np
import pytest
from numpy.typing import NDArray

from pacs import transcode, uids
from pacs.client.held import HeldCodestream, decode, samples
from pacs.client.index import IndexedFrame
from pacs.client.rungs import Rung
from pacs.client.upscaling import upscaled
from pacs.errors import AnswerError, PacsError, PixelError, RemoteChangedError
from pacs.geometry import FrameGeometry
from tests.streams import decoders
from tests.streams.images import plane


def geometry_of(array: NDArray[np.uint16], bits: int = 12) -> FrameGeometry:
    rows, columns = array.shape
    signed = array.dtype.kind == "i"
    return FrameGeometry(rows, columns, 1, 16, bits, bits - 1, int(signed), 0, "MONOCHROME2", 1)


def encode(array: NDArray[np.uint16], geometry: FrameGeometry) -> tuple[bytes, tuple[int, ...]]:
    """The codestream and the ends of its levels as an index has them: EOC belongs to the last one."""
    encoded = transcode.encode_frame(array, geometry)
    return encoded.codestream, (*encoded.level_ends[:-1], len(encoded.codestream))


def indexed(data: bytes, ends: tuple[int, ...], geometry: FrameGeometry, crc: bool = True) -> IndexedFrame:
    rows, columns = geometry.rows, geometry.columns
    sizes = tuple((-(-rows >> k), -(-columns >> k)) for k in reversed(range(len(ends))))
    return IndexedFrame(
        "1.2.3", 1, "instances/1.2.3/frames/1", rows, columns, "etag", len(data), uids.HTJ2K_LOSSLESS_RPCL,
        "image/jphc", ends, sizes, google_crc32c.value(data) if crc else None, geometry,
    )  # fmt: skip


class Encoded:
    """A frame, its codestream, and what OpenJPEG makes of each resolution level of it."""

    def __init__(self, rows: int, columns: int, *, signed: bool = False) -> None:
        self.array = plane(rows, columns, 12, signed=signed)
        self.geometry = geometry_of(self.array)
        self.data, self.ends = encode(self.array, self.geometry)
        self.frame = indexed(self.data, self.ends, self.geometry)
        self.levels = [decoders.openjpeg(self.data, k)[0] for k in reversed(range(len(self.ends)))]
        assert np.array_equal(self.levels[-1], self.array)

    def hold(self, count: int, *, known: bool = True) -> HeldCodestream:
        """The first `count` bytes, of a frame whose levels the index knows or not."""
        frame = self.frame if known else replace(self.frame, length=None, ends=(), sizes=self.frame.sizes[-1:])
        held = HeldCodestream(frame, self.frame.transfer_syntax, len(self.data))
        held.add(0, self.data[:count])
        return held

    def check_cut(self, count: int, *, known: bool = True) -> None:
        held = self.hold(count, known=known)
        step = held.sharpest()
        complete = sum(end <= count for end in self.ends)
        if not complete:
            assert step is None
            return
        assert step is not None
        array = decode(held, step, held.snapshot(step), self.geometry)
        assert np.array_equal(array, self.levels[complete - 1])
        assert step.final == (count == len(self.data))
        assert step.rung == ("lossless" if step.final else f"level={complete - 1}")


def test_a_small_frame_cut_at_every_byte() -> None:
    encoded = Encoded(33, 47)
    for count in range(len(encoded.data) + 1):
        encoded.check_cut(count)
        encoded.check_cut(count, known=False)


@pytest.mark.parametrize("signed", [False, True])
def test_a_larger_frame_cut_around_the_ends_of_its_levels(signed: bool) -> None:
    encoded = Encoded(301, 410, signed=signed)
    for end in encoded.ends:
        for count in (end - 1, end, min(end + 1, len(encoded.data))):
            encoded.check_cut(count)


def test_layers_cut_at_every_byte() -> None:
    """Of a frame with quality layers each is the image of full size, as OpenJPEG decodes so many layers."""
    array = plane(40, 52, 12)
    geometry = geometry_of(array)
    data, ends = transcode.layered(array, geometry)
    layers = [decoders.openjpeg(data, 0, count)[0] for count in range(1, len(ends) + 1)]
    assert np.array_equal(layers[-1], array)
    frame = replace(indexed(data, (len(data),), geometry), length=None, ends=())
    shown = set()
    for count in range(len(data) + 1):
        held = HeldCodestream(frame, uids.JPEG_2000_LOSSLESS, len(data))
        held.add(0, data[:count])
        step = held.sharpest()
        complete = sum(end <= count for end in ends)
        if not complete:
            assert step is None
            continue
        assert step is not None and step.final == (count == len(data))
        assert step.rung == ("lossless" if step.final else f"layer={complete}")
        if step.end not in shown:
            shown.add(step.end)
            assert np.array_equal(decode(held, step, held.snapshot(step), geometry), layers[complete - 1])
    assert len(shown) == len(ends) + 1


def test_a_lossy_codestream_is_an_image_when_it_is_whole_and_never_final() -> None:
    array = plane(64, 64, 12)
    geometry = geometry_of(array)
    data = transcode.irreversible(array, geometry, 45.0)
    frame = indexed(data, (len(data),), geometry)
    held = HeldCodestream(frame, uids.HTJ2K, len(data), Rung("quality", 45))
    for at in range(len(data)):
        assert held.sharpest() is None
        held.add(at, data[at : at + 1])
    step = held.sharpest()
    assert step is not None and not step.final and step.rung == "quality=45"
    found = decode(held, step, held.snapshot(step), geometry)
    error = np.square(found.astype(float) - array).mean()
    assert error > 0 and 10 * np.log10(float(np.ptp(array)) ** 2 / error) > 45


def test_an_index_that_ends_too_early_makes_nothing_final() -> None:
    """A server that says of every cut that it is the whole frame is not believed: the codestream says otherwise."""
    array = plane(33, 47, 12)
    geometry = geometry_of(array)
    data, _ = encode(array, geometry)
    promised = transcode.encode_frame(array, geometry).level_ends[-1]
    for count in [*range(1, 200), *range(200, promised, 37), promised - 1]:
        held = HeldCodestream(indexed(data[:count], (count,), geometry, crc=False), uids.HTJ2K_LOSSLESS_RPCL, count)
        held.add(0, data[:count])
        step = held.sharpest()
        assert step is not None and step.final
        with pytest.raises(PacsError):
            decode(held, step, held.snapshot(step), geometry)


def test_levels_that_are_not_where_the_index_says_are_no_image() -> None:
    array = plane(64, 64, 12)
    geometry = geometry_of(array)
    data, ends = encode(array, geometry)
    moved = (*(end - 1 for end in ends[:-1]), ends[-1])
    frame = indexed(data, moved, geometry)
    for end in moved[:-1]:
        held = HeldCodestream(frame, frame.transfer_syntax, len(data))
        held.add(0, data[:end])
        step = held.sharpest()
        assert step is not None and step.end == end
        with pytest.raises(PixelError):
            decode(held, step, held.snapshot(step), geometry)


def test_damage_is_found_by_the_checksum() -> None:
    encoded = Encoded(64, 64)
    noise = np.random.default_rng(1)
    held = encoded.hold(len(encoded.data))
    step = held.sharpest()
    assert step is not None and np.array_equal(decode(held, step, encoded.data, encoded.geometry), encoded.array)
    for at in noise.integers(0, len(encoded.data), 50):
        damaged = bytearray(encoded.data)
        damaged[at] ^= 1 << int(noise.integers(8))
        with pytest.raises(AnswerError, match="checksum"):
            decode(held, step, bytes(damaged), encoded.geometry)


def test_bytes_join_without_gaps_and_agree_where_they_overlap() -> None:
    array = plane(40, 40, 12)
    geometry = geometry_of(array)
    data, ends = encode(array, geometry)
    held = HeldCodestream(indexed(data, ends, geometry), uids.HTJ2K_LOSSLESS_RPCL, len(data))
    held.add(0, data[:100])
    with pytest.raises(AnswerError):
        held.add(101, data[101:120])
    held.add(50, memoryview(data)[50:150])
    held.add(20, data[20:60])
    assert bytes(held.data) == data[:150]
    with pytest.raises(AnswerError):
        held.add(150, data[150:] + b"x")
    with pytest.raises(RemoteChangedError):
        held.add(140, b"other bytes than before")
    assert held.received == 0, "what may be bytes of two frames is kept"


def test_native_frames_of_another_length_are_no_image() -> None:
    geometry = FrameGeometry(3, 5, 1, 8, 8, 7, 0, 0, "MONOCHROME2", 1)
    native = bytes(range(15))
    wanted = np.arange(15, dtype=np.uint8).reshape(3, 5)
    for padding in (b"", b"\0"):
        assert np.array_equal(samples(native + padding, uids.EXPLICIT_VR_LITTLE_ENDIAN, geometry), wanted)
    for wrong in (native[:-1], native + b"\0\0", b""):
        with pytest.raises(PixelError):
            samples(wrong, uids.EXPLICIT_VR_LITTLE_ENDIAN, geometry)


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (65, 63), (7, 33), (1, 5), (9, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_upscaling_keeps_the_samples_in_their_places(rows: int, columns: int, dtype: type) -> None:
    noise = np.random.default_rng(rows)
    for dropped in range(1, 7):
        step = 1 << dropped
        level = noise.integers(0, 100, (-(-rows // step), -(-columns // step))).astype(dtype)
        whole = upscaled(level, rows, columns)
        assert whole.shape == (rows, columns) and whole.dtype == dtype
        assert np.array_equal(whole[::step, ::step], level)
        assert whole.min() >= level.min() and whole.max() <= level.max()
    colour = noise.integers(0, 100, (5, 4, 3)).astype(dtype)
    assert upscaled(colour, 10, 7).shape == (10, 7, 3)
    assert upscaled(colour, 5, 4) is colour
