"""Normal forms, sort keys, postings and their upkeep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pacs import tags
from pacs.dicomweb import query
from pacs.errors import QueryError
from pacs.storage.index import Index, matching
from pacs.storage.index.matching import normal
from pacs.storage.index.search_fields import Kind
from pacs.storage.model import SeriesEntry, StudyEntry
from pacs.storage.search import Level, Match
from pacs.storage.search.compiling import compile_rules

INSTITUTION_NAME = 0x00080080


def element(vr: str, *values: Any) -> bytes:
    return json.dumps({"vr": vr, "Value": list(values)}).encode()


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (Kind.NAME, "Müller^Jörg", "muller^jorg"),
        (Kind.NAME, " DOE ^ JANE ^^^ ", "doe^jane"),
        (Kind.NAME, "Yamada^Tarou=山田^太郎=", "yamada^tarou=山田^太郎"),
        (Kind.NAME, "\uff24\uff4f\uff45", "doe"),
        (Kind.NAME, "Σίσυφος", "σισυφοσ"),
        (Kind.NAME, "だ", "だ"),  # a voiced kana is another letter, not an accent
        (Kind.NAME, "홍^길동", "홍^길동"),
        (Kind.TEXT, "CT  Tête ", "ct  tete"),
        (Kind.EXACT, " aB ", "aB"),
        (Kind.EXACT, "a\x00b", "a b"),
        (Kind.DATE, "2020.01.31", "20200131"),
        (Kind.DATE, "20201301", ""),
        (Kind.DATE, "\uff12\uff10\uff12\uff10\uff10\uff11\uff10\uff11", ""),
        (Kind.TIME, "10", "100000.000000"),
        (Kind.TIME, "10:15:30", "101530.000000"),
        (Kind.TIME, "101530.5", "101530.500000"),
        (Kind.TIME, "2400", ""),
        (Kind.NUMBER, "007", "7"),
        (Kind.NUMBER, "-0", "0"),
        (Kind.NUMBER, "1.5", "1.5"),
    ],
)
def test_normal_forms(kind: Kind, text: str, expected: str) -> None:
    assert normal(kind, text) == expected


def test_only_the_beginning_of_a_long_value_is_matched() -> None:
    assert len(normal(Kind.EXACT, "x" * 100_000)) == matching.TEXT
    study = StudyEntry("1", b"k" * 12, {tags.STUDY_DESCRIPTION: element("LO", *["ä" * 10_000] * 1000)}, {}, {}, 1, 1, 1)
    postings = matching.study_postings(study)
    assert len(postings) < 100
    assert max(len(posting.key) for posting in postings) <= 511


def test_sort_keys_put_the_newest_first_and_the_undated_last() -> None:
    moments = [
        ("20200102", "0000"), ("20200101", "2359"), ("20200101", "235839"), ("20200101", "235830"),
        ("20200101", "235829"), ("20200101", "10"), ("20200101", "0959"), ("20200101", ""), ("20191231", "2359"),
        ("19991231", ""),
    ]  # fmt: skip
    keys = []
    for date, time in moments:
        attributes = {tags.STUDY_DATE: element("DA", date), tags.STUDY_TIME: element("TM", time)}
        keys.append(matching.sort_key(attributes, "1.2"))
    keys.append(matching.sort_key({}, "1.2"))
    assert keys == sorted(keys)
    # A study without a time counts as one at midnight: a search for its day finds both.
    midnight = {tags.STUDY_DATE: element("DA", "20200101"), tags.STUDY_TIME: element("TM", "000000")}
    assert matching.sort_key(midnight, "1.2") == keys[7]
    assert {len(key) for key in keys} == {matching.SORT_KEY}
    assert matching.sort_key({}, "1.2") != matching.sort_key({}, "1.3")


ODD = (b"{}", b"null", b"[]", b'{"vr":"PN"}', b'{"vr":"PN","Value":[null,{},7,""]}', b'{"Value":1}')


@pytest.mark.parametrize("odd", ODD)
def test_odd_elements_give_no_error(odd: bytes) -> None:
    every = dict.fromkeys((*tags.STUDY_TAGS, *tags.SERIES_TAGS), odd)
    study = StudyEntry("1", matching.sort_key(every, "1"), every, {}, {}, 1, 1, 1)
    matching.study_postings(study)
    matching.series_postings(study, SeriesEntry("1", "2", 0, every, 1, 1))


def rows(index: Index) -> dict[bytes, list[tuple[bytes, bytes]]]:
    with index.read() as view:
        return {
            name: [(bytes(key), bytes(value)) for key, value in view.txn.cursor(view.databases[name])]
            for name in matching.DATABASES
        }


def test_a_study_that_changes_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its date becomes known late: every row, those of its series too, moves to the new sort key."""
    first = {tags.PATIENT_NAME: element("PN", {"Alphabetic": "Doe^J"}), tags.PATIENT_ID: element("LO", "1")}
    later = {tags.PATIENT_NAME: element("PN", {"Alphabetic": "Roe"}), tags.PATIENT_ID: element("LO", "1")}
    later[tags.STUDY_DATE] = element("DA", "20200101")
    before = StudyEntry("1", matching.sort_key(first, "1"), first, {"CT": 1}, {"9": 1}, 1, 1, 1)
    after = StudyEntry("1", matching.sort_key(later, "1"), later, {"CT": 1, "MR": 1}, {"9": 1}, 2, 2, 2)
    series = SeriesEntry("1", "1.1", 0, {tags.SERIES_DESCRIPTION: element("LO", "Axial")}, 1, 1)
    found = []
    for name, steps in (("changed", [(before, None), (after, before)]), ("fresh", [(after, None)])):
        folder = tmp_path / name
        folder.mkdir()
        index = Index(str(folder), create=True)
        for entry, old in steps:
            with index.write() as view:
                view.put_study(entry, old)
                if old is None:
                    view.put_series(entry, series, None)
        found.append(rows(index))
        index.close()
    assert found[0] == found[1]
    assert all(found[0].values())


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("StudyDate", "2020"), ("StudyDate", "-"), ("StudyDate", "20200101-x"), ("StudyTime", "25"), ("StudyTime", "1-2")],
)
def test_dates_and_times_that_are_none(keyword: str, value: str) -> None:
    path = query.attribute(keyword)
    assert path is not None
    with pytest.raises(QueryError):
        compile_rules([Match(path, (value,))])


def test_an_unmatchable_attribute_is_refused_here() -> None:
    with pytest.raises(QueryError):
        compile_rules([Match((INSTITUTION_NAME,), ("x",))])


def test_a_second_study_date_does_not_count() -> None:
    [rule] = compile_rules([Match((tags.STUDY_DATE,), ("20200102",))])
    assert rule.level is Level.STUDY
    assert not rule.matches(json.loads(element("DA", "20200101", "20200102")))
    assert rule.matches(json.loads(element("DA", "x", "20200102")))


def test_a_wildcard_pattern_cannot_be_made_slow() -> None:
    [rule] = compile_rules([Match((tags.PATIENT_ID,), ("*a" * 100 + "*b",))])
    assert not rule.accepts(["a" * matching.TEXT])


class TestQuery:
    def test_attribute_names(self) -> None:
        assert query.attribute("PatientName") == query.attribute("00100010") == (0x00100010,)
        assert query.attribute("RequestAttributesSequence.00400009") == (0x00400275, 0x00400009)
        assert query.attribute("NoSuchWord") is None
        for wrong in ("0010001", "0010,0010", "00100010.", ".PatientName", "1", "00400275.x-y"):
            with pytest.raises(QueryError):
                query.attribute(wrong)

    def test_include_fields(self) -> None:
        asked = query.parse("includefield=00081030%2C00080060&includefield=PatientAge,Nope&includefield=all")
        assert asked.include == {0x00081030, 0x00080060, 0x00101010}
        assert asked.include_all
        assert len(asked.warnings) == 1

    def test_empty_items_of_a_list_do_not_match_everything(self) -> None:
        [match] = query.parse("StudyInstanceUID=1.2,,%5C1.3,").matches
        assert match.values == ("1.2", "1.3")
        [match] = query.parse("StudyInstanceUID=").matches
        assert match.values == ("",)

    def test_backslashes_stay_in_text(self) -> None:
        [match] = query.parse("PatientID=a%5Cb,c").matches
        assert match.values == ("a\\b,c",)
        [match] = query.parse("PatientID=a%5Cb,c&multiplevaluematching=true").matches
        assert match.values == ("a", "b,c")
