"""The Pixel Data element of a rewritten file: native, or encapsulated with its offset tables (PS3.5 A.4, 8.1.1)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final

import numpy as np

from pacs import tags
from pacs.errors import UnsupportedTransferSyntaxError
from pacs.storage.model import Buffer

_ITEM: Final = b"\xfe\xff\x00\xe0"
_END: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"
_LONGEST_VALUE: Final = 0xFFFFFFFE
_NAMES: Final = {
    tags.PIXEL_DATA: (b"\xe0\x7f\x10\x00", b"OW"),
    tags.FLOAT_PIXEL_DATA: (b"\xe0\x7f\x08\x00", b"OF"),
    tags.DOUBLE_FLOAT_PIXEL_DATA: (b"\xe0\x7f\x09\x00", b"OD"),
}


def native_head(pixel_tag: int, length: int, bits_allocated: int, *, implicit: bool) -> bytes:
    """Tag, VR and length of native pixel data of `length` bytes, to be padded to an even number.

    Raises UnsupportedTransferSyntaxError above 4 GiB. PS3.5 7.1, A.1, A.2
    """
    if length > _LONGEST_VALUE:
        raise UnsupportedTransferSyntaxError("native pixel data above 4 GiB has no place in a Data Element")
    name, vr = _NAMES[pixel_tag]
    if pixel_tag == tags.PIXEL_DATA and bits_allocated <= 8:
        vr = b"OB"
    return name + (b"" if implicit else vr + b"\0\0") + (length + length % 2).to_bytes(4, "little")


def continuous(frames: Iterator[Buffer], frame_bits: int) -> Iterator[Buffer]:
    """Frames of 1 bit allocated without the pad of each: the next one begins in the byte where one ends. PS3.5 8.1.1"""
    rest = np.empty(0, np.uint8)
    for frame in frames:
        if frame_bits % 8 == 0:
            yield frame
            continue
        bits = np.concatenate((rest, np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")[:frame_bits]))
        whole = len(bits) // 8 * 8
        yield np.packbits(bits[:whole], bitorder="little").tobytes()
        rest = bits[whole:]
    yield np.packbits(rest, bitorder="little").tobytes()


def encapsulated_head(lengths: Sequence[int] | None) -> tuple[bytes, int | None]:
    """(everything before the first frame, length of the whole) of frames that are one fragment each.

    `lengths` of all frames as they are, where they are known before the frames: then there is an offset table, the
    Extended one where the Basic one cannot count so far; else an empty Basic one, with which frames are found as
    well, each being one fragment. PS3.5 A.4, PS3.3 C.7.6.3.1.8
    """
    head = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
    if lengths is None:
        return head + _ITEM + bytes(4), None
    even = [length + length % 2 for length in lengths]
    offsets = list(accumulate((8 + length for length in even), initial=0))
    total = offsets.pop() + len(_END)
    if not offsets or offsets[-1] <= 0xFFFFFFFF:
        table = struct.pack(f"<{len(offsets)}I", *offsets)
        head += _ITEM + len(table).to_bytes(4, "little") + table
        return head, len(head) + total
    size = (8 * len(offsets)).to_bytes(4, "little")
    extended = b"\xe0\x7f\x01\x00OV\0\0" + size + struct.pack(f"<{len(offsets)}Q", *offsets)
    extended += b"\xe0\x7f\x02\x00OV\0\0" + size + struct.pack(f"<{len(offsets)}Q", *lengths)
    head = extended + head + _ITEM + bytes(4)
    return head, len(head) + total


def fragments(count: int, frame: Callable[[int], Buffer]) -> Iterator[Buffer]:
    """The items of frames 1 to `count`, and what ends them. One frame is in memory at a time."""
    for number in range(1, count + 1):
        data = frame(number)
        yield _ITEM + (len(data) + len(data) % 2).to_bytes(4, "little")
        yield data
        if len(data) % 2:
            yield b"\0"
    yield _END
