"""The query of a search: parameters -> keys, fields to return, and the page wanted (PS3.18 8.3.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

from pacs import tags
from pacs.dicom import dictionary
from pacs.errors import QueryError
from pacs.storage.search import Match, supported, takes_lists

MAX_LENGTH: Final = 32 << 10
MAX_PARAMETERS: Final = 500

_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}", re.ASCII)
_KEYWORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*", re.ASCII)
_OTHER_PARAMETERS: Final = ("accept", "charset", "accept-charset")

FUZZY = "fuzzymatching"
MULTIPLE = "multiplevaluematching"
EMPTY = "emptyvaluematching"


@dataclass(slots=True)
class Query:
    """What a search asks for beside its resource."""

    matches: tuple[Match, ...] = ()
    include: frozenset[int] = frozenset()
    """Attributes to return beyond the usual ones: those of `includefield`, and those matched."""
    include_all: bool = False
    limit: int | None = None
    offset: int = 0
    fuzzy: bool = False
    warnings: list[str] = field(default_factory=list)
    """What of the query has been ignored, for Warning headers."""


def parse(text: str) -> Query:
    """The query string `text` (percent-encoded, without `?`). Raises QueryError.

    A parameter that is not known, and an attribute that the index does not keep, are ignored with a warning: a
    search that finds more than asked can be narrowed by its client, a refused one cannot be used at all.
    """
    if len(text) > MAX_LENGTH:
        raise QueryError(f"the query is longer than {MAX_LENGTH} characters")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="replace")
    except ValueError:
        raise QueryError(f"the query has more than {MAX_PARAMETERS} parameters") from None
    query = Query()
    keys: list[tuple[tuple[int, ...], str]] = []
    multiple = False
    ignored: list[str] = []
    for name, value in pairs:
        reserved = name.lower()
        if reserved == "limit":
            query.limit = _unsigned(name, value)
        elif reserved == "offset":
            query.offset = _unsigned(name, value)
        elif reserved == "includefield":
            _include(query, value, ignored)
        elif reserved == FUZZY:
            query.fuzzy = _boolean(name, value)
        elif reserved == MULTIPLE:
            multiple = _boolean(name, value)
        elif reserved == EMPTY:
            if _boolean(name, value):
                query.warnings.append(
                    "The emptyvaluematching parameter is not supported. Empty Value Matching has not been performed."
                )
        elif reserved not in _OTHER_PARAMETERS:
            path = attribute(name)
            if path is None or not supported(path):
                ignored.append(name)
            else:
                keys.append((path, value))
    query.matches = tuple(Match(path, _values(path, value, multiple)) for path, value in keys)
    query.include |= {path[0] for path, _ in keys}
    if ignored:
        names = ", ".join(dict.fromkeys(re.sub(r"[^\w.-]", "?", name, flags=re.ASCII)[:64] for name in ignored[:10]))
        query.warnings.append(f"These parameters are not supported and have been ignored: {names}")
    return query


@lru_cache(maxsize=1024)
def attribute(name: str) -> tuple[int, ...] | None:
    """The tags of `00100010`, `PatientName` or a path of such joined by dots; None for a word that is no keyword.

    Raises QueryError for what is neither a tag nor a word. PS3.18 8.3.4.1
    """
    path = []
    known = True
    for part in name.split("."):
        if _TAG.fullmatch(part):
            path.append(int(part, 16))
            continue
        if not _KEYWORD.fullmatch(part) and (part[:1].isdigit() or not part or "." in name):
            raise QueryError(f"{name[:64]!r} is not a tag of eight hexadecimal digits, nor a keyword")
        found = dictionary.tag_for_keyword(part)
        known = known and found is not None
        path.append(found or 0)
    return tuple(path) if known else None


def _values(path: tuple[int, ...], value: str, multiple: bool) -> tuple[str, ...]:
    if takes_lists(path):
        values: Iterable[str] = re.split(r"[,\\]", value)
    elif multiple:
        values = value.split("\\")
    else:
        return (value,)
    # `1.2,` names one UID; an empty item in a list must not make it match everything.
    return tuple(item for item in values if item.strip()) or ("",)


def _include(query: Query, value: str, ignored: list[str]) -> None:
    for name in filter(None, (part.strip() for part in value.split(","))):
        if name.lower() == "all":
            query.include_all = True
            continue
        path = attribute(name)
        if path is None:
            ignored.append(name)
        else:
            query.include |= {path[0]}


def _unsigned(name: str, value: str) -> int:
    digits = value.strip()
    if not (digits.isascii() and digits.isdigit()):
        raise QueryError(f"{name} is {value[:20]!r}, not a number from 0 on")
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) <= 18 else 10**18


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false", ""):
        raise QueryError(f"{name} is {value[:20]!r}, not true or false")
    return value.lower() == "true"


# Beyond what the index keeps, `includefield` reads the stored Data Set of an instance: these belong to its study
# or series (PS3.3 C.7.1.1, C.7.2, C.7.3.1, C.7.5.1), everything else to the instance.
STUDY_EXTRA: Final = frozenset(
    {
        0x00080051, 0x00081032, 0x00081048, 0x00081060, 0x00081080, 0x00081110, 0x00081120,
        0x00100022, 0x00100024, 0x00100032, 0x00100033, 0x00101000, 0x00101001, 0x00101002, 0x00101005,
        0x00101010, 0x00101020, 0x00101021, 0x00101030, 0x00101040, 0x00102000, 0x00102110, 0x00102154, 0x00102160,
        0x00102180, 0x001021A0, 0x001021B0, 0x001021C0, 0x001021D0, 0x001021F0, 0x00102201, 0x00102203, 0x00104000,
        0x00120062, 0x00120063, 0x00321034, 0x00380010, 0x00400012,
    }
)  # fmt: skip
SERIES_EXTRA: Final = frozenset(
    {
        0x00080070, 0x00080080, 0x00080081, 0x00080082, 0x00081010, 0x00081040, 0x0008103F, 0x00081050, 0x00081052,
        0x00081070, 0x00081072, 0x00081090, 0x00081111, 0x00081250, 0x00181000, 0x00181020, 0x00181030, 0x00181200,
        0x00181201, 0x00185100, 0x00200052, 0x00200060, 0x00201040, 0x00280108, 0x00280109, 0x00400241, 0x00400242,
        0x00400243, 0x00400250, 0x00400251, 0x00400253, 0x00400254, 0x00400260, 0x00400280,
    }
)  # fmt: skip
INDEXED: Final = frozenset(
    {*tags.STUDY_TAGS, *tags.SERIES_TAGS, *tags.INSTANCE_TAGS, tags.MODALITIES_IN_STUDY, tags.SOP_CLASSES_IN_STUDY}
)
