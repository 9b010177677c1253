"""Range matching of dates and times, alone or both as one. PS3.4 C.2.2.2.5"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pacs import tags
from pacs.errors import QueryError
from pacs.storage.index import matching
from pacs.storage.index.search_fields import Field, Kind
from pacs.storage.search.rules import DATE_AND_TIME, Days, Key, Level, Range, Rule, Test

_LATEST: Final = "235960.999999"


def _bounds(kind: Kind, value: str) -> tuple[str, str] | None:
    """First and last value of a range, "" where it is open; None when it is no range. PS3.4 C.2.2.2.5"""
    low, dash, high = value.partition("-")
    if not dash:
        return None
    if kind is Kind.DATE:
        bounds = matching.normal_date(low.strip()), matching.normal_date(high.strip())
    else:
        bounds = matching.normal_time(low.strip()), matching.normal_time(high.strip(), _LATEST)
    if bool(bounds[0]) != bool(low.strip()) or bool(bounds[1]) != bool(high.strip()) or not any(bounds):
        raise QueryError(f"{value!r} is not a range of {'dates' if kind is Kind.DATE else 'times'}")
    return bounds


def _within(low: str, high: str) -> Test:
    def test(values: Sequence[str]) -> bool:
        return any(low <= value and (not high or value <= high) for value in values)

    return test


def date_key(field: Field, value: str) -> Key:
    """A date or a range of them. Raises QueryError."""
    bounds = _bounds(Kind.DATE, value)
    if bounds is None:
        day = matching.normal_date(value.strip())
        if not day:
            raise QueryError(f"{value!r} is not a date")
        bounds = day, day
    low, high = bounds
    if not field.posted:
        return Key(_within(low, high), (_days(low, high),), proven=True)
    first = matching.exact_key(field, low)
    return Key(_within(low, high), (Range(first, matching.exact_key(field, high or "9") + b"\xff"),), proven=True)


def _days(low: str, high: str, low_time: str = "", high_time: str = "") -> Days:
    """Sort keys fall as dates rise, so the bounds change places. An open beginning excludes the undated."""
    first = matching.moment(low or "00000101", low_time)
    last = matching.moment(high or "99991231", high_time or _LATEST)
    return Days(matching.sort_prefix(last), _after_prefix(matching.sort_prefix(first)))


def _after_prefix(prefix: bytes) -> bytes:
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")


def time_key(field: Field, value: str) -> Key:
    """A time or a range of them. Raises QueryError."""
    bounds = _bounds(Kind.TIME, value)
    if bounds is None:
        at = matching.normal_time(value.strip())
        if not at:
            raise QueryError(f"{value!r} is not a time")
        bounds = at, at
    low, high = bounds
    if not field.posted:
        return Key(_within(low, high))
    first = matching.exact_key(field, low[:4])
    return Key(_within(low, high), (Range(first, matching.exact_key(field, high[:4] or "9") + b"\xff"),))


def both_are_ranges(asked: Mapping[tuple[int, ...], tuple[str, ...]]) -> bool:
    """Whether `date_and_time_rule` is the one for Study Date and Study Time."""
    date, time = asked.get((tags.STUDY_DATE,), ()), asked.get((tags.STUDY_TIME,), ())
    return len(date) == len(time) == 1 and "-" in date[0] and "-" in time[0]


def date_and_time_rule(asked: dict[tuple[int, ...], tuple[str, ...]]) -> Rule:
    """One rule for a range of Study Date with a range of Study Time: from the first moment to the last, not the same
    hours of each day. Takes both out of `asked`. PS3.4 C.2.2.2.5.4"""
    dates = _bounds(Kind.DATE, asked.pop((tags.STUDY_DATE,))[0])
    times = _bounds(Kind.TIME, asked.pop((tags.STUDY_TIME,))[0])
    assert dates is not None
    assert times is not None
    low = dates[0] and dates[0] + (times[0] or "000000.000000")
    high = dates[1] and dates[1] + (times[1] or _LATEST)
    days = _days(*dates, dates[0] and times[0], dates[1] and times[1])
    return Rule(Level.STUDY, DATE_AND_TIME, Kind.EXACT, (Key(_within(low, high), (days,)),))
