"""A slow oracle for searches, written from PS3.4 C.2.2.2 alone: it looks at every entity, knows no index and no keys.

Entities are plain: an attribute is a list of strings (a name's groups joined by `=`), a sequence a list of such
mappings. Attributes are named by keyword.
"""

from __future__ import annotations

import datetime
import itertools
import unicodedata
from typing import Any

DATES = {"StudyDate", "PatientBirthDate", "SeriesDate", "PerformedProcedureStepStartDate"}
TIMES = {"StudyTime", "SeriesTime", "PerformedProcedureStepStartTime"}
NAMES = {"PatientName", "ReferringPhysicianName"}
DESCRIPTIONS = {"StudyDescription", "SeriesDescription"}
NUMBERS = {"SeriesNumber", "InstanceNumber", "Rows", "Columns", "BitsAllocated", "NumberOfFrames"}
UIDS = {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "SOPClassesInStudy"}

Asked = list[tuple[tuple[str, ...], list[str]]]


def plain(text: str) -> str:
    """Lower case without accents on Latin, Greek and Cyrillic letters."""
    out = []
    for char in unicodedata.normalize("NFKD", text):
        if not 0x300 <= ord(char) <= 0x36F:
            out.append(char)
    return unicodedata.normalize("NFC", "".join(out).casefold())


def wildcard(pattern: str, text: str) -> bool:
    """C.2.2.2.4, by the table of a dynamic programme."""
    reach = [True] + [False] * len(text)
    for char in pattern:
        if char == "*":
            for i in range(1, len(text) + 1):
                reach[i] = reach[i] or reach[i - 1]
        else:
            step = [reach[i] and (char == "?" or char == text[i]) for i in range(len(text))]
            reach = [False, *step]
    return reach[-1]


def instant(text: str, *, last: bool = False) -> datetime.timedelta | None:
    """A TM value; with `last` the end of what it may mean."""
    digits = text.replace(":", "")
    whole, dot, fraction = digits.partition(".")
    if not whole.isdigit() or len(whole) not in (2, 4, 6) or (dot and (len(whole) != 6 or not fraction.isdigit())):
        return None
    pairs = [int(whole[i : i + 2]) for i in range(0, len(whole), 2)]
    if pairs[0] > 23 or any(pair > 59 for pair in pairs[1:]):
        return None
    micro = int(fraction.ljust(6, "0")) if fraction else 0
    if last and not fraction:
        micro = 999_999
    fill = 59 if last else 0
    pairs += [fill] * (3 - len(pairs))
    return datetime.timedelta(hours=pairs[0], minutes=pairs[1], seconds=pairs[2], microseconds=micro)


def day(text: str) -> str | None:
    digits = text.replace(".", "")
    valid = len(digits) == 8 and digits.isdigit() and 1 <= int(digits[4:6]) <= 12 and 1 <= int(digits[6:]) <= 31
    return digits if valid else None


def name_texts(name: str) -> list[str]:
    groups = [group.rstrip("^") for group in plain(name).split("=")]
    return ["=".join(groups).rstrip("="), *(group for group in groups if group)]


def one(keyword: str, key: str, value: str, *, fuzzy: bool) -> bool:
    """Whether one value matches one key."""
    if keyword in DATES:
        have = day(value)
        low, dash, high = key.partition("-")
        if have is None:
            return False
        return have == day(key) if not dash else (not low or low <= have) and (not high or have <= high)
    if keyword in TIMES:
        at = instant(value)
        low, dash, high = key.partition("-")
        if at is None:
            return False
        if not dash:
            return at == instant(key)
        begin, end = instant(low), instant(high, last=True)
        return (begin is None or begin <= at) and (end is None or at <= end)
    if keyword in NUMBERS:
        return int(value) == int(key)
    if keyword in UIDS:
        return key == value
    if keyword in NAMES:
        if fuzzy and not set("*?") & set(key):
            words = [part for part in plain(key).replace("^", " ").replace("=", " ").split() if part]
            have_words = plain(value).replace("^", " ").replace("=", " ").split()
            return all(any(have.startswith(word) for have in have_words) for word in words)
        if "=" in key:
            pairs = itertools.zip_longest(key.split("="), value.split("="), fillvalue="")
            return all(not asked.strip("*") or one(keyword, asked, have, fuzzy=False) for asked, have in pairs)
        if set("*?") & set(key):
            return any(wildcard(plain(key), text) for text in name_texts(value))
        return name_texts(key)[0] in name_texts(value)
    if keyword in DESCRIPTIONS:
        return wildcard(plain(key), plain(value))
    return wildcard(key, value)


def element(entity: dict[str, Any], path: tuple[str, ...], keys: list[str], *, fuzzy: bool) -> bool:
    values = entity.get(path[0], [])
    if path[0] in ("StudyDate", "StudyTime"):
        values = first_valid(entity, path[0])
    return any(one(path[0], key, value, fuzzy=fuzzy) for key in keys for value in values)


def entity_matches(entity: dict[str, Any], asked: Asked, *, fuzzy: bool) -> bool:
    """All keys, sequences item by item: C.2.2.2.6."""
    asked = [(path, keys) for path, keys in asked if not any(key.strip("*") == "" for key in keys)]
    sequences: dict[str, Asked] = {}
    flat = []
    for path, keys in asked:
        if len(path) > 1:
            sequences.setdefault(path[0], []).append((path[1:], keys))
        else:
            flat.append((path, keys))
    ranges = {path[0]: keys[0] for path, keys in flat if path[0] in ("StudyDate", "StudyTime") and "-" in keys[0]}
    if len(ranges) == 2 and len(flat) >= 2:
        flat = [(path, keys) for path, keys in flat if path[0] not in ranges]
        if not moment_matches(entity, ranges["StudyDate"], ranges["StudyTime"]):
            return False
    if not all(element(entity, path, keys, fuzzy=fuzzy) for path, keys in flat):
        return False
    return all(
        any(entity_matches(item, inner, fuzzy=False) for item in entity.get(keyword, []))
        for keyword, inner in sequences.items()
    )


def first_valid(entity: dict[str, Any], keyword: str) -> list[str]:
    """The one date or time of a study: these attributes have a multiplicity of 1."""
    valid = day if keyword == "StudyDate" else instant
    return [value for value in entity.get(keyword, []) if valid(value) is not None][:1]


def moment_matches(entity: dict[str, Any], dates: str, times: str) -> bool:
    """A range of dates with a range of times is a range of moments: PS3.18 8.3.4.1.1, PS3.4 C.2.2.2.5.4."""
    dates_had, times_had = first_valid(entity, "StudyDate"), first_valid(entity, "StudyTime")
    if not dates_had or not times_had:
        return False
    date, time = day(dates_had[0]) or "", instant(times_had[0]) or datetime.timedelta()
    (low_date, _, high_date), (low_time, _, high_time) = dates.partition("-"), times.partition("-")
    begin = instant(low_time) or datetime.timedelta()
    end = instant(high_time, last=True) or datetime.timedelta(days=1)
    after = not low_date or (date, time) >= (low_date, begin)
    return after and (not high_date or (date, time) <= (high_date, end))


def search(archive: list[dict[str, Any]], level: int, asked: Asked, *, fuzzy: bool) -> set[tuple[str, ...]]:
    """UIDs of what matches. `archive`: studies with "series", series with "instances"; `asked` names each key's level
    by where its keyword is found: an entity above the level asked matches when something below it does."""
    found: set[tuple[str, ...]] = set()
    by_level: list[Asked] = [[], [], []]
    for path, keys in asked:
        by_level[level_of(path[0])].append((path, keys))
    for study in archive:
        if not entity_matches(study, by_level[0], fuzzy=fuzzy):
            continue
        for series in study["series"]:
            if not entity_matches(series, by_level[1], fuzzy=fuzzy):
                continue
            for instance in series["instances"]:
                if entity_matches(instance, by_level[2], fuzzy=fuzzy):
                    uids = (study["StudyInstanceUID"][0], series["SeriesInstanceUID"][0], instance["SOPInstanceUID"][0])
                    found.add(uids[: level + 1])
    return found


def level_of(keyword: str) -> int:
    if keyword in ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows"):
        return 2
    if keyword.startswith(("Series", "Performed", "Request")) or keyword in ("Modality", "BodyPartExamined"):
        return 1
    return 0
