"""A frame as far as it is here: which image its bytes are, and never more than that."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from pacs import uids
from pacs.client.index import IndexedFrame
from pacs.errors import AnswerError, PixelError, RemoteChangedError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry

Samples = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Image:
    """What the bytes of a frame decode to."""

    rung: str
    """`level=2`, `quality=45`, `lossless`."""
    array: Samples
    """(rows, columns[, samples]) at that rung, in the type that the Data Set gives them."""
    final: bool
    """Whether it is the whole frame as it is stored."""


class HeldFrame:
    """The bytes of one frame that have been received, from the first on without a gap."""

    def __init__(self, frame: IndexedFrame) -> None:
        if frame.length is None:
            raise ValueError("a frame of unknown length")
        self.frame = frame
        self.length = frame.length
        self.data = bytearray()
        self.etag = ""
        """Of the answers that the bytes came in, where ranges were asked for."""
        self.finished = False
        """Whether it was shown as final; its bytes are gone then."""

    @property
    def received(self) -> int:
        """Bytes from the first on."""
        return self.length if self.finished else len(self.data)

    @property
    def level(self) -> int | None:
        """The finest resolution level all of whose bytes are here; None when there is none."""
        complete = bisect_right(self.frame.ends, self.received)
        return complete - 1 if complete else None

    def add(self, start: int, piece: bytes | memoryview) -> None:
        """Take bytes that begin at `start`. Those that were here before must be the same. Raises AnswerError,
        RemoteChangedError."""
        if self.finished:
            return
        here = len(self.data)
        if start > here or start + len(piece) > self.length:
            raise AnswerError(self.frame.path, f"bytes {start} to {start + len(piece)} where {here} are here")
        known = min(here - start, len(piece))
        if known and not self.data.startswith(bytes(piece[:known]), start):
            self.forget()
            raise RemoteChangedError(self.frame.path, "bytes that were received before are others now")
        self.data += piece[known:]

    def snapshot(self) -> tuple[int, bytes] | None:
        """(level, its bytes) of the finest level that is here; None when there is none."""
        level = self.level
        if level is None or self.finished:
            return None
        return level, bytes(memoryview(self.data)[: self.frame.ends[level]])

    def forget(self, *, finished: bool = False) -> None:
        """Drop the bytes: the frame is `finished`, or they are not what they should be."""
        self.data = bytearray()
        self.finished = finished


def decode(
    frame: IndexedFrame, level: int, data: bytes, geometry: FrameGeometry, *, floating: bool = False
) -> Image:
    """The image that the bytes up to the end of a level are. Raises AnswerError, PixelError and
    UnsupportedTransferSyntaxError.

    It is final only if every byte is there, they have the checksum that the server named, and the decoder found all
    that the codestream's own header promises.
    """
    if len(data) != frame.ends[level]:
        raise AnswerError(frame.path, f"{len(data)} bytes are not those of level {level}")
    dropped = len(frame.ends) - 1 - level
    if not dropped:
        if frame.crc32c is not None and google_crc32c.value(data) != frame.crc32c:
            raise AnswerError(frame.path, "its bytes do not have the checksum that the server names")
        array = samples(data, frame.transfer_syntax, geometry, floating=floating)
    else:
        from pacs import transcode

        array = transcode.decode_frame(data, geometry, frame.transfer_syntax, levels_dropped=dropped)
    if array.shape[:2] != frame.sizes[level]:
        raise AnswerError(frame.path, f"level {level} is {array.shape[:2]}, {frame.sizes[level]} is what it should be")
    return Image("lossless" if not dropped else f"level={level}", array, not dropped)


def samples(data: bytes, transfer_syntax: str, geometry: FrameGeometry, *, floating: bool = False) -> Samples:
    """One whole frame, native or encapsulated, as (rows, columns[, samples]). Raises PixelError,
    UnsupportedTransferSyntaxError."""
    from pacs import transcode

    syntax = uids.transfer_syntax(transfer_syntax)
    if syntax.encapsulated and transfer_syntax in uids.TRANSFER_SYNTAXES:
        decoded: Samples = transcode.decode_frame(data, geometry, transfer_syntax)
        return decoded
    if transfer_syntax not in uids.TRANSFER_SYNTAXES:
        raise UnsupportedTransferSyntaxError(f"no decoder for {syntax.name}")
    expected = -(-geometry.frame_bits // 8)
    if len(data) not in (expected, expected + expected % 2):
        raise PixelError(f"a native frame of {len(data)} bytes where {expected} are described")
    big = transfer_syntax == uids.EXPLICIT_VR_BIG_ENDIAN
    native: Samples = transcode.decode_native(data, geometry, big_endian=big, floating=floating)
    return native


def upscaled(array: Samples, rows: int, columns: int) -> Samples:
    """An image of a resolution level brought to `rows` by `columns`, interpolated linearly, in its own type.

    Samples of a level lie on every second, fourth … row and column of the whole image, from the first on. T.800 B.5
    """
    for axis, size in ((0, rows), (1, columns)):
        array = _stretched(array, axis, size)
    return array


def _stretched(array: Samples, axis: int, size: int) -> Samples:
    count = array.shape[axis]
    if count == size:
        return array
    step = 1
    while -(-size // step) > count:
        step *= 2
    at = np.arange(size)
    low = np.minimum(at // step, count - 1)
    high = np.minimum(low + 1, count - 1)
    weight = ((at - low * step) / step).clip(0, 1).astype(np.float32)
    weight = weight.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    below = np.take(array, low, axis).astype(np.float32)
    above = np.take(array, high, axis).astype(np.float32)
    below += (above - below) * weight
    if array.dtype.kind in "iu":
        np.rint(below, out=below)
    stretched: Samples = below.astype(array.dtype)
    return stretched
