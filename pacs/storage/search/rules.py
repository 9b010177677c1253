"""The rules of a search: what one attribute has to be, and which postings nominate the studies in which it is.

`compiling.py` makes them of what is asked for. A rule tests the values of one attribute (or of the items of one
sequence), and says which postings nominate studies for it, if any: see `matching.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias

from pacs import tags
from pacs.storage.index import matching
from pacs.storage.index.search_fields import INSTANCE_FIELDS, SERIES_FIELDS, STUDY_FIELDS, Field, Kind

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
        field = STUDY_FIELDS.get(self.tag)
        return field if field is not None and field.trigrams else None

    def text_test(self) -> TextTest:
        """Tests what `texts` holds of a study."""
        tests = [key.within or decoded(key.test) for key in self.keys]
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
    **{tag: (Level.STUDY, field) for tag, field in STUDY_FIELDS.items()},
    **{tag: (Level.SERIES, field) for tag, field in SERIES_FIELDS.items()},
    **{tag: (Level.INSTANCE, field) for tag, field in INSTANCE_FIELDS.items()},
}
UNIQUE: Final = (tags.STUDY_INSTANCE_UID, tags.SERIES_INSTANCE_UID, tags.SOP_INSTANCE_UID)
# The sort key holds one date and one time, so only the first ones count (their multiplicity is 1 anyway).
_FIRST_VALUE: Final = (tags.STUDY_DATE, tags.STUDY_TIME)
DATE_AND_TIME: Final = 0
"""Stands for a tag: Study Date and Study Time as one value."""


def supported(path: tuple[int, ...]) -> bool:
    """Whether the index keeps the attribute at `path`, so that it can be matched."""
    known = FIELDS.get(path[0]) if path else None
    return known is not None and (len(path) == 1 or known[1].kind is Kind.SEQUENCE)


def takes_lists(path: tuple[int, ...]) -> bool:
    """Whether values separated by `,` or `\\` are alternatives: UIDs (PS3.4 C.2.2.2.2), and codes, which can
    hold neither character."""
    return path[-1] in (
        *UNIQUE, tags.SOP_CLASS_UID, tags.SOP_CLASSES_IN_STUDY, tags.MODALITY, tags.MODALITIES_IN_STUDY,
        tags.PATIENT_SEX, tags.BODY_PART_EXAMINED,
    )  # fmt: skip


def decoded(test: Test) -> TextTest:
    """`test` for values as `texts` holds them."""
    return lambda text: test(text.decode().split("\0") if text else ())
