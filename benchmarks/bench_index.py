"""`python -m benchmarks index`: searches over an index of a million studies that was written straight into it.

No instances are stored: the index is made as ingest would have made it, list by list and in order, which takes minutes
instead of days, and a server answers from it. Reads of the index alone: no Data Set is opened for these searches.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks import machine, report, workload
from benchmarks.servers import Pacs
from pacs import tags
from pacs.archive import Archive
from pacs.bench import load
from pacs.bench.corpus import uid
from pacs.bench.model import latency
from pacs.storage import layout
from pacs.storage.index import Index, WriteView, matching
from pacs.storage.index.matching import COUNT, DAYS, ORDER, POSTINGS, TEXTS
from pacs.storage.index.rows import encode, series_key
from pacs.storage.model import SeriesEntry, StudyEntry

_AT_ONCE = 20_000
_JSON = "application/dicom+json"
_FIELDS = "limit=101&includefield=00081030"
_CODES = ("CT", "MR", "CR", "DX", "US", "MG", "XA", "NM")
_WORDS = (
    "Head",
    "Thorax",
    "Abdomen",
    "Knee",
    "Spine",
    "native",
    "contrast",
    "follow-up",
    "Angio",
    "Pelvis",
    "emergency",
)

_UNIQUE = (tags.ACCESSION_NUMBER, tags.PATIENT_ID, tags.STUDY_ID)
"""Few studies share a value of these."""

Attributes = dict[int, bytes]


def _fragment(vr: str, value: str) -> bytes:
    told = {"Alphabetic": value} if vr == "PN" else value
    return json.dumps({"vr": vr, "Value": [told]}, separators=(",", ":")).encode()


class Studies:
    """Drawn in no order; the same number gives the same archive."""

    def __init__(self, count: int) -> None:
        draw = random.Random(count)
        self.families = ["".join(draw.choice("bdfghklmnrstw") + draw.choice("aeiou") for _ in range(3)).capitalize()
                         + draw.choice("nrst") for _ in range(5000)]  # fmt: skip
        dates = [f"{year}{month:02d}{day:02d}" for year in range(2005, 2025) for month in range(1, 13)
                 for day in range(1, 29)]  # fmt: skip
        self.newest = dates[-1]
        # Few families are common and many rare; archives grow faster every year.
        self._family = np.minimum(np.random.default_rng(count).zipf(1.3, count), len(self.families)) - 1
        counts = np.bincount(self._family)
        self.rare = int(np.flatnonzero(counts)[np.argmin(counts[counts > 0])])
        self._draw = draw
        self._dates = dates
        self.count = count

    def __iter__(self) -> Iterator[tuple[str, Attributes, str]]:
        """(Study Instance UID, attributes, Modality)."""
        draw = self._draw
        for number in range(self.count):
            family = self.families[self._family[number]]
            day = self._dates[int(len(self._dates) * draw.random() ** 0.5)]
            at = f"{draw.randint(6, 21):02d}{draw.randint(0, 59):02d}{draw.randint(0, 59):02d}"
            yield (
                uid(f"study {number}"),
                {
                    tags.STUDY_DATE: _fragment("DA", day),
                    tags.STUDY_TIME: _fragment("TM", at),
                    tags.ACCESSION_NUMBER: _fragment("SH", f"A{number:09d}"),
                    tags.REFERRING_PHYSICIAN_NAME: _pooled("PN", f"{self.families[number % 97]}^Dr"),
                    tags.STUDY_DESCRIPTION: _pooled("LO", f"{draw.choice(_WORDS)} {draw.choice(_WORDS)}"),
                    tags.PATIENT_NAME: _pooled("PN", f"{family}^{draw.choice(workload.GIVEN)}"),
                    tags.PATIENT_ID: _fragment("LO", f"P{number * 7 % self.count:08d}"),
                    tags.PATIENT_BIRTH_DATE: _pooled("DA", f"{draw.randint(1930, 2010)}{draw.randint(1, 12):02d}15"),
                    tags.PATIENT_SEX: _pooled("CS", draw.choice("FM")),
                    tags.STUDY_ID: _fragment("SH", str(number % 100_000)),
                },
                draw.choice(_CODES),
            )


@lru_cache(maxsize=1 << 17)
def _pooled(vr: str, value: str) -> bytes:
    return _fragment(vr, value)


@lru_cache(maxsize=1 << 17)
def _rows_of(tag: int, fragment: bytes) -> list[matching.Posting]:
    return _rows({tag: fragment})


def _rows(attributes: Attributes) -> list[matching.Posting]:
    """Rows that these attributes give, for a study without a sort key."""
    rows = matching.study_postings(StudyEntry("", b"", attributes, {}, {}, 0, 0, 0))
    return [row for row in rows if row.database != ORDER]


def build(root: Path, studies: Studies) -> None:
    """An archive at `root` whose index has these studies, of one series each, and no instances."""
    Archive.open(root, create=True).close()
    lists: dict[bytes, array[int]] = {}
    texts: list[tuple[bytes, bytes]] = []
    keys: list[bytes] = []
    index = Index(str(root / layout.INDEX), sync=False)
    entries: list[tuple[bytes, bytes]] = []
    series: list[tuple[bytes, bytes]] = []
    for number, (study, attributes, modality) in enumerate(studies):
        at = matching.sort_key(attributes, study)
        keys.append(at)
        entry = StudyEntry(study, at, attributes, {modality: 1}, {}, 1, 1, 1)
        one = SeriesEntry(study, f"{study}.1", number, _series(modality, attributes), 1, 1)
        entries.append((study.encode(), encode(entry)))
        series.append((series_key(study, one.uid), encode(one)))
        rows = [row for tag, fragment in attributes.items() if tag not in _UNIQUE for row in _rows_of(tag, fragment)]
        rows += _rows({tag: attributes[tag] for tag in _UNIQUE})
        rows += [*_rows_of_modality(modality), *_rows_of_series(one.attributes[tags.SERIES_DESCRIPTION])]
        for database, key, value in rows:
            if database == TEXTS:
                texts.append((key + at, value))
            else:
                found = lists.get(key)
                if found is None:
                    found = lists[key] = array("I")
                found.append(number)
        if len(entries) == _AT_ONCE or number + 1 == studies.count:
            with index.write() as view:
                _put(view, b"studies", entries)
                _put(view, b"series", series)
            entries, series = [], []
            print(f"  {number + 1:>10,} studies", file=sys.stderr, flush=True)
    index.append(TEXTS, sorted(texts))
    place = np.array(keys, dtype="S12")
    order = np.argsort(place)
    rank = np.empty(len(order), np.uint32)
    rank[order] = np.arange(len(order), dtype=np.uint32)
    ascending = place[order]
    days = np.unique(np.frombuffer(ascending.tobytes(), "S3").reshape(-1, 4)[:, 0], return_counts=True)
    index.append(DAYS, ((day.ljust(3, b"\0"), COUNT.pack(count)) for day, count in zip(*map(list, days), strict=True)))
    named = [uid(f"study {number}").encode() for number in order]
    index.append(ORDER, zip(_twelves(ascending), named, strict=True))
    del texts, named
    index.append(POSTINGS, (
        (key, value) for key in sorted(lists)
        for value in _twelves(ascending[np.sort(rank[np.frombuffer(lists[key], np.uint32)])])
    ))  # fmt: skip
    with index.write() as view:
        state = view.state()
        state.counters.studies = state.counters.series = state.counters.instances = studies.count
        view.put_state(state)
    index.flush()
    index.close()


def _series(modality: str, attributes: Attributes) -> Attributes:
    return {
        tags.MODALITY: _pooled("CS", modality),
        tags.SERIES_DESCRIPTION: attributes[tags.STUDY_DESCRIPTION],
        tags.SERIES_NUMBER: _pooled("IS", "1"),
    }


@lru_cache
def _rows_of_modality(modality: str) -> list[matching.Posting]:
    rows = matching.study_postings(StudyEntry("", b"", {}, {modality: 1}, {}, 0, 0, 0))
    return [row for row in rows if row.database == POSTINGS]


@lru_cache
def _rows_of_series(description: bytes) -> list[matching.Posting]:
    none = StudyEntry("", b"", {}, {}, {}, 0, 0, 0)
    attributes = {tags.SERIES_DESCRIPTION: description, tags.SERIES_NUMBER: _pooled("IS", "1")}
    return list(matching.series_postings(none, SeriesEntry("", "", 0, attributes, 0, 0)))


def _twelves(found: np.ndarray[tuple[int], np.dtype[np.bytes_]]) -> Iterator[bytes]:
    packed = found.tobytes()
    return (packed[i : i + 12] for i in range(0, len(packed), 12))


def _put(view: WriteView, database: bytes, rows: Iterable[tuple[bytes, bytes]]) -> None:
    with view.txn.cursor(db=view.databases[database]) as cursor:
        cursor.putmulti(rows)


# --- searches -------------------------------------------------------------------------------------------------------


def queries(studies: Studies) -> dict[str, str]:
    """By name: what is asked for. Studies of the newest year are the most."""
    common, rare = studies.families[0], studies.families[studies.rare]
    year, month = studies.newest[:4], studies.newest[:6]
    week = f"StudyDate={month}22-{month}28"
    return {
        "first page": "studies?",
        "one Patient ID": f"studies?PatientID=P{studies.count // 2:08d}",
        "one Accession Number": f"studies?AccessionNumber=A{studies.count // 2:09d}",
        "begin of a name": f"studies?PatientName={rare}*",
        "begin of a common name": f"studies?PatientName={common}*",
        "*name*, few": f"studies?PatientName=*{rare.lower()}*",
        "*name*, very many": f"studies?PatientName=*{common.lower()}*",
        "*a*": "studies?PatientName=*a*",
        "*an*": "studies?PatientName=*an*",
        "*12*, Patient ID": "studies?PatientID=*12*",
        "*a*b*": "studies?PatientName=*a*b*",
        "two wide wildcards": "studies?PatientName=*an*&StudyDescription=*head*",
        "the last week": f"studies?{week}",
        "a year": f"studies?StudyDate={year}0101-{year}1231",
        "the last week, CT": f"studies?{week}&ModalitiesInStudy=CT",
        "a year, CT, a name": f"studies?StudyDate={year}0101-{year}1231&ModalitiesInStudy=CT&PatientName=*{common}*",
        "all CT": "studies?ModalitiesInStudy=CT",
        "born in a year": "studies?PatientBirthDate=19700101-19701231",
        "mornings": "studies?StudyTime=0600-0900",
        "*head*, of a series": "studies?SeriesDescription=*head*",
        "series, all CT": "series?Modality=CT",
        "a page at 5,000": "studies?offset=5000",
        "a page in the middle": f"studies?offset={studies.count // 2}",
    }


def main(argv: Sequence[str]) -> int:
    """Build, unless it is there, and measure."""
    arguments = _parser().parse_args(argv)
    studies = Studies(arguments.studies)
    with tempfile.TemporaryDirectory(prefix="pacs-benchmark-index-") as folder:
        root = (arguments.keep or Path(folder)) / "archive"
        if not root.exists():
            root.parent.mkdir(parents=True, exist_ok=True)
            build(root, studies)
        rows = list(measure(root, queries(studies), arguments.requests))
    print("| search | ms, p50 | ms, p99 | CPU of the server, ms | X-Total-Count |\n| --- | --: | --: | --: | --: |")
    for name, p50, p99, cpu, total in rows:
        print(f"| {name} | {report.number(p50)} | {report.number(p99)} | {report.number(cpu)} | {total} |")
    if arguments.out:
        names = ("search", "p50_ms", "p99_ms", "cpu_ms", "total")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        result = {"machine": machine.describe(), "studies": studies.count, "searches": found}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def measure(root: Path, asked: dict[str, str], requests: int) -> Iterator[tuple[str, float, float, float, str]]:
    """(name, p50, p99, CPU of the server, total) of each search; milliseconds. At most two seconds each."""
    with Pacs(1, archive=root) as server:
        for name, query in asked.items():
            mark = "" if query.endswith("?") else "&"
            request = load.get(f"{server.root}/{query}{mark}{_FIELDS}", server.host, _JSON)
            answer = load.fetch(server.address, request)
            if answer.status != 200 or not json.loads(answer.body):
                raise load.RequestFailedError(f"{name}: {query} finds nothing: {answer.status}")
            began, cpu = time.perf_counter(), server.cpu_seconds()
            run = load.run(server.address, iter([request] * requests), seconds=2.0)
            cpu = (server.cpu_seconds() - cpu) / run.requests * 1e3
            found = latency(run.latencies)
            total = answer.headers.get("x-total-count", "not told")
            yield name, found.p50, found.p99, cpu, total
            print(f"  {name}: {found.p50:.2f} ms, {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks index", description=__doc__)
    parser.add_argument("--studies", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--requests", type=int, default=200, help="of each kind (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="folder in which the archive stays, and is found again")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    return parser
