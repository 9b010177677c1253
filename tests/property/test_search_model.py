"""Searches of a real index against the slow oracle: every level, every kind of key, whole answers and pages."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword

from pacs import tags
from pacs.storage.index import Index, ReadView, matching
from pacs.storage.index.rows import INDEX_FORMAT, IndexState
from pacs.storage.model import Counters, Descriptor, InstanceEntry, SeriesEntry, StudyEntry
from pacs.storage.search import Item, Level, Match, Search, search, streams
from tests.reference import matching as oracle

# --- archives ---------------------------------------------------------------------------------------------------

NAMES = (
    "Doe^Jane", "DOE^JOHN", "Müller^Jörg", "Muller^Jo", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Do", "d", "O'Doe^J^^^",
)  # fmt: skip
IDS = ("1", "12", "123", "A1", "a1", "A 12", "*1", "12-3")
TEXTS = ("CT HEAD", "Ct head native", "Thorax", "Tête", "HEAD")
DATES = ("20200101", "20200102", "20201231", "19991231", "2020.01.02", "20209999", "")
TIMES = ("10", "1000", "101530", "101530.5", "235960", "23:59:59", "000000", "xx")
MODALITIES = ("CT", "MR", "US", "CTX")


def some(values: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    """No value, one, or two."""
    return st.one_of(st.just([]), st.lists(st.sampled_from([v for v in values if v]), min_size=1, max_size=2))


def single(values: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.one_of(st.just([]), st.sampled_from([v for v in values if v]).map(lambda value: [value]))


INSTANCE = st.fixed_dictionaries(
    {
        "SOPClassUID": single(("1.2.1", "1.2.2")),
        "InstanceNumber": single(("1", "2", "10")),
        "Rows": single(("64", "512")),
    }
)
ITEM = st.fixed_dictionaries({"ScheduledProcedureStepID": some(IDS), "RequestedProcedureID": some(IDS)})
SERIES = st.fixed_dictionaries(
    {
        "Modality": single(MODALITIES),
        "SeriesNumber": single(("1", "2", "11")),
        "SeriesDescription": some(TEXTS),
        "BodyPartExamined": single(("HEAD", "CHEST")),
        "PerformedProcedureStepStartDate": some(DATES),
        "PerformedProcedureStepStartTime": some(tuple(t for t in TIMES if t not in ("235960",))),
        "RequestAttributesSequence": st.lists(ITEM, max_size=2),
        "instances": st.lists(INSTANCE, min_size=1, max_size=3),
    }
)
STUDY = st.fixed_dictionaries(
    {
        "StudyDate": some(DATES),
        "StudyTime": some(tuple(t for t in TIMES if t not in ("235960",))),
        "AccessionNumber": some(IDS),
        "PatientName": some(NAMES),
        "PatientID": some(IDS),
        "PatientBirthDate": some(DATES),
        "PatientSex": single(("M", "F")),
        "StudyID": some(IDS),
        "StudyDescription": some(TEXTS),
        "ReferringPhysicianName": some(NAMES),
        "series": st.lists(SERIES, min_size=1, max_size=3),
    }
)


@st.composite
def archives(draw: st.DrawFn) -> list[dict[str, Any]]:
    studies = draw(st.lists(STUDY, max_size=5))
    for i, study in enumerate(studies):
        study["StudyInstanceUID"] = [f"1.{i}"]
        study["ModalitiesInStudy"] = sorted({code for series in study["series"] for code in series["Modality"]})
        study["SOPClassesInStudy"] = sorted(
            {uid for series in study["series"] for inst in series["instances"] for uid in inst["SOPClassUID"]}
        )
        for j, series in enumerate(study["series"]):
            series["SeriesInstanceUID"] = [f"1.{i}.{j}"]
            for k, instance in enumerate(series["instances"]):
                instance["SOPInstanceUID"] = [f"1.{i}.{j}.{k}"]
    return studies


def element(keyword: str, values: list[Any]) -> dict[str, Any]:
    vr = dictionary_VR(keyword).split(" ")[0]
    if vr == "SQ":
        return {"vr": vr, "Value": [{json_key(k): element(k, v) for k, v in item.items()} for item in values]}
    if vr == "PN":
        groups = ("Alphabetic", "Ideographic", "Phonetic")
        return {"vr": vr, "Value": [dict(zip(groups, value.split("="), strict=False)) for value in values]}
    if vr in ("IS", "US"):
        return {"vr": vr, "Value": [int(value) for value in values]}
    return {"vr": vr, "Value": values}


def json_key(keyword: str) -> str:
    return tags.text(tag_for_keyword(keyword) or 0)


def fragments(entity: dict[str, Any], kept: tuple[int, ...]) -> dict[int, bytes]:
    found = {}
    for keyword, values in entity.items():
        tag = tag_for_keyword(keyword)
        if tag in kept and values:
            found[tag] = json.dumps(element(keyword, values)).encode()
    return found


def counted(values: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


@contextmanager
def indexed(archive: list[dict[str, Any]]) -> Iterator[ReadView]:
    """A real index that holds `archive`."""
    with tempfile.TemporaryDirectory() as folder:
        index = Index(folder, create=True, sync=False)
        number = instances = 0
        with index.write() as view:
            for study in archive:
                uid = study["StudyInstanceUID"][0]
                attributes = fragments(study, tags.STUDY_TAGS)
                all_instances = [inst for series in study["series"] for inst in series["instances"]]
                entry = StudyEntry(
                    uid, matching.sort_key(attributes, uid), attributes,
                    counted(code for series in study["series"] for code in series["Modality"]),
                    counted(cls for inst in all_instances for cls in inst["SOPClassUID"]),
                    len(study["series"]), len(all_instances), 1,
                )  # fmt: skip
                view.put_study(entry, None)
                for series in study["series"]:
                    series_uid = series["SeriesInstanceUID"][0]
                    child = SeriesEntry(
                        uid, series_uid, number, fragments(series, tags.SERIES_TAGS), len(series["instances"]), 1
                    )
                    view.put_series(entry, child, None)
                    view.put_series_number(child)
                    for inst in series["instances"]:
                        descriptor = Descriptor(uid, series_uid, inst["SOPInstanceUID"][0], "1.2", b"", 0, 0)
                        view.put_instance(
                            InstanceEntry(descriptor, fragments(inst, tags.INSTANCE_TAGS), number, 0, (), -1, 0, 1), b""
                        )
                        instances += 1
                    number += 1
            counters = Counters(studies=len(archive), series=number, instances=instances)
            view.put_state(IndexState(INDEX_FORMAT, "x", counters))
        try:
            with index.read() as read:
                yield read
        finally:
            index.close()


# --- keys -------------------------------------------------------------------------------------------------------


@st.composite
def patterns(draw: st.DrawFn, values: tuple[str, ...]) -> str:
    """A value as it is, in another case, or with some of it behind wildcards."""
    text = draw(st.sampled_from([value for value in values if value]))
    text = draw(st.sampled_from((text, text.lower(), text.upper())))
    begin = draw(st.integers(0, len(text)))
    end = draw(st.integers(begin, len(text)))
    forms = ("{all}", "*{some}*", "{head}*", "*{tail}", "{head}?*", "{head}*{tail}", "?{some}*", "")
    form = draw(st.sampled_from(forms))
    return form.format(all=text, some=text[begin:end], head=text[:begin], tail=text[end:])


def ranges(values: tuple[str, ...]) -> st.SearchStrategy[str]:
    one = st.sampled_from(values)
    pair = st.tuples(one, one)
    return st.one_of(one, one.map("{}-".format), one.map("-{}".format), pair.map(lambda p: f"{p[0]}-{p[1]}"))


GROUPS = st.sampled_from(
    ("=山田*", "==やまだ*", "yamada^tarou=山田^太郎", "Y*=", "=*", "Doe^*=山田^太郎", "*=山?^*=*", "===")
)
KEY_DATES = ("20200101", "20200102", "20201231", "20000101", "20210101")
KEY_TIMES = ("10", "1000", "1015", "101530", "101530.5", "2359", "000000")
KEYS: dict[tuple[str, ...], st.SearchStrategy[str]] = {
    ("StudyInstanceUID",): st.sampled_from(("1.0", "1.1", "1.9")),
    ("SeriesInstanceUID",): st.sampled_from(("1.0.0", "1.1.1", "9")),
    ("SOPInstanceUID",): st.sampled_from(("1.0.0.0", "1.1.0.1", "9")),
    ("SOPClassUID",): st.sampled_from(("1.2.1", "1.2.2")),
    ("SOPClassesInStudy",): st.sampled_from(("1.2.1", "1.2.2")),
    ("Modality",): patterns(MODALITIES),
    ("ModalitiesInStudy",): patterns(MODALITIES),
    ("SeriesNumber",): st.sampled_from(("1", "2", "11", "011")),
    ("InstanceNumber",): st.sampled_from(("1", "10")),
    ("Rows",): st.sampled_from(("64", "512")),
    **{(k,): ranges(KEY_DATES) for k in ("StudyDate", "PatientBirthDate", "PerformedProcedureStepStartDate")},
    **{(k,): ranges(KEY_TIMES) for k in ("StudyTime", "PerformedProcedureStepStartTime")},
    **{(k,): patterns(IDS) for k in ("PatientID", "AccessionNumber", "StudyID", "PatientSex", "BodyPartExamined")},
    **{(k,): patterns(TEXTS) for k in ("StudyDescription", "SeriesDescription")},
    **{(k,): st.one_of(patterns(NAMES), GROUPS) for k in ("PatientName", "ReferringPhysicianName")},
    ("RequestAttributesSequence", "ScheduledProcedureStepID"): patterns(IDS),
    ("RequestAttributesSequence", "RequestedProcedureID"): patterns(IDS),
}


@st.composite
def questions(draw: st.DrawFn) -> oracle.Asked:
    paths = draw(st.lists(st.sampled_from(sorted(KEYS)), max_size=3, unique=True))
    return [(path, draw(st.lists(KEYS[path], min_size=1, max_size=2))) for path in paths]


def uids(item: Item) -> tuple[str, ...]:
    found = [item.study.uid]
    found += [item.series.uid] if item.series is not None else []
    found += [item.instance.descriptor.instance] if item.instance is not None else []
    return tuple(found)


def as_matches(asked: oracle.Asked) -> tuple[Match, ...]:
    return tuple(Match(tuple(tag_for_keyword(k) or 0 for k in path), tuple(values)) for path, values in asked)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(archives(), st.lists(questions(), min_size=8, max_size=8), st.booleans(), st.integers(1, 4))
def test_answers_equal_the_oracles(
    archive: list[dict[str, Any]], asked: list[oracle.Asked], fuzzy: bool, limit: int
) -> None:
    with indexed(archive) as view:
        for question in [[], *asked]:
            for level in Level:
                expected = oracle.search(archive, level, question, fuzzy=fuzzy)
                whole = search(view, Search(level, as_matches(question), limit=1000, fuzzy=fuzzy))
                answer = [uids(item) for item in whole.items]
                assert set(answer) == expected, question
                assert len(answer) == whole.total == len(expected)
                assert not whole.more
                paged: list[tuple[str, ...]] = []
                while True:
                    request = Search(level, as_matches(question), limit=limit, offset=len(paged), fuzzy=fuzzy)
                    page = search(view, request)
                    assert page.total == len(expected)
                    paged += map(uids, page.items)
                    if not page.more:
                        break
                    assert page.items
                assert paged == answer


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(archives(), questions())
def test_a_parent_in_the_path_narrows_to_what_it_holds(archive: list[dict[str, Any]], asked: oracle.Asked) -> None:
    with indexed(archive) as view:
        for level in (Level.SERIES, Level.INSTANCE):
            expected = oracle.search(archive, level, asked, fuzzy=False)
            for study in archive:
                uid = study["StudyInstanceUID"][0]
                page = search(view, Search(level, as_matches(asked), study=uid, limit=1000))
                assert {uids(item) for item in page.items} == {found for found in expected if found[0] == uid}
                assert page.total == len(page.items)
                child = study["series"][0]["SeriesInstanceUID"][0]
                page = search(view, Search(Level.INSTANCE, as_matches(asked), study=uid, series=child, limit=1000))
                instances = oracle.search(archive, Level.INSTANCE, asked, fuzzy=False)
                assert {uids(item) for item in page.items} == {found for found in instances if found[1] == child}


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(archives())
def test_studies_come_newest_first(archive: list[dict[str, Any]]) -> None:
    with indexed(archive) as view:
        page = search(view, Search(Level.STUDY, limit=1000))
        dates = []
        for item in page.items:
            study = next(s for s in archive if s["StudyInstanceUID"] == [item.study.uid])
            valid = [found for value in study["StudyDate"] if (found := oracle.day(value)) is not None]
            dates.append(valid[0] if valid else "")
        assert dates == sorted(dates, reverse=True)


# --- a denser archive: few letters, so that trigrams lie -----------------------------------------------------------


def dense_archive(rnd: random.Random, studies: int) -> list[dict[str, Any]]:
    def text(letters: str, most: int = 7) -> str:
        return "".join(rnd.choice(letters) for _ in range(rnd.randint(1, most))).strip(" ^=") or "a"

    def maybe(values: list[Any], odds: float = 0.8) -> list[Any]:
        return values if rnd.random() < odds else []

    archive = []
    for i in range(studies):
        series = []
        for j in range(rnd.randint(1, 3)):
            items = [
                {"ScheduledProcedureStepID": [text("ab")], "RequestedProcedureID": maybe([text("ab")])}
                for _ in range(rnd.randint(0, 2))
            ]
            instances = [
                {
                    "SOPInstanceUID": [f"1.{i}.{j}.{k}"],
                    "SOPClassUID": [rnd.choice(("1.2.1", "1.2.2", "1.2.3"))],
                    "InstanceNumber": maybe([str(rnd.randint(1, 3))]),
                    "Rows": maybe([rnd.choice(("64", "512"))]),
                }
                for k in range(rnd.randint(1, 3))
            ]
            series.append(
                {
                    "SeriesInstanceUID": [f"1.{i}.{j}"],
                    "Modality": maybe([rnd.choice(MODALITIES)]),
                    "SeriesNumber": maybe([str(rnd.randint(1, 3))]),
                    "SeriesDescription": maybe([text("aAbé ")]),
                    "BodyPartExamined": maybe([rnd.choice(("HEAD", "HAND"))]),
                    "PerformedProcedureStepStartDate": maybe([f"2020010{rnd.randint(1, 4)}"]),
                    "PerformedProcedureStepStartTime": maybe([f"10{rnd.randint(0, 59):02}"]),
                    "RequestAttributesSequence": items,
                    "instances": instances,
                }
            )
        below = [instance for one in series for instance in one["instances"]]
        archive.append(
            {
                "StudyInstanceUID": [f"1.{i}"],
                "StudyDate": maybe([f"202001{rnd.randint(1, 9):02}"]),
                "StudyTime": maybe([rnd.choice(("10", "1000", "100030", f"{rnd.randint(0, 23):02}4507"))]),
                "AccessionNumber": maybe([text("ab1")]),
                "PatientName": maybe([text("aáb^") if rnd.random() < 0.7 else f"{text('ab^')}={text('山田^')}"]),
                "PatientID": maybe([text("abA1", 4), *maybe([text("ab")], 0.2)]),
                "PatientBirthDate": maybe([f"197{rnd.randint(0, 9)}0101"]),
                "PatientSex": maybe([rnd.choice("MFO")]),
                "StudyID": maybe([text("12", 3)]),
                "StudyDescription": maybe([text("aAbB ", 12)]),
                "ReferringPhysicianName": maybe([text("ab^")]),
                "ModalitiesInStudy": sorted({code for one in series for code in one["Modality"]}),
                "SOPClassesInStudy": sorted({uid for instance in below for uid in instance["SOPClassUID"]}),
                "series": series,
            }
        )
    return archive


def dense_key(rnd: random.Random, archive: list[dict[str, Any]], path: tuple[str, ...]) -> str | None:
    """A key made from a value that the archive has."""
    entities: list[dict[str, Any]] = list(archive)
    entities += [series for study in archive for series in study["series"]]
    entities += [instance for series in entities[len(archive) :] for instance in series["instances"]]
    for name in path[:-1]:
        entities = [item for entity in entities for item in entity.get(name, [])]
    values = [value for entity in entities for value in entity.get(path[-1], [])]
    if not values:
        return None
    value, other = rnd.choice(values), rnd.choice(values)
    if path[-1] in oracle.DATES | oracle.TIMES:
        low, high = sorted((value, other))
        return rnd.choice((value, f"{low}-{high}", f"{low}-", f"-{high}"))
    if path[-1] in oracle.UIDS | oracle.NUMBERS:
        return str(value)
    i, j = sorted((rnd.randint(0, len(value)), rnd.randint(0, len(value))))
    forms = (
        value, value.swapcase(), f"*{value[i:j]}*", f"{value[:i]}*", f"*{value[i:]}", f"{value[:i]}?{value[i + 1 :]}",
        f"{value[:i]}*{value[j:]}", f"*{value[:i]}*{other[-1:]}*", f"*{value}{other}*", f"*{value[i:j]}?*",
    )  # fmt: skip
    return str(rnd.choice(forms))


@pytest.mark.parametrize("gathered", [0, streams.GATHERED])
@pytest.mark.parametrize("seed", range(3))
def test_keys_made_of_what_is_stored(seed: int, gathered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `gathered` 0 every union is merged from LMDB, as it is in a large archive."""
    monkeypatch.setattr(streams, "GATHERED", gathered)
    rnd = random.Random(seed)
    archive = dense_archive(rnd, 40)
    matched = 0
    with indexed(archive) as view:
        for _ in range(400):
            question: oracle.Asked = []
            for path in rnd.sample(sorted(KEYS), rnd.choice((1, 1, 2, 3))):
                keys = [key for key in (dense_key(rnd, archive, path) for _ in range(rnd.choice((1, 1, 1, 2)))) if key]
                if keys:
                    question.append((path, keys))
            level = rnd.choice(list(Level))
            fuzzy = rnd.random() < 0.3
            expected = oracle.search(archive, level, question, fuzzy=fuzzy)
            page = search(view, Search(level, as_matches(question), limit=1000, fuzzy=fuzzy))
            answer = [uids(item) for item in page.items]
            assert (set(answer), len(answer)) == (expected, page.total), question
            offset, limit = rnd.randint(0, 12), rnd.randint(0, 12)
            part = search(view, Search(level, as_matches(question), limit=limit, offset=offset, fuzzy=fuzzy))
            assert [uids(item) for item in part.items] == answer[offset : offset + limit]
            assert (part.total, part.more) == (page.total, offset + len(part.items) < len(answer))
            with monkeypatch.context() as patched:  # more results than are counted
                patched.setattr("pacs.storage.search.pages.TOTAL", 4)
                short = search(view, Search(level, as_matches(question), limit=limit, offset=offset, fuzzy=fuzzy))
            assert (short.items, short.more) == (part.items, part.more), question
            assert short.total == (page.total if page.total is not None and page.total <= 4 else None), question
            matched += bool(answer)
    assert matched > 150


def test_pages_far_behind_the_first_one() -> None:
    """Counts by day lead there, also after studies have changed their date."""
    archive = dense_archive(random.Random(5), 60)
    with indexed(archive) as view:
        everything = [uids(item) for item in search(view, Search(Level.STUDY, limit=1000)).items]
        assert len(everything) == 60
        for offset in range(65):
            page = search(view, Search(Level.STUDY, limit=4, offset=offset))
            assert [uids(item) for item in page.items] == everything[offset : offset + 4]
            assert (page.total, page.more) == (60, offset + 4 < 60)


@pytest.mark.parametrize("most", [0, 1, streams.VALUES])
def test_begins_of_texts(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the values that begin so where they are few, by trigrams where they are many."""
    monkeypatch.setattr(streams, "VALUES", most)
    archive = dense_archive(random.Random(9), 40)
    matched = 0
    with indexed(archive) as view:
        for path in (("PatientName",), ("StudyDescription",), ("PatientID",), ("SeriesDescription",)):
            below = [series for study in archive for series in study["series"]]
            values = {value for one in (*archive, *below) for value in one.get(path[0], [])}
            for begin in sorted({value[:length] for value in values for length in (1, 2, 3, 4, 6)}):
                question: oracle.Asked = [(path, [f"{begin}*"])]
                page = search(view, Search(Level.STUDY, as_matches(question), limit=1000))
                expected = oracle.search(archive, Level.STUDY, question, fuzzy=False)
                assert {uids(item) for item in page.items} == expected, question
                assert page.total == len(page.items) == len(expected)
                matched += len(begin) > 3 and bool(expected)
    assert matched > 100


def test_values_longer_than_a_key() -> None:
    """Keys of the index are cut at 400 bytes: what differs behind them is another value."""
    long = ["山" * 140 + end for end in ("田", "太", "田太", "")]
    archive = dense_archive(random.Random(3), 8)
    for study, value in zip(archive, long, strict=False):
        study["StudyDescription"] = study["PatientID"] = [value]
    matched = 0
    with indexed(archive) as view:
        for path in (("StudyDescription",), ("PatientID",)):
            for text in long:
                for value in (text, f"{text}*", f"{text[:135]}*", f"*{text[100:]}", f"{text[:-1]}?", f"{text[:139]}?*"):
                    question: oracle.Asked = [(path, [value])]
                    found = {uids(item) for item in search(view, Search(Level.STUDY, as_matches(question))).items}
                    assert found == oracle.search(archive, Level.STUDY, question, fuzzy=False), question
                    matched += len(found)
    assert matched > 60
