"""Frames in fragments: every way to cut them, to say where they begin, and to be wrong about it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.objects.base import DELIMITER, Built, cut_even, encapsulated, even, item, offsets, pixel_element, write
from tests.objects.images import ENCODERS, compressed, image, native, pattern, state

MARKED = (
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203",
    "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.5",
)  # fmt: skip
"""Transfer Syntaxes whose frames begin with something that tells them."""

JPEG, RLE, UNMARKED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.8.1"


def encoded(transfer_syntax: str, count: int) -> list[bytes]:
    bits, encode = ENCODERS[transfer_syntax]
    return [even(bytes(encode(pattern(40, 56, bits, number=number)))) for number in range(count)]


def _built(
    name: str, frames: list[bytes], pixels: bytes, *, transfer_syntax: str = JPEG, number_of_frames: int | None = None,
    served: tuple[bytes, ...] | None = None, warns: str = "",
) -> Built:  # fmt: skip
    bits = ENCODERS[transfer_syntax][0]
    ds = image(name, (40, 56), allocated=8 if bits <= 8 else 16, stored=bits, frames=len(frames))
    state(ds, number_of_frames)
    found = tuple(frames) if served is None else served
    return Built(name, write(ds, transfer_syntax, tail=pixels), transfer_syntax, found, warns=warns)


def fragmentations() -> Iterator[Built]:
    yield from _cut()
    yield from _tables()
    yield from _wrong_tables()
    yield from _numbers()
    yield from _odd()


def _cut() -> Iterator[Built]:
    """Several fragments for each of several frames."""
    for syntax in MARKED:
        yield compressed(syntax, 3, fragments=4, name=f"3 frames of 4 fragments without a table, {syntax}")
    for extended in (False, True):
        yield compressed(UNMARKED, 3, fragments=3, table=() if extended else None, extended=extended)
    frames = encoded(JPEG, 3)
    uneven = [cut_even(frame, count) for frame, count in zip(frames, (1, 5, 2), strict=True)]
    yield _built("frames of 1, 5 and 2 fragments, without a table", frames, encapsulated(uneven))
    yield _built("frames of 1, 5 and 2 fragments, with a table", frames, encapsulated(uneven, table=None))
    yield compressed(JPEG, 1, fragments=40, name="one frame of many fragments")
    yield compressed(JPEG, 1, fragments=40, table=None, name="one frame of many fragments with a table")


def _tables() -> Iterator[Built]:
    """True tables of both kinds."""
    for syntax in (JPEG, UNMARKED):
        yield compressed(syntax, 4, table=None, name=f"Basic Offset Table, {syntax}")
        yield compressed(syntax, 4, extended=True, name=f"Extended Offset Table, {syntax}")


def _wrong_tables() -> Iterator[Built]:
    """Tables that contradict the fragments: markers tell the frames apart instead."""
    frames = encoded(JPEG, 3)
    pieces = [cut_even(frame, 2) for frame in frames]
    true = offsets(pieces)
    single = [[frame] for frame in frames]
    wrong = "offset table"
    for name, table in {
        "beyond the end": [*true[:2], 1 << 31],
        "not ascending": [true[0], true[2], true[1]],
        "all zero": [0, 0, 0],
        "inside a fragment": [true[0], true[1] + 2, true[2]],
        "not from zero": [offset + 8 for offset in true],
        "the second fragment of a frame": [true[0], true[1] + 8 + len(pieces[1][0]), true[2]],
        "too few": true[:2],
        "too many": [*true, true[2] + 8 + len(pieces[2][0])],
    }.items():
        yield _built(f"wrong table: {name}", frames, encapsulated(pieces, table=table), warns=wrong)
    yield _built(
        "wrong table: all zero, one fragment a frame", frames, encapsulated(single, table=[0, 0, 0]), warns=wrong
    )
    good = encapsulated(pieces, table=None)
    starts = struct.pack("<3Q", 0, 1 << 40, 1 << 63)
    lengths = struct.pack("<3Q", *[1 << 62] * 3)
    extended = b"".join(
        b"\xe0\x7f" + tag + b"OV\0\0" + struct.pack("<I", len(value)) + value
        for tag, value in ((b"\x01\0", starts), (b"\x02\0", lengths))
    )
    yield _built("wrong Extended Offset Table beside a good one", frames, extended + good, warns=wrong)
    ragged = encapsulated(pieces, table=()).replace(item(b""), item(b"\0\0\0"), 1)
    yield _built("a table of three bytes", frames, ragged, warns=wrong)


def _numbers() -> Iterator[Built]:
    """Number of Frames that is missing or wrong."""
    frames = encoded(JPEG, 3)
    single = [[frame] for frame in frames]
    pieces = [cut_even(frame, 2) for frame in frames]
    wrong = "Number of Frames"
    for number in (0, 1, 2, 7):
        stated = "missing" if number == 0 else f"{number} instead of 3"
        yield _built(
            f"Number of Frames {stated}, a fragment each", frames, encapsulated(single), number_of_frames=number,
            warns=wrong,
        )  # fmt: skip
        yield _built(
            f"Number of Frames {stated}, two fragments each", frames, encapsulated(pieces), number_of_frames=number,
            warns=wrong,
        )  # fmt: skip
    picture = [pattern(40, 56, 8, number=number) for number in range(3)]
    for number, there in ((0, 1), (2, 2), (9, 3)):
        name = f"native, Number of Frames {number or 'missing'} instead of 3"
        yield native(name, picture, number_of_frames=number, there=there, warns=wrong)


def _odd() -> Iterator[Built]:
    """Lengths that PS3.5 A.4 forbids, and what surrounds them."""
    frames = encoded(JPEG, 3)
    odd = [frame[:-1] + b"\xd9" if len(frame) % 2 else frame.rstrip(b"\0") for frame in frames]
    odd = [frame if len(frame) % 2 else frame + b"\0" for frame in odd]
    yield _built("fragments of odd length", odd, encapsulated([[frame] for frame in odd]))
    cuts = [[frame[:101], frame[101:]] for frame in odd]
    yield _built("frames of fragments of odd length", odd, encapsulated(cuts))
    padded = [[b"", frame[:100], b"", frame[100:], b""] for frame in frames]
    yield _built("fragments of no length between others, with a table", frames, encapsulated(padded, table=None))
    yield _built("fragments of no length at the ends", frames, encapsulated([[frame, b""] for frame in frames]))
    empty = [frames[0], b"", frames[2]]
    yield _built("a frame of no length", empty, encapsulated([[frame] for frame in empty], table=None))
    one = [frames[0]]
    yield _built("one frame, then a fragment of no length", one, encapsulated([[frames[0], b""]]))
    yield _built("no fragment at all", one, pixel_element(item(b"")), served=(), warns="no fragments")
    yield _built("not even a table", one, pixel_element(b""), served=(), warns="no fragments")
    yield _built(
        "no delimiter at the end", one, encapsulated([[frames[0]]]).removesuffix(DELIMITER), warns="has no end"
    )
    yield _built("elements after the pixel data", one, encapsulated([[frames[0]]]) + _trailing())
    rle = encoded(RLE, 2)
    yield _built("one fragment of no length in RLE", rle, encapsulated([[rle[0], b""], [rle[1]]]), transfer_syntax=RLE)


def _trailing() -> bytes:
    return b"\xfc\xff\xfc\xff" + b"OB\0\0" + struct.pack("<I", 2000) + bytes(2000)


def mislabelled() -> Iterator[Built]:
    """Compressed frames under a native Transfer Syntax, and a codestream that is in no fragment."""
    for syntax, found in FOUND_AS.items():
        bits = ENCODERS[syntax][0]
        frames = encoded(syntax, 2)
        name = f"frames of {syntax} called explicit VR little endian"
        ds = image(name, (40, 56), allocated=8 if bits <= 8 else 16, stored=bits, frames=2)
        tail = encapsulated([[frame] for frame in frames])
        yield Built(name, write(ds, tail=tail), found, tuple(frames), warns="the pixel data is encapsulated")
    (frame,) = encoded(JPEG, 1)
    name = "a codestream without its item"
    ds = image(name, (40, 56), allocated=8)
    ds.PixelData = frame
    yield Built(name, write(ds, JPEG), JPEG, (frame,), warns="compressed but not encapsulated")


FOUND_AS = {
    "1.2.840.10008.1.2.1.98": "1.2.840.10008.1.2.1.98", JPEG: JPEG, "1.2.840.10008.1.2.4.51": "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.55": "1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.4.70": "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.80": "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90": "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.202": "1.2.840.10008.1.2.4.203", "1.2.840.10008.1.2.4.110": "1.2.840.10008.1.2.4.112",
    "1.2.840.10008.1.2.4.111": "1.2.840.10008.1.2.4.112", RLE: RLE,
}  # fmt: skip
"""Transfer Syntax of the frames -> the one that they are taken for: that which allows most."""


# --- Transfer Syntaxes that nobody knows ----------------------------------------------------------------------

PRIVATE = "1.2.826.0.1.3680043.8.498.77.1"


def unknown() -> Iterator[Built]:
    """Private Transfer Syntaxes over explicit VR: native pixel data of unknown layout, and encapsulated."""
    name = "private and native"
    ds = image(name, (4, 6), allocated=16)
    ds.PixelData = pattern(4, 6, 16).astype(">u2").tobytes()
    ds["PixelData"].VR = "OW"
    served = (bytes(ds.PixelData),)
    yield Built(name, write(ds, PRIVATE), PRIVATE, served, warns="not known")
    frames = [bytes([number]) * 50 for number in range(3)]
    for count in (1, 3):
        name = f"private and encapsulated, {count} frames"
        ds = image(name, (4, 6), allocated=16, frames=count)
        tail = encapsulated([[frame] for frame in frames[:count]])
        yield Built(name, write(ds, PRIVATE, tail=tail), PRIVATE, tuple(frames[:count]), warns="not known")
    name = "private without pixel data"
    ds = image(name, (4, 6), allocated=16)
    yield Built(name, write(ds, PRIVATE), PRIVATE, warns="not known")
