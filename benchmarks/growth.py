"""`python -m benchmarks growth`: what an archive costs as it grows. Nothing of a request or a commit should.

One archive of small CT frames is filled through the archive's own API by several processes. Each time it reaches one
of the sizes everything is measured over it: the rate of ingest just before, start-up, searches, metadata, frames,
pages of the index that a request touches, `check`, `reindex`, bytes of the index for each instance.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from benchmarks import growth_plot, machine, report, workload
from benchmarks.servers import Pacs
from pacs import demo
from pacs.archive import Archive, StoreResult
from pacs.bench import load
from pacs.bench.corpus import KINDS, Corpus, Image, Instance, elements, uid
from pacs.bench.machine import major_faults
from pacs.bench.model import latency
from pacs.storage import layout
from pacs.storage.index import Index

SIZES = (10_000, 100_000, 1_000_000)
_CHUNKS = 10
"""In which an archive grows to the next size; the last ones tell the rate of ingest there."""
_IN_WORK = 64
_JSON = "application/dicom+json"
_STORED = "multipart/related; type=application/octet-stream; transfer-syntax=*"


@dataclass(frozen=True, slots=True)
class Shape:
    """What the archive is filled with."""

    rows: int
    per_study: int


@dataclass(slots=True)
class Size:
    """Everything measured at one size. Milliseconds, a second, bytes: as the names say."""

    instances: int
    studies: int
    ingest_per_second: float
    start_seconds: float = 0.0
    search_p50_ms: dict[str, float] = field(default_factory=dict)
    search_p99_ms: dict[str, float] = field(default_factory=dict)
    index_pages: dict[str, float] = field(default_factory=dict)
    """Pages of the index that a request reads from the disk when none is cached."""
    metadata_p50_ms: float = 0.0
    metadata_p99_ms: float = 0.0
    frame_p50_ms: float = 0.0
    frame_p99_ms: float = 0.0
    check_per_second: float = 0.0
    reindex_per_second: float = 0.0
    index_bytes_per_instance: float = 0.0
    reindexed_bytes_per_instance: float = 0.0
    disk_bytes_per_instance: float = 0.0
    memory_MB: float = 0.0
    """Of the server after all of it."""


# --- what is stored -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Study:
    """The study of a number: always the same, so that nobody has to remember a million of them."""

    number: int

    @property
    def name(self) -> str:
        return f"growth {self.number}"

    @property
    def patient_id(self) -> str:
        return f"P{self.number:08d}"

    @property
    def family(self) -> str:
        return self._draw().choice(workload.FAMILIES)

    @property
    def date(self) -> str:
        draw = self._draw()
        draw.random()
        return f"{draw.randint(2005, 2024)}{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}"

    def _draw(self) -> random.Random:
        return random.Random(self.number)

    def elements(self, common: Sequence[demo.Element]) -> list[demo.Element]:
        given = random.Random(-self.number).choice(workload.GIVEN)
        own: list[demo.Element] = [
            (0x00080020, "DA", self.date), (0x00080050, "SH", f"A{self.number:08d}"),
            (0x00100010, "PN", f"{self.family}^{given}"), (0x00100020, "LO", self.patient_id),
        ]  # fmt: skip
        return list({element[0]: element for element in (*common, *own)}.values())

    def instances(self, images: Sequence[Image], count: int) -> Iterator[Instance]:
        common = elements(images[0].kind, "")
        pixels = bytes(images[0].pixels)
        file = demo.part10([*self.elements(common), (0x7FE00010, "OW", pixels)])
        header = file[: len(file) - len(pixels)]
        for number in range(count):
            image = replace(images[number % len(images)], header=header)
            yield image.instance(self.name, f"{self.name}/series", number + 1)


def _images(shape: Shape) -> Sequence[Image]:
    return Corpus("growth").images("CT", max(1, KINDS[0].rows // shape.rows))


class _Filler:
    """One process that stores studies."""

    archive: Archive
    images: Sequence[Image]
    shape: Shape

    @classmethod
    def open(cls, root: str, shape: Shape) -> None:
        cls.archive, cls.shape, cls.images = Archive.open(root, threads=1), shape, _images(shape)
        Finalize(None, cls.archive.close, exitpriority=1)

    @classmethod
    def store(cls, number: int) -> None:
        waiting: deque[Future[StoreResult]] = deque()
        for instance in Study(number).instances(cls.images, cls.shape.per_study):
            waiting.append(cls.archive.submit(instance.file))
            if len(waiting) >= _IN_WORK:
                _stored(waiting.popleft())
        while waiting:
            _stored(waiting.popleft())


def _stored(future: Future[StoreResult]) -> None:
    result = future.result()
    if result.status != "stored":
        raise load.RequestFailedError(f"{result.status}: {result.error}")


def fill(root: Path, shape: Shape, first: int, last: int, processes: int) -> list[tuple[int, float]]:
    """Store studies `first` up to `last`; (instances so far, instances a second) of each chunk."""
    rates = []
    pool = multiprocessing.get_context("spawn").Pool(processes, _Filler.open, (str(root), shape))
    try:
        pool.map(_ready, range(processes * 4), chunksize=1)
        steps = max(1, (last - first) // _CHUNKS)
        for begin in range(first, last, steps):
            end = min(last, begin + steps)
            began = time.perf_counter()
            pool.map(_Filler.store, range(begin, end), chunksize=1)
            rate = (end - begin) * shape.per_study / (time.perf_counter() - began)
            rates.append((end * shape.per_study, rate))
            print(f"  {end * shape.per_study:>10,} instances, {rate:,.0f}/s", file=sys.stderr)
    finally:
        pool.close()
        pool.join()
    return rates


def _ready(_: int) -> None:
    """Has every process of a pool begun, before anything is timed."""
    time.sleep(0.01)


# --- what is measured -----------------------------------------------------------------------------------------------

_FIELDS = "limit=101&includefield=00081030"
QUERIES: dict[str, Callable[[Study, int], str]] = {
    "first page": lambda study, studies: f"studies?{_FIELDS}",
    "exact key": lambda study, studies: f"studies?PatientID={study.patient_id}&{_FIELDS}",
    "wildcard": lambda study, studies: f"studies?PatientName={study.family[:5]}*&StudyDate={study.date}&{_FIELDS}",
    "range": lambda study, studies: f"studies?StudyDate={study.date[:6]}01-{study.date[:6]}31&{_FIELDS}",
    "broad": lambda study, studies: f"studies?PatientName=*a*&{_FIELDS}",
    "middle": lambda study, studies: f"studies?offset={studies // 2}&{_FIELDS}",
    "instances": lambda study, studies: f"studies/{uid(study.name)}/instances?limit=101",
}


def measure(root: Path, shape: Shape, size: Size, workers: int, requests: int) -> None:
    """Fill in `size` over the archive at `root`."""
    draw = random.Random(size.instances)

    def some() -> Study:
        return Study(draw.randrange(size.studies))

    began = time.perf_counter()
    with Pacs(workers, archive=root) as server:
        size.start_seconds = time.perf_counter() - began
        for name, query in QUERIES.items():
            _verify(server, query(some(), size.studies), name)
            load.run(server.address, (_get(server, query(some(), size.studies)) for _ in range(10)))
            run = load.run(server.address, (_get(server, query(some(), size.studies)) for _ in range(requests)))
            found = latency(run.latencies)
            size.search_p50_ms[name], size.search_p99_ms[name] = found.p50, found.p99
        series = (f"{_series(some())}/metadata" for _ in range(max(2, requests // 4)))
        found = latency(load.run(server.address, (_get(server, path) for path in series)).latencies)
        size.metadata_p50_ms, size.metadata_p99_ms = found.p50, found.p99
        paths = (_frame(some(), draw.randint(1, shape.per_study)) for _ in range(requests))
        found = latency(load.run(server.address, (_get(server, path, _STORED) for path in paths)).latencies)
        size.frame_p50_ms, size.frame_p99_ms = found.p50, found.p99
        assert server.process is not None
        size.memory_MB = machine.memory(server.process.pid) / 1e6
    size.index_pages = _pages(root, size, some)
    data = root / layout.INDEX / "data.mdb"
    size.index_bytes_per_instance = _index_bytes(root) / size.instances
    size.check_per_second = size.instances / _command("check", root)
    size.reindex_per_second = size.instances / _command("reindex", root)
    size.reindexed_bytes_per_instance = _index_bytes(root) / size.instances
    size.disk_bytes_per_instance = layout.bytes_on_disk(root / layout.STUDIES) / size.instances
    assert data.exists()


def _get(server: Pacs, path: str, accept: str = _JSON) -> load.Request:
    return load.get(f"{server.root}/{path}", server.host, accept)


def _series(study: Study) -> str:
    return f"studies/{uid(study.name)}/series/{uid(f'{study.name}/series')}"


def _frame(study: Study, number: int) -> str:
    return f"{_series(study)}/instances/{uid(f'{study.name}/series/{number}')}/frames/1"


def _verify(server: Pacs, query: str, name: str) -> None:
    """A search that finds nothing would be quick."""
    answer = load.fetch(server.address, _get(server, query))
    if answer.status != 200 or not json.loads(answer.body):
        raise load.RequestFailedError(f"{name}: {query} finds nothing: {answer.status}")


def _pages(root: Path, size: Size, some: Callable[[], Study]) -> dict[str, float]:
    """Major faults of a worker for each request while nothing of the index is cached: each is one page of it.

    LMDB maps it without reading ahead. Requests share the upper pages of the trees, as they would on a busy day.
    """
    found = {}
    for name, query in (*QUERIES.items(), ("frame", lambda study, studies: _frame(study, 1))):
        with Pacs(1, archive=root) as server:
            assert server.process is not None
            load.fetch(server.address, _get(server, "studies?PatientID=nobody"))
            with (root / layout.INDEX / "data.mdb").open("rb") as data:
                os.posix_fadvise(data.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            before = major_faults(server.process.pid)
            count = 20
            accept = _STORED if name == "frame" else _JSON
            requests = [_get(server, query(some(), size.studies), accept) for _ in range(count)]
            load.run(server.address, iter(requests))
            found[name] = (major_faults(server.process.pid) - before) / count
    return found


def _index_bytes(root: Path) -> int:
    """Bytes of the index in use, free pages of it left out where LMDB tells."""
    index = Index(str(root / layout.INDEX), readonly=True)
    try:
        return index.size()[0]
    finally:
        index.close()


def _command(name: str, root: Path) -> float:
    """Seconds of a `pacs` command that must succeed."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pacs", name, "--archive", str(root)], check=True, stdout=subprocess.DEVNULL,
        cwd=machine.ROOT,
    )  # fmt: skip
    return time.perf_counter() - began


# --- the command ------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> int:
    """Grow an archive and measure it at each size."""
    arguments = _parser().parse_args(argv)
    shape = Shape(arguments.rows, arguments.per_study)
    sizes = sorted({max(1, size // shape.per_study) for size in arguments.sizes})
    needed = sizes[-1] * shape.per_study * (shape.rows**2 + 6000)
    folder = arguments.dir or Path(tempfile.gettempdir())
    if shutil.disk_usage(folder).free < 1.2 * needed:
        sys.exit(f"{folder} has less than {1.2 * needed / 1e9:.0f} GB free: name another folder with --dir")
    description = machine.describe()
    result: dict[str, Any] = {"machine": description, "shape": asdict(shape), "ingest": [], "sizes": []}
    with tempfile.TemporaryDirectory(prefix="pacs-benchmark-growth-", dir=folder) as work:
        root = Path(work) / "archive"
        Archive.open(root, create=True).close()
        stored = 0
        for studies in sizes:
            rates = fill(root, shape, stored, studies, arguments.processes)
            stored = studies
            result["ingest"] += rates
            last = sorted(rate for _, rate in rates[-3:])
            size = Size(studies * shape.per_study, studies, last[len(last) // 2])
            measure(root, shape, size, arguments.workers, arguments.requests)
            result["sizes"].append(asdict(size))
            _write(result, arguments)
            print(table(result["sizes"]), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth", description=__doc__)
    parser.add_argument(
        "--sizes", metavar="N", type=int, nargs="+", default=SIZES, help=f"instances (default: {SIZES})"
    )
    parser.add_argument("--rows", type=int, default=64, help="rows and columns of a frame (default: %(default)s)")
    parser.add_argument("--per-study", type=int, default=50, help="instances of a study (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=cores, help="that fill the archive (default: cores)")
    parser.add_argument("--workers", type=int, default=cores, help="of the server that is asked (default: cores)")
    parser.add_argument("--requests", type=int, default=300, help="of each kind (default: %(default)s)")
    parser.add_argument("--dir", type=Path, help="folder for the archive, removed afterwards (default: the system's)")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON; the curves go beside it as .svg")
    return parser


def _write(result: dict[str, Any], arguments: argparse.Namespace) -> None:
    """After every size, so that hours are not lost with the last one."""
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        arguments.out.with_suffix(".svg").write_text(growth_plot.draw(result["sizes"]), encoding="utf-8")


def table(sizes: Sequence[dict[str, Any]]) -> str:
    """In Markdown, a column for each size."""
    rows: list[tuple[str, str, Callable[[dict[str, Any]], float]]] = [
        ("ingest", "instances/s", lambda size: size["ingest_per_second"]),
        ("start of the server", "s", lambda size: size["start_seconds"]),
    ]

    def of(key: str, name: str) -> Callable[[dict[str, Any]], float]:
        return lambda size: float(size[key][name])

    for name in QUERIES:
        rows.append((f"search, {name}, p50", "ms", of("search_p50_ms", name)))
        rows.append((f"search, {name}, p99", "ms", of("search_p99_ms", name)))
    for name in sizes[0]["index_pages"]:
        rows.append((f"index read from disk, {name}", "pages", of("index_pages", name)))
    for label, unit, key in (
        ("metadata of a series, p50", "ms", "metadata_p50_ms"), ("metadata of a series, p99", "ms", "metadata_p99_ms"),
        ("frame, p50", "ms", "frame_p50_ms"), ("frame, p99", "ms", "frame_p99_ms"),
        ("`pacs check`", "instances/s", "check_per_second"), ("`pacs reindex`", "instances/s", "reindex_per_second"),
        ("index, an instance", "bytes", "index_bytes_per_instance"),
        ("the same, rebuilt", "bytes", "reindexed_bytes_per_instance"),
        ("on disk, an instance", "bytes", "disk_bytes_per_instance"), ("memory of the server", "MB", "memory_MB"),
    ):  # fmt: skip
        rows.append((label, unit, lambda size, key=key: float(size[key])))  # type: ignore[misc]
    head = "| | unit | " + " | ".join(f"{size['instances']:,}" for size in sizes) + " |"
    lines = [head, "| --- | --- |" + " --: |" * len(sizes)]
    lines += [f"| {label} | {unit} | " + " | ".join(report.number(value(size)) for size in sizes) + " |"
              for label, unit, value in rows]  # fmt: skip
    return "\n".join(lines)
