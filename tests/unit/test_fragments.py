"""Which fragments make which frame, where offset tables, markers and numbers agree, and where they do not."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.dicom import fragments, part10
from pacs.dicom.fragments import Layout
from tests.objects.base import data_set, encapsulated, item, pixel_element, write
from tests.objects.fragmentation import MARKED, encoded

JPEG, RLE, JPEG_XL, UNMARKED = (
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.8.1",
)  # fmt: skip
VIDEO = "1.2.840.10008.1.2.4.102.1"

SOI, EOI = b"\xff\xd8\xff\xdb", b"\xff\xd9"


def laid_out(pixels: bytes, stated: int, syntax: str = JPEG) -> tuple[Layout, list[bytes]]:
    """The layout, and its frames joined."""
    file = part10.scan(write(data_set("fragments", "1.2.840.10008.5.1.4.1.1.7", "OT"), syntax, tail=pixels))
    assert file.pixel is not None
    found = fragments.layout(file.data, file.pixel, stated, syntax)
    frames = [b"".join(bytes(file.data[at : at + n]) for at, n in frame) for frame in found.frames]
    # Export writes the fragments in the order of the frames: nothing may be left out, doubled or moved.
    assert [fragment for frame in found.frames for fragment in frame] == list(file.pixel.fragments)
    assert found.frames[:] == list(found.frames) == [found.frames[n - len(frames)] for n in range(len(frames))]
    return found, frames


def jpeg(number: int, length: int = 20) -> bytes:
    """Something with the marks of a JPEG image."""
    return SOI + bytes([number]) * (length - 6) + EOI


def test_one_frame_takes_all_fragments() -> None:
    for count in (1, 2, 9):
        pieces = [bytes([number, 1]) for number in range(count)]
        found, frames = laid_out(encapsulated([pieces]), 1, UNMARKED)
        assert frames == [b"".join(pieces)] and found.apart and not found.warnings


@pytest.mark.parametrize("syntax", MARKED)
@pytest.mark.parametrize("cuts", [1, 2, 7])
def test_real_frames_are_found_by_how_they_begin(syntax: str, cuts: int) -> None:
    images = encoded(syntax, 4)
    pieces = [_cut(image, cuts) for image in images]
    found, frames = laid_out(encapsulated(pieces), 4, syntax)
    assert frames == images and found.apart and not found.warnings


def _cut(image: bytes, count: int) -> list[bytes]:
    step = -(-len(image) // count)
    step += step % 2
    return [image[at : at + step] for at in range(0, len(image), step)]


@pytest.mark.parametrize("syntax", [syntax for syntax in MARKED if syntax not in (JPEG_XL, "1.2.840.10008.1.2.4.111")])
@pytest.mark.parametrize("stated", [1, 2, 3, 11])
def test_the_number_of_real_frames_is_found_when_it_is_not_told(syntax: str, stated: int) -> None:
    images = encoded(syntax, 4)
    found, frames = laid_out(encapsulated([_cut(image, 2) for image in images]), stated, syntax)
    assert frames == images and found.apart
    assert found.warnings == (f"Number of Frames says {stated}, the pixel data has 4",)


@pytest.mark.parametrize("syntax", [JPEG, RLE])
def test_a_frame_with_a_damaged_start_does_not_move_the_others(syntax: str) -> None:
    images = encoded(syntax, 4)
    images[1] = b"\0\0\0" + images[1][3:]
    found, frames = laid_out(encapsulated([_cut(image, 2) for image in images]), 4, syntax)
    assert not found.apart and len(frames) == 8
    assert laid_out(encapsulated([_cut(image, 2) for image in images], table=None), 4, syntax)[1] == images
    assert laid_out(encapsulated([[image] for image in images]), 4, syntax)[1] == images


def test_a_codestream_that_two_bytes_may_begin_is_not_counted_by_them() -> None:
    """FF 0A stands at the start of one fragment in 65,536 by chance."""
    pieces = [b"\xff\x0a12", b"3456", b"\xff\x0a78"]
    found, frames = laid_out(encapsulated([pieces]), 1, JPEG_XL)
    assert frames == [b"".join(pieces)] and not found.warnings


def test_a_start_marker_within_a_frame_is_none() -> None:
    """A thumbnail at the start of a fragment begins before the image around it has ended."""
    pieces = [SOI + b"12", jpeg(1), b"34" + EOI]
    found, frames = laid_out(encapsulated([pieces]), 1)
    assert frames == [b"".join(pieces)] and not found.warnings
    two = [*pieces, jpeg(2)]
    found, frames = laid_out(encapsulated([two]), 2)
    assert frames == [b"".join(pieces), jpeg(2)] and not found.warnings


@pytest.mark.parametrize(("pieces", "believed"), [((2, 2), True), ((1, 3), False)])
def test_a_table_of_another_number_is_believed_where_frames_begin(pieces: tuple[int, int], believed: bool) -> None:
    """None of them ends, so that only the table can tell how many there are."""
    all_of_it = [SOI + b"12", b"3456", SOI + b"78", b"90ab"]
    frames = [all_of_it[: pieces[0]], all_of_it[pieces[0] :]]
    found, joined = laid_out(encapsulated(frames, table=None), 5)
    assert found.apart is believed
    assert joined == ([b"".join(frame) for frame in frames] if believed else all_of_it)


def test_without_marks_a_table_is_all_there_is() -> None:
    pieces = [[b"abcd"], [b"ef", b"gh"], [b"ij"]]
    for extended in (False, True):
        pixels = encapsulated(pieces, table=() if extended else None, extended=extended)
        assert laid_out(pixels, 3, UNMARKED)[1] == [b"abcd", b"efgh", b"ij"]
        found, frames = laid_out(pixels, 5, UNMARKED)
        assert frames == [b"abcd", b"efgh", b"ij"] and "Number of Frames says 5" in found.warnings[0]
    found, frames = laid_out(encapsulated(pieces), 3, UNMARKED)
    assert not found.apart and frames == [b"abcd", b"ef", b"gh", b"ij"]
    assert found.warnings == ("the 3 frames that are announced cannot be told apart in 4 fragments",)


def test_empty_fragments() -> None:
    pieces = [[b"abcd", b""], [b"ef"], [b"", b"gh"]]
    found, frames = laid_out(encapsulated(pieces), 3, UNMARKED)
    assert frames == [b"abcd", b"ef", b"gh"] and not found.warnings
    found, frames = laid_out(encapsulated([[b""], [jpeg(1)], [jpeg(2)]]), 2)
    assert frames == [jpeg(1), jpeg(2)]
    found, frames = laid_out(encapsulated([[b"", b""]]), 1)
    assert frames == [b""]
    nothing = laid_out(pixel_element(item(b"")), 1)[0]
    assert not nothing.frames and not nothing.apart and nothing.warnings == ("the pixel data has no fragments",)


def test_a_video_is_one_stream() -> None:
    found, frames = laid_out(encapsulated([[b"ab"], [b"cd"], [b"ef"]]), 3, VIDEO)
    assert frames == [b"abcdef"] and not found.warnings


def test_a_private_syntax_may_hold_something_known() -> None:
    images = [jpeg(1), jpeg(2)]
    assert laid_out(encapsulated([_cut(image, 2) for image in images]), 2, "1.2.3")[1] == images
    assert laid_out(encapsulated([[b"ab", b"cd"]]), 1, "1.2.3")[1] == [b"abcd"]


@pytest.mark.parametrize(
    "header",
    [
        (1, 64), (3, 64, 70, 80), (15, *range(64, 64 + 30, 2)),
        (0, 64), (16, 64), (2, 64, 64), (2, 64, 60), (1, 65), (1, 64, 0, 5),
    ],
)  # fmt: skip
def test_headers_of_rle(header: tuple[int, ...]) -> None:
    proper = struct.pack("<16I", *header, *[0] * (16 - len(header))) + bytes(10)
    other = struct.pack("<16I", 1, 64, *[0] * 14) + bytes(6)
    found, frames = laid_out(encapsulated([[other, b"12"], [proper, b"34"]]), 2, RLE)
    is_header = header in ((1, 64), (3, 64, 70, 80), (15, *range(64, 94, 2)))
    assert found.apart == is_header
    if is_header:
        assert frames == [other + b"12", proper + b"34"]


# --- any of it ------------------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.binary(max_size=12), min_size=1, max_size=3), max_size=6),
    st.lists(st.integers(0, 1 << 32), max_size=8),
    st.lists(st.integers(0, 1 << 64), max_size=8),
    st.integers(1, 9),
    st.sampled_from([JPEG, RLE, JPEG_XL, UNMARKED, VIDEO, "1.2.3", "1.2.840.10008.1.2.1"]),
)
def test_any_tables_over_any_fragments(
    frames: list[list[bytes]], table: list[int], extended: list[int], stated: int, syntax: str
) -> None:
    """Every fragment is in one frame, in order (`laid_out` asserts it), and what is said to be apart is not empty."""
    basic = [offset % (1 << 32) for offset in table]
    before = struct.pack(f"<{len(extended)}Q", *[offset % (1 << 64) for offset in extended])
    tables = b"\xe0\x7f\x01\x00OV\0\0" + struct.pack("<I", len(before)) + before
    found, joined = laid_out(tables + encapsulated(frames, table=basic), stated, syntax)
    assert (
        not found.apart
        or (len(joined) == stated) == (not any("Number of" in text for text in found.warnings))
        or (syntax == VIDEO)
    )
    assert found.apart or found.warnings


@given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.booleans(), st.booleans())
def test_true_tables_and_true_marks_give_the_true_frames(counts: list[int], table: bool, extended: bool) -> None:
    images = [jpeg(number, 40) for number in range(len(counts))]
    pieces = [_cut(image, count) for image, count in zip(images, counts, strict=True)]
    found, frames = laid_out(encapsulated(pieces, table=None if table else (), extended=extended), len(images))
    assert frames == images and not found.warnings


@pytest.mark.parametrize(("stated", "syntax"), [(20_000, JPEG), (1, JPEG), (7, RLE)])
def test_what_all_of_itcost_in_memory(stated: int, syntax: str) -> None:
    """Eight bytes of a file can be a fragment, eight more an entry of a table: no objects are kept for either."""
    count = 20_000
    pixels = encapsulated([[b""]] * count, table=None, extended=True)
    file = write(data_set("fragments", "1.2.840.10008.5.1.4.1.1.7", "OT"), syntax, tail=pixels)
    tracemalloc.start()
    try:
        scanned = part10.scan(file)
        assert scanned.pixel is not None and len(scanned.pixel.fragments) == count
        held, _ = tracemalloc.get_traced_memory()
        fragments.layout(scanned.data, scanned.pixel, stated, syntax)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 45 * count and peak < 120 * count
