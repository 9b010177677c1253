"""Ranges and entity tags, RFC 9110 13 and 14."""

import pytest
from multidict import CIMultiDict

from pacs.dicomweb.conditional import UNSATISFIABLE, byte_range, matches, unchanged

TAG = '"abc-1"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None), ("bytes=0-9", (0, 10)), ("bytes=10-", (10, 100)), ("bytes=-5", (95, 100)), ("bytes=0-0", (0, 1)),
        ("bytes=99-99", (99, 100)), ("bytes=50-1000", (50, 100)), ("bytes=-1000", (0, 100)),
        ("bytes=100-", UNSATISFIABLE),
        ("bytes=100-200", UNSATISFIABLE), ("bytes=-0", UNSATISFIABLE), ("bytes=5-4", None), ("bytes=0-1,3-4", (0, 5)),
        ("bytes=50-59, ,-5,200-", (50, 100)), ("bytes=100-,-0", UNSATISFIABLE), ("bytes=0-1,5-4", None),
        ("bytes=0-1,a", None), ("bytes=,", None), ("bytes=", None), ("bytes=0-1=2", None),
        ("bytes=-", None), ("bytes=a-b", None), ("items=0-1", None), ("", None), ("bytes 0-1", None),
        ("Bytes = 1 - 2 ", (1, 3)), ("bytes=99999999999999999999-", UNSATISFIABLE),
        ("bytes=10-99999999999999999999", (10, 100)), ("bytes=-" + "9" * 8000, (0, 100)),
        ("bytes=" + "0" * 40 + "7-" + "0" * 50 + "8", (7, 9)), ("bytes=99999999999999999999-1", None),
        ("bytes=\u0661-", None),
    ],
)  # fmt: skip
def test_ranges(header: str | None, expected: object) -> None:
    assert byte_range(header, None, TAG, 100) == expected


def test_a_range_of_nothing() -> None:
    assert byte_range("bytes=0-", None, TAG, 0) is UNSATISFIABLE
    assert byte_range("bytes=-1", None, TAG, 0) is UNSATISFIABLE


def test_if_range_needs_the_same_strong_validator() -> None:
    assert byte_range("bytes=0-9", TAG, TAG, 100) == (0, 10)
    assert byte_range("bytes=0-9", '"other"', TAG, 100) is None
    assert byte_range("bytes=0-9", "W/" + TAG, TAG, 100) is None
    assert byte_range("bytes=0-9", "Wed, 21 Oct 2015 07:28:00 GMT", TAG, 100) is None


@pytest.mark.parametrize(
    ("header", "weak", "strong"),
    [(TAG, True, True), ("*", True, True), (f'"x", {TAG}', True, True), (f"W/{TAG}", True, False),
     ('"abc"', False, False),
     ("abc-1", False, False), ("", False, False)],
)  # fmt: skip
def test_entity_tags(header: str, weak: bool, strong: bool) -> None:
    assert matches(header, TAG, weak=True) is weak
    assert matches(header, TAG, weak=False) is strong


def test_a_list_may_take_several_lines() -> None:
    several = CIMultiDict([("If-None-Match", '"x", "y"'), ("if-none-match", TAG)])
    assert unchanged(several, TAG) and not unchanged(several, '"z"')
    assert not unchanged(CIMultiDict(), TAG)
