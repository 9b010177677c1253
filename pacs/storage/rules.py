"""Attribute matching: what a key means, and whether the values of an entity satisfy it (PS3.4 C.2.2.2).

`compile_rules` turns the matches of a search into rules. A rule tests the values of one attribute (or of the items
of one sequence), and says which postings nominate studies for it, if any: see `storage/matching.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias

from pacs import tags
from pacs.errors import QueryError
from pacs.storage import matching
from pacs.storage.matching import END, KEY_TEXT, START, Field, Kind

Test: TypeAlias = Callable[[Sequence[str]], bool]
TextTest: TypeAlias = Callable[[bytes], bool]
"""Takes the values of a study's text as they lie in the index: UTF-8, 0 between them."""


class Level(IntEnum):
    """The three levels of a search."""

    STUDY = 0
    SERIES = 1
    INSTANCE = 2


class Match(NamedTuple):
    """One key of a search: an attribute, or one inside the items of a sequence, and the values asked for: any of
    them. An empty value matches everything."""

    path: tuple[int, ...]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keys:
    """Postings under exactly these keys: studies that have any of them."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """Postings under every key from `low` to `high` (not included) whose text is accepted."""

    low: bytes
    high: bytes
    accept: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class Days:
    """Studies whose sort key lies from `low` to `high` (not included): a range of study dates."""

    low: bytes
    high: bytes


Lookup: TypeAlias = Keys | Range | Days


@dataclass(frozen=True, slots=True)
class Key:
    """What one value of a match asks for."""

    test: Test
    lookups: tuple[Lookup, ...] = ()
    """All of them nominate every study that can match; none: every study is a candidate."""
    proven: bool = False
    """What the lookups nominate does match: at the study's level no test is needed."""
    values: Range | None = None
    """Postings of whole values that prove a match too. Where they are few they take the place of the lookups."""
    within: TextTest | None = None
    """The same as `test` for values as `texts` holds them, where that is cheaper."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One attribute that has to match. Any of `keys` will do."""

    level: Level
    tag: int
    kind: Kind
    keys: tuple[Key, ...]
    items: Callable[[Any], bool] | None = None
    """For a sequence: tests its decoded element instead."""
    unique: tuple[str, ...] = ()
    """The UIDs asked for, when the attribute is the UID of a level."""

    @property
    def text_field(self) -> Field | None:
        """The field in whose `texts` the values of a study lie, if they do."""
        field = matching.STUDY_FIELDS.get(self.tag)
        return field if field is not None and field.trigrams else None

    def text_test(self) -> TextTest:
        """Tests what `texts` holds of a study."""
        tests = [key.within or _decoded(key.test) for key in self.keys]
        return tests[0] if len(tests) == 1 else lambda text: any(test(text) for test in tests)

    def matches(self, element: Any) -> bool:
        """Whether a decoded DICOM JSON element satisfies this rule."""
        if self.items is not None:
            return self.items(element)
        return self.accepts(matching.normal_values(self.kind, element))

    def accepts(self, values: Sequence[str]) -> bool:
        """Whether (normal) values satisfy this rule."""
        if self.tag in _FIRST_VALUE:
            values = values[:1]
        return any(key.test(values) for key in self.keys)


FIELDS: Final[dict[int, tuple[Level, Field]]] = {
    **{tag: (Level.STUDY, field) for tag, field in matching.STUDY_FIELDS.items()},
    **{tag: (Level.SERIES, field) for tag, field in matching.SERIES_FIELDS.items()},
    **{tag: (Level.INSTANCE, field) for tag, field in matching.INSTANCE_FIELDS.items()},
}
_POSTED_AS: Final = {tags.MODALITY: tags.MODALITIES_IN_STUDY, tags.SOP_CLASS_UID: tags.SOP_CLASSES_IN_STUDY}
_UNIQUE: Final = (tags.STUDY_INSTANCE_UID, tags.SERIES_INSTANCE_UID, tags.SOP_INSTANCE_UID)
# The sort key holds one date and one time, so only the first ones count (their multiplicity is 1 anyway).
_FIRST_VALUE: Final = (tags.STUDY_DATE, tags.STUDY_TIME)
_WILDCARDS: Final = re.compile(r"[*?]")
_LATEST: Final = "235960.999999"
_KIND_OF_VR: Final = {
    "PN": Kind.NAME, "DA": Kind.DATE, "TM": Kind.TIME, "UI": Kind.UID,
    "IS": Kind.NUMBER, "US": Kind.NUMBER, "UL": Kind.NUMBER, "SS": Kind.NUMBER, "SL": Kind.NUMBER,
}  # fmt: skip


def supported(path: tuple[int, ...]) -> bool:
    """Whether the index keeps the attribute at `path`, so that it can be matched."""
    known = FIELDS.get(path[0]) if path else None
    return known is not None and (len(path) == 1 or known[1].kind is Kind.SEQUENCE)


def takes_lists(path: tuple[int, ...]) -> bool:
    """Whether values separated by `,` or `\\` are alternatives: UIDs (PS3.4 C.2.2.2.2), and codes, which can
    hold neither character."""
    return path[-1] in (
        *_UNIQUE, tags.SOP_CLASS_UID, tags.SOP_CLASSES_IN_STUDY, tags.MODALITY, tags.MODALITIES_IN_STUDY,
        tags.PATIENT_SEX, tags.BODY_PART_EXAMINED,
    )  # fmt: skip


def compile_rules(matches: Iterable[Match], *, fuzzy: bool = False) -> list[Rule]:
    """The rules that all have to hold. Raises QueryError for a date, time or attribute that cannot be matched."""
    merged: dict[tuple[int, ...], tuple[str, ...]] = {}
    for path, values in matches:
        if not supported(path):
            raise QueryError(f"the attribute {'.'.join(tags.text(tag) for tag in path)} cannot be matched")
        merged[path] = merged.get(path, ()) + values
    asked = {path: values for path, values in merged.items() if not any(_universal(path, v) for v in values)}
    rules = [_combined(asked)] if _both_are_ranges(asked) else []
    nested: dict[int, list[Match]] = {}
    for path, values in asked.items():
        level, field = FIELDS[path[0]]
        if field.kind is Kind.SEQUENCE:
            nested.setdefault(path[0], []).append(Match(path[1:], values))
        else:
            rules.append(_rule(level, path[0], field, values, fuzzy=fuzzy))
    rules.extend(_sequence_rule(tag, inner) for tag, inner in nested.items())
    return rules


def _universal(path: tuple[int, ...], value: str) -> bool:
    """No value or only `*`: PS3.4 C.2.2.2.3."""
    return not value.strip().strip("*")


def _rule(level: Level, tag: int, field: Field, values: tuple[str, ...], *, fuzzy: bool) -> Rule:
    posted = matching.STUDY_FIELDS.get(_POSTED_AS.get(tag, 0), field)
    if posted is field and not field.posted and tag != tags.STUDY_DATE:
        keys = tuple(Key(_key(field, value, fuzzy=fuzzy).test) for value in values)
    else:
        keys = tuple(_key(posted, value, fuzzy=fuzzy) for value in values)
    unique = tuple(value.strip() for value in values) if tag in _UNIQUE else ()
    return Rule(level, tag, field.kind, keys, unique=unique)


def _key(field: Field, value: str, *, fuzzy: bool) -> Key:
    value = value[: matching.TEXT]
    match field.kind:
        case Kind.DATE:
            return _date_key(field, value)
        case Kind.TIME:
            return _time_key(field, value)
        case Kind.NAME if fuzzy and not _WILDCARDS.search(value):
            return _fuzzy_key(field, value)
        case Kind.NAME | Kind.TEXT | Kind.EXACT if _WILDCARDS.search(value):
            return _wildcard_key(field, value)
        case _:
            return _single_key(field, matching.normal(field.kind, value))


# --- single values, wildcards, names --------------------------------------------------------------------------


def _single_key(field: Field, wanted: str) -> Key:
    """PS3.4 C.2.2.2.1"""
    if field.kind is Kind.NAME:

        def test(values: Sequence[str]) -> bool:
            return any(wanted in matching.name_texts(value) for value in values)
    else:

        def test(values: Sequence[str]) -> bool:
            return wanted in values

    key = matching.exact_key(field, wanted)
    return Key(test, (Keys((key,)),), proven=len(key) < KEY_TEXT)


def _wildcard_key(field: Field, value: str) -> Key:
    """`*` is any text, `?` any character. PS3.4 C.2.2.2.4"""
    pattern = value.strip() if field.kind is Kind.EXACT else matching.fold(value.strip())
    fullmatch = re.compile(_expression(pattern), re.DOTALL).fullmatch

    def accept(text: str) -> bool:
        return fullmatch(text) is not None

    if field.kind is Kind.NAME:

        def test(values: Sequence[str]) -> bool:
            return any(accept(text) for value in values for text in matching.name_texts(value))
    else:

        def test(values: Sequence[str]) -> bool:
            return any(map(accept, values))

    if not field.trigrams:
        # Codes have few distinct values: each key is tested instead of each study.
        prefix = matching.exact_key(field, _WILDCARDS.split(pattern, maxsplit=1)[0])
        return Key(test, (Range(prefix, _after(prefix), accept),))
    runs = _runs(pattern)
    proven = len(runs) == 1 and len(runs[0]) <= 3 and "?" not in pattern
    lookups = tuple(lookup for run in runs for lookup in _run_lookups(field, run))
    begin = matching.exact_key(field, pattern[:-1])
    values = None
    # A question mark there would be of a character that has no place in a key.
    if not proven and pattern[-1] == "*" and b"?" not in begin and b"*" not in begin and len(begin) < KEY_TEXT:
        values = Range(begin, _after(begin))
    return Key(test, lookups, proven, values, _within_text(field, pattern, test))


def _decoded(test: Test) -> TextTest:
    return lambda text: test(text.decode().split("\0") if text else ())


def _within_text(field: Field, pattern: str, test: Test) -> TextTest:
    """For `x*`, `*x` and `*x*`: looks for x where a value, or a component group of a name, may begin or end. Other
    patterns are tested where all their literal texts are."""
    slow = _decoded(test)
    try:
        literals = [part.encode() for part in _WILDCARDS.split(pattern) if part]
    except UnicodeEncodeError:
        return slow
    if len(literals) != 1 or "?" in pattern or not (pattern[0] == "*" or pattern[-1] == "*"):
        whole = pattern[0] == pattern[-1] == "*" and "?" not in pattern
        return lambda text: _in_order(text, literals) and ((whole and b"\0" not in text) or slow(text))
    (wanted,) = literals
    if pattern[0] == pattern[-1]:
        return lambda text: wanted in text
    borders = (b"\0", b"=") if field.kind is Kind.NAME and b"=" not in wanted else (b"\0",)
    if pattern[0] == "*":
        ends = tuple(wanted + border for border in borders)
        return lambda text: text.endswith(wanted) or any(end in text for end in ends)
    begins = tuple(border + wanted for border in borders)
    return lambda text: text.startswith(wanted) or any(begin in text for begin in begins)


def _in_order(text: bytes, literals: Iterable[bytes]) -> bool:
    at = 0
    for literal in literals:
        at = text.find(literal, at)
        if at < 0:
            return False
        at += len(literal)
    return True


def _expression(pattern: str) -> str:
    """A regular expression that takes each text between `*` where it first appears, and never tries another place:
    plain `.*` would let a client's pattern run for years."""
    first, *rest = ("".join("." if char == "?" else re.escape(char) for char in part) for part in pattern.split("*"))
    if not rest:
        return first
    return first + "".join(f"(?>.*?{part})" for part in rest[:-1] if part) + ".*" + rest[-1]


def _runs(pattern: str) -> list[str]:
    """The literal texts between wildcards; the first and last with START and END where they are anchored."""
    runs = _WILDCARDS.split(f"{START}{pattern}{END}")
    runs[-1] += END if len(runs[-1]) > 1 else ""
    return [run for run in runs if run.strip(START + END)]


def _run_lookups(field: Field, run: str) -> list[Lookup]:
    if len(run) < 3:
        prefix = matching.trigram_key(field, run)
        return [Range(prefix, _after(prefix))]
    return [Keys((matching.trigram_key(field, run[i : i + 3]),)) for i in range(len(run) - 2)]


def _after(prefix: bytes) -> bytes:
    """The smallest key greater than all that begin with `prefix` (which never ends in FF: it is UTF-8 or a code)."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


_WORD: Final = re.compile(r"[^\s^=,]+")


def _fuzzy_key(field: Field, value: str) -> Key:
    """Each word of the key begins a word of the name, in any order. PS3.4 C.2.2.2.1.1 leaves the rule to us."""
    words = _WORD.findall(matching.fold(value))

    def test(values: Sequence[str]) -> bool:
        return any(all(any(have.startswith(word) for have in _WORD.findall(name)) for word in words) for name in values)

    return Key(test, tuple(lookup for word in words for lookup in _run_lookups(field, word)))


# --- dates and times ------------------------------------------------------------------------------------------


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


def _date_key(field: Field, value: str) -> Key:
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


def _time_key(field: Field, value: str) -> Key:
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


def _both_are_ranges(asked: Mapping[tuple[int, ...], tuple[str, ...]]) -> bool:
    date, time = asked.get((tags.STUDY_DATE,), ()), asked.get((tags.STUDY_TIME,), ())
    return len(date) == len(time) == 1 and "-" in date[0] and "-" in time[0]


def _combined(asked: dict[tuple[int, ...], tuple[str, ...]]) -> Rule:
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


DATE_AND_TIME: Final = 0
"""Stands for a tag: Study Date and Study Time as one value."""


# --- sequences ------------------------------------------------------------------------------------------------


def _sequence_rule(tag: int, inner: list[Match]) -> Rule:
    """One item has to match all keys given for the sequence. PS3.4 C.2.2.2.6"""
    level, field = FIELDS[tag]
    keys = []
    for path, values in inner:
        posted = matching.REQUEST_FIELDS.get(path[0]) if len(path) == 1 else None
        if posted is not None:
            found = [_key(posted, value, fuzzy=False) for value in values]
            keys.append(Key(lambda _: True, found[0].lookups) if len(found) == 1 else Key(lambda _: True))
    lookups = tuple(lookup for key in keys for lookup in key.lookups)
    return Rule(level, tag, field.kind, (Key(lambda _: True, lookups),), items=_items_test(inner))


def _items_test(inner: list[Match]) -> Callable[[Any], bool]:
    if any(not path for path, _ in inner):
        raise QueryError("a sequence is matched by an attribute of its items, not by itself")

    def test(element: Any) -> bool:
        items = element.get("Value") if isinstance(element, dict) else None
        if not isinstance(items, list):
            return False
        return any(
            isinstance(item, dict) and all(_item_matches(item, match) for match in inner)
            for item in items[: matching.VALUES]
        )

    return test


def _item_matches(item: Mapping[str, Any], match: Match) -> bool:
    element = item.get(tags.text(match.path[0]))
    if len(match.path) > 1:
        return _items_test([Match(match.path[1:], match.values)])(element)
    field = matching.REQUEST_FIELDS.get(match.path[0])
    if field is None:
        vr = element.get("vr") if isinstance(element, dict) else None
        field = Field(0, _KIND_OF_VR.get(str(vr), Kind.EXACT), posted=False)
    values = matching.normal_values(field.kind, element)
    return any(_key(field, value, fuzzy=False).test(values) for value in match.values)
