"""Postings: what of an entry can be looked up, and under which keys (PS3.4 C.2.2.2).

A posting says that a study may match: `value` is the study's sort key, so every list of postings is in the order in
which a search answers, newest study first, and lists intersect by seeking. Trigram postings serve `*x*`.
Postings only nominate studies: `storage/search/rules.py` has the last word on the attributes themselves.

    database    key                                             value
    order       sort key                                        Study Instance UID
    postings    field code (1 byte), kind (1 byte), text        sort key (DUPSORT, DUPFIXED: 12 bytes packed)
    texts       field code (1 byte), sort key                   the normal values of a study's text, 0 between them
    days        first three bytes of sort keys: half a day      number of studies that have them (u32)

`kind` is `=` for a whole value and `3` for a trigram. Texts are cut at KEY_TEXT bytes. `texts` lets a wildcard be
tested without reading the study's entry: a tenth of the work, on neighbouring pages. `days` leads to a page far behind
the first one.
"""

from __future__ import annotations

import hashlib
import re
import struct
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import lmdb
import msgspec

from pacs import tags
from pacs.storage.index.search_fields import REQUEST_FIELDS, SERIES_FIELDS, STUDY_FIELDS, Field, Kind
from pacs.storage.model import SeriesEntry, StudyEntry

ORDER: Final = b"order"
POSTINGS: Final = b"postings"
TEXTS: Final = b"texts"
DAYS: Final = b"days"
DATABASES: Final = (ORDER, POSTINGS, TEXTS, DAYS)

SORT_KEY: Final = 12
DAY: Final = 3
"""Bytes of a sort key that `days` counts by."""
COUNT: Final = struct.Struct("<I")
TEXT: Final = 256
"""Characters of a value that take part in matching. No VR that the index keeps is longer when it is valid."""
VALUES: Final = 64
"""Values of an attribute that take part in matching."""
KEY_TEXT: Final = 400
"""Bytes of text in a key: LMDB allows 511 to the whole."""

START: Final = "\x02"
END: Final = "\x03"
"""Stand before and after a value in trigrams, so that `x*` is looked up as cheaply as `*x*`."""


class Posting(NamedTuple):
    """One row of a named LMDB database."""

    database: bytes
    key: bytes
    value: bytes


# --- values ---------------------------------------------------------------------------------------------------

_CONTROLS: Final = dict.fromkeys(range(0x20), " ")
_ACCENTS: Final = dict.fromkeys(range(0x300, 0x370))
_DATE: Final = re.compile(r"([0-9]{4})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])", re.ASCII)
_TIME: Final = re.compile(r"([01][0-9]|2[0-3])(?:([0-5][0-9])(?:([0-5][0-9]|60)(?:\.([0-9]{1,6}))?)?)?", re.ASCII)


def fold(text: str) -> str:
    """`text` without the difference of case, accents and width. Marks of other scripts than Latin, Greek and
    Cyrillic change the letter, and stay."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text).translate(_ACCENTS)
    return unicodedata.normalize("NFC", apart.casefold())


def normal_name(text: str) -> str:
    """A PN value with what PS3.5 6.2.1 calls insignificant taken away: trailing delimiters, padding."""
    groups = ("^".join(part.strip() for part in group.split("^")).rstrip("^") for group in fold(text).split("="))
    return "=".join(groups).rstrip("=")


def normal_date(text: str) -> str:
    """YYYYMMDD, also of the older YYYY.MM.DD; "" if it is no date. PS3.5 6.2"""
    digits = text.replace(".", "") if len(text) == 10 else text
    return digits if _DATE.fullmatch(digits) else ""


def normal_time(text: str, fill: str = "000000.000000") -> str:
    """HHMMSS.FFFFFF, what is not given taken from `fill`; also of the older HH:MM:SS; "" if it is no time."""
    plain = text.replace(":", "")
    return plain + fill[len(plain) :] if _TIME.fullmatch(plain) else ""


def normal_number(text: str) -> str:
    """An integer in its shortest form; other numbers stay as they are."""
    try:
        return str(int(text)) if text.isascii() else text
    except ValueError:
        return text


def normal(kind: Kind, text: str) -> str:
    """The form in which values of this kind compare equal."""
    text = text[:TEXT].translate(_CONTROLS).strip()
    match kind:
        case Kind.NAME:
            return normal_name(text)
        case Kind.TEXT:
            return fold(text)
        case Kind.DATE:
            return normal_date(text)
        case Kind.TIME:
            return normal_time(text)
        case Kind.NUMBER:
            return normal_number(text)
        case _:
            return text


def element_values(element: Any) -> Iterator[str]:
    """The values of a decoded DICOM JSON element as text; a name's component groups joined by `=`. PS3.18 F.2"""
    listed = element.get("Value") if isinstance(element, dict) else None
    for value in listed[:VALUES] if isinstance(listed, list) else ():
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield "=".join(str(value.get(group) or "") for group in ("Alphabetic", "Ideographic", "Phonetic"))
        elif isinstance(value, int | float):
            yield str(value)


def decode(fragment: bytes | None) -> Any:
    """The DICOM JSON element kept in an entry; None when there is none."""
    return msgspec.json.decode(fragment) if fragment else None


def normal_values(kind: Kind, element: Any) -> list[str]:
    """The values of a decoded element that take part in matching: those that are not empty."""
    return [text for value in element_values(element) if (text := normal(kind, value))]


def name_texts(name: str) -> set[str]:
    """What a key may equal to match a name: all of it, or one component group."""
    return {name, *filter(None, name.split("="))}


# --- sort key -------------------------------------------------------------------------------------------------


def moment(date: str, time: str) -> int:
    """40 bits that order dates and times as they lie; 0 without a date. `date` and `time` are normal."""
    if not date:
        return 0
    seconds = int(time[:2]) * 3600 + int(time[2:4]) * 60 + int(time[4:6]) if time else 0
    return (int(date[:4]) << 9 | int(date[4:6]) << 5 | int(date[6:8])) << 17 | seconds


def sort_prefix(at: int) -> bytes:
    """The first five bytes of the sort key of a study of that `moment`: the later, the smaller."""
    return ((1 << 40) - 1 - at).to_bytes(5, "big")


def sort_key(attributes: Mapping[int, bytes], study: str) -> bytes:
    """Orders studies by date and time, newest first, undated ones last, then by a digest of the UID.

    It depends on the study alone, so that a rebuilt index pages through the same order.
    """
    date = normal_values(Kind.DATE, decode(attributes.get(tags.STUDY_DATE)))[:1]
    time = normal_values(Kind.TIME, decode(attributes.get(tags.STUDY_TIME)))[:1]
    at = moment("".join(date), "".join(time))
    return sort_prefix(at) + hashlib.blake2b(study.encode(), digest_size=7).digest()


# --- postings -------------------------------------------------------------------------------------------------


def exact_key(field: Field, text: str) -> bytes:
    """Key of the postings of a whole (normal) value."""
    return bytes((field.code, 0x3D)) + text.encode("utf-8", "replace")[:KEY_TEXT]


def trigram_key(field: Field, trigram: str) -> bytes:
    """Key of the postings of three characters; of fewer: the prefix of all that begin so."""
    return bytes((field.code, 0x33)) + trigram.encode("utf-8", "replace")


def text_key(field: Field, at: bytes) -> bytes:
    """Key of what a study has of a field with trigrams, in `texts`."""
    return bytes((field.code,)) + at


def trigrams(text: str) -> Iterator[str]:
    """Every three characters of a value between START and END; each character begins one."""
    framed = f"{START}{text}{END}{END}"
    return (framed[i : i + 3] for i in range(len(framed) - 2))


def _field_keys(field: Field, element: Any) -> Iterator[bytes]:
    for value in normal_values(field.kind, element):
        if field.kind is Kind.TIME:
            # To the minute: a range of times is a union of at most 1,440 lists.
            yield exact_key(field, value[:4])
            continue
        for text in name_texts(value) if field.kind is Kind.NAME else (value,):
            yield exact_key(field, text)
            if field.trigrams:
                yield from (trigram_key(field, trigram) for trigram in trigrams(text))


def _keys(fields: Mapping[int, Field], attributes: Mapping[int, bytes]) -> Iterator[bytes]:
    for tag, field in fields.items():
        if field.posted and (fragment := attributes.get(tag)):
            yield from _field_keys(field, decode(fragment))


def _request_keys(fragment: bytes | None) -> Iterator[bytes]:
    element = decode(fragment)
    items = element.get("Value") if isinstance(element, dict) else None
    for item in items[:VALUES] if isinstance(items, list) else ():
        for tag, field in REQUEST_FIELDS.items() if isinstance(item, dict) else ():
            yield from _field_keys(field, item.get(tags.text(tag)))


def found_alike(one: StudyEntry, other: StudyEntry) -> bool:
    """Whether two entries of a study have the same postings for certain: they differ in counts alone."""
    return (
        one.sort_key == other.sort_key
        and one.attributes == other.attributes
        and one.modalities.keys() == other.modalities.keys()
        and one.sop_classes.keys() == other.sop_classes.keys()
    )


def study_postings(entry: StudyEntry) -> set[Posting]:
    """All rows that a study owns for itself: `order`, `texts`, and postings of what it says of itself."""
    keys = set(_keys(STUDY_FIELDS, entry.attributes))
    modality = STUDY_FIELDS[tags.MODALITIES_IN_STUDY]
    keys.update(exact_key(modality, normal(modality.kind, code)) for code in entry.modalities)
    keys.update(exact_key(STUDY_FIELDS[tags.SOP_CLASSES_IN_STUDY], uid) for uid in entry.sop_classes)
    postings = {Posting(POSTINGS, key, entry.sort_key) for key in keys}
    postings.add(Posting(ORDER, entry.sort_key, entry.uid.encode()))
    for tag, field in STUDY_FIELDS.items():
        values = normal_values(field.kind, decode(entry.attributes.get(tag))) if field.trigrams else ()
        if values:
            text = "\0".join(values).encode("utf-8", "replace")
            postings.add(Posting(TEXTS, text_key(field, entry.sort_key), text))
    return postings


def series_postings(study: StudyEntry, entry: SeriesEntry) -> set[Posting]:
    """All rows that a series gives to its study. Series of one study share rows: when one is deleted or changed,
    only those go that no other series of the study gives."""
    keys = set(_keys(SERIES_FIELDS, entry.attributes))
    keys.update(_request_keys(entry.attributes.get(tags.REQUEST_ATTRIBUTES_SEQUENCE)))
    return {Posting(POSTINGS, key, study.sort_key) for key in keys}


def update(
    txn: lmdb.Transaction, databases: Mapping[bytes, Any], before: Iterable[Posting], after: Iterable[Posting]
) -> None:
    """Take away the rows only in `before` and add the ones only in `after`."""
    old, new = set(before), set(after)
    days: Counter[bytes] = Counter()
    for database, key, value in old - new:
        txn.delete(key, value if database == POSTINGS else b"", db=databases[database])
        if database == ORDER:
            days[key[:DAY]] -= 1
    for database, key, value in new - old:
        txn.put(key, value, db=databases[database])
        if database == ORDER:
            days[key[:DAY]] += 1
    for day, more in days.items():
        count = COUNT.unpack(txn.get(day, COUNT.pack(0), db=databases[DAYS]))[0] + more
        if count:
            txn.put(day, COUNT.pack(count), db=databases[DAYS])
        else:
            txn.delete(day, db=databases[DAYS])
