"""What the first bytes of a frame tell of its encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs import uids
from pacs.dicom import marks
from tests.objects.fragmentation import FOUND_AS, encoded
from tests.objects.images import ENCODERS


@pytest.mark.parametrize(("syntax", "found"), FOUND_AS.items())
def test_a_frame_is_known_by_how_it_begins(syntax: str, found: str) -> None:
    for frame in encoded(syntax, 2):
        told = marks.transfer_syntax(frame)
        assert told == ("" if found == uids.ENCAPSULATED_UNCOMPRESSED else found)
        assert marks.transfer_syntax(memoryview(frame)) == told
        kind = marks.kind(syntax)
        view = memoryview(frame)
        if kind != marks.Kind():
            assert marks.begins(view, 0, len(frame), kind.begins)
        if kind.ends:
            assert marks.ends(view, 0, len(frame)) and not marks.ends(view, 0, len(frame) - 4)


def test_the_header_of_a_jpeg_image_is_searched_to_its_frame() -> None:
    sof = b"\xff\xc3\x00\x0b\x08" + bytes(8)
    before = b"\xff\xd8\xff\xe0\x00\x04ab" + b"\xff\xff\xff\xdb\x00\x03a"
    assert marks.transfer_syntax(before + sof) == uids.JPEG_LOSSLESS
    assert marks.transfer_syntax(before) == "", "cut short"
    assert marks.transfer_syntax(before + b"\xff\xc5" + bytes(20)) == "", "hierarchical"
    assert marks.transfer_syntax(b"\xff\xd8\xff\xe0\x00\x00" * 50) == "", "a length that leads nowhere"


def test_other_bytes_tell_nothing() -> None:
    for data in (b"", b"\xff", b"\xff\xd8", bytes(64), bytes(range(200)), b"%PDF-1.7"):
        assert marks.transfer_syntax(data) == ""


STARTS = [b"", *marks.JPEG, *marks.JPEG_2000, b"\xff\x0a", b"\1\0\0\0\x40\0\0\0"]


@given(st.binary(max_size=200), st.sampled_from(STARTS))
def test_any_bytes_are_one_of_them_or_none(data: bytes, start: bytes) -> None:
    found = marks.transfer_syntax(start + data)
    assert found == "" or uids.transfer_syntax(found).encapsulated


def test_every_compression_that_is_built_has_a_kind() -> None:
    unmarked = {syntax for syntax in ENCODERS if marks.kind(syntax) == marks.Kind()}
    assert unmarked == {uids.ENCAPSULATED_UNCOMPRESSED, uids.DEFLATED_IMAGE_FRAME}
