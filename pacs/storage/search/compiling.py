"""What a search asks for, made into rules: single values and UIDs, words of names, sequences. PS3.4 C.2.2.2

`wildcards.py` and `date_ranges.py` have the other kinds of matching.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from pacs import tags
from pacs.errors import QueryError
from pacs.storage.index import matching
from pacs.storage.index.matching import KEY_TEXT
from pacs.storage.index.search_fields import REQUEST_FIELDS, STUDY_FIELDS, Field, Kind
from pacs.storage.search.date_ranges import both_are_ranges, date_and_time_rule, date_key, time_key
from pacs.storage.search.rules import FIELDS, UNIQUE, Key, Keys, Level, Match, Rule, supported
from pacs.storage.search.wildcards import WILDCARDS, run_lookups, wildcard_key

_POSTED_AS: Final = {tags.MODALITY: tags.MODALITIES_IN_STUDY, tags.SOP_CLASS_UID: tags.SOP_CLASSES_IN_STUDY}
_KIND_OF_VR: Final = {
    "PN": Kind.NAME, "DA": Kind.DATE, "TM": Kind.TIME, "UI": Kind.UID,
    "IS": Kind.NUMBER, "US": Kind.NUMBER, "UL": Kind.NUMBER, "SS": Kind.NUMBER, "SL": Kind.NUMBER,
}  # fmt: skip
_WORD: Final = re.compile(r"[^\s^=,]+")


def compile_rules(matches: Iterable[Match], *, fuzzy: bool = False) -> list[Rule]:
    """The rules that all have to hold. Raises QueryError for a date, time or attribute that cannot be matched."""
    merged: dict[tuple[int, ...], tuple[str, ...]] = {}
    for path, values in matches:
        if not supported(path):
            raise QueryError(f"the attribute {'.'.join(tags.text(tag) for tag in path)} cannot be matched")
        merged[path] = merged.get(path, ()) + values
    asked = {path: values for path, values in merged.items() if not any(map(_universal, values))}
    rules = [date_and_time_rule(asked)] if both_are_ranges(asked) else []
    nested: dict[int, list[Match]] = {}
    for path, values in asked.items():
        level, field = FIELDS[path[0]]
        if field.kind is Kind.SEQUENCE:
            nested.setdefault(path[0], []).append(Match(path[1:], values))
        else:
            rules.append(_rule(level, path[0], field, values, fuzzy=fuzzy))
    rules.extend(_sequence_rule(tag, inner) for tag, inner in nested.items())
    return rules


def _universal(value: str) -> bool:
    """No value or only `*`: PS3.4 C.2.2.2.3."""
    return not value.strip().strip("*")


def _rule(level: Level, tag: int, field: Field, values: tuple[str, ...], *, fuzzy: bool) -> Rule:
    posted = STUDY_FIELDS.get(_POSTED_AS.get(tag, 0), field)
    if posted is field and not field.posted and tag != tags.STUDY_DATE:
        keys = tuple(Key(_key(field, value, fuzzy=fuzzy).test) for value in values)
    else:
        keys = tuple(_key(posted, value, fuzzy=fuzzy) for value in values)
    unique = tuple(value.strip() for value in values) if tag in UNIQUE else ()
    return Rule(level, tag, field.kind, keys, unique=unique)


def _key(field: Field, value: str, *, fuzzy: bool) -> Key:
    value = value[: matching.TEXT]
    match field.kind:
        case Kind.DATE:
            return date_key(field, value)
        case Kind.TIME:
            return time_key(field, value)
        case Kind.NAME if fuzzy and not WILDCARDS.search(value):
            return _fuzzy_key(field, value)
        case Kind.NAME if "=" in value:
            return _groups_key(field, value)
        case Kind.NAME | Kind.TEXT | Kind.EXACT if WILDCARDS.search(value):
            return wildcard_key(field, value)
        case _:
            return _single_key(field, matching.normal(field.kind, value))


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


def _groups_key(field: Field, value: str) -> Key:
    """Each component group of the key matches the same one of a name; an empty one asks for nothing: `=山田*` is any
    name that begins so in ideographs. PS3.5 6.2.1.1"""
    groups = {
        place: _key(field, group, fuzzy=False)
        for place, group in enumerate(value.split("=")) if not _universal(group)
    }  # fmt: skip

    def group_matches(name: str) -> bool:
        have = name.split("=")
        return all(place < len(have) and key.test([have[place]]) for place, key in groups.items())

    def test(values: Sequence[str]) -> bool:
        return any(map(group_matches, values))

    return Key(test, tuple(lookup for key in groups.values() for lookup in key.lookups))


def _fuzzy_key(field: Field, value: str) -> Key:
    """Each word of the key begins a word of the name, in any order. PS3.4 C.2.2.2.1.1 leaves the rule to us."""
    words = _WORD.findall(matching.fold(value))

    def test(values: Sequence[str]) -> bool:
        return any(all(any(have.startswith(word) for have in _WORD.findall(name)) for word in words) for name in values)

    return Key(test, tuple(lookup for word in words for lookup in run_lookups(field, word)))


def _sequence_rule(tag: int, inner: list[Match]) -> Rule:
    """One item has to match all keys given for the sequence. PS3.4 C.2.2.2.6"""
    level, field = FIELDS[tag]
    keys = []
    for path, values in inner:
        posted = REQUEST_FIELDS.get(path[0]) if len(path) == 1 else None
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
    field = REQUEST_FIELDS.get(match.path[0])
    if field is None:
        vr = element.get("vr") if isinstance(element, dict) else None
        field = Field(0, _KIND_OF_VR.get(str(vr), Kind.EXACT), posted=False)
    values = matching.normal_values(field.kind, element)
    return any(_key(field, value, fuzzy=False).test(values) for value in match.values)
