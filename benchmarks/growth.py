"""`python -m benchmarks growth`: what an archive costs as it grows. Nothing of a request or a commit should.

One archive of small CT frames is filled through the archive's own API by several processes. Each time it reaches one
of the sizes everything is measured over it: the rate of ingest just before, uploads, start-up, searches, metadata,
frames, pages of the index that a request touches, `check`, `reindex`, bytes of the index for each instance. The
figures are written after each step; with `--keep` a run that was cut short goes on where it ended.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import growth_plot, machine
from benchmarks.growth_fill import Shape, Study, fill, images_of
from benchmarks.servers import Pacs
from pacs.archive import Archive
from pacs.bench import load
from pacs.bench.corpus import uid
from pacs.bench.machine import major_faults
from pacs.bench.model import latency
from pacs.storage import layout
from pacs.storage.index import Index

SIZES = (10_000, 100_000, 1_000_000)
_CLIENTS = 4
"""That upload at once."""
_JSON = "application/dicom+json"
_STORED = "multipart/related; type=application/octet-stream; transfer-syntax=*"


@dataclass(slots=True)
class Size:
    """Everything measured at one size. Milliseconds, a second, bytes: as the names say."""

    instances: int
    studies: int
    ingest_per_second: float
    """Through the archive's API, by several processes."""
    start_seconds: float = 0.0
    start_after_boot_seconds: float = 0.0
    """When the machine has started anew: the end of every log is looked at."""
    stow_per_second: dict[str, float] = field(default_factory=dict)
    """Instances uploaded, by how many one request has."""
    stow_p50_ms: float = 0.0
    stow_p99_ms: float = 0.0
    """Of uploads of one instance."""
    stow_cpu_ms: float = 0.0
    """Of the server for each of them: on a busy machine times lie, CPU time less so."""
    search_p50_ms: dict[str, float] = field(default_factory=dict)
    search_p99_ms: dict[str, float] = field(default_factory=dict)
    search_cpu_ms: dict[str, float] = field(default_factory=dict)
    """Of the server for each."""
    index_pages: dict[str, float] = field(default_factory=dict)
    """Pages of the index that a request reads from the disk when none is cached."""
    metadata_p50_ms: float = 0.0
    metadata_p99_ms: float = 0.0
    frame_p50_ms: float = 0.0
    frame_p99_ms: float = 0.0
    check_per_second: float = 0.0
    reindex_per_second: float = 0.0
    check_cpu_ms: float = 0.0
    reindex_cpu_ms: float = 0.0
    """For each instance."""
    check_MB: float = 0.0
    reindex_MB: float = 0.0
    """Most memory of it, pages of the index among it."""
    index_bytes_per_instance: float = 0.0
    reindexed_bytes_per_instance: float = 0.0
    disk_bytes_per_instance: float = 0.0
    memory_MB: float = 0.0
    """Of the server after all of its requests; a shared page is divided among those that share it."""


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


def measure(root: Path, shape: Shape, size: Size, workers: int, requests: int) -> Iterator[str]:
    """Fill in `size` over the archive at `root`; tells what has been measured after each step."""
    draw = random.Random(size.instances)

    def some() -> Study:
        return Study(draw.randrange(size.studies))

    size.start_after_boot_seconds = _start(root, workers, booted=True)
    size.start_seconds = _start(root, workers)
    yield "start"
    size.index_pages = _pages(root, size, some)
    yield "pages of the index"
    with Pacs(workers, archive=root) as server:
        for name, query in QUERIES.items():
            _verify(server, query(some(), size.studies), name)
            load.run(server.address, (_get(server, query(some(), size.studies)) for _ in range(10)))
            cpu = server.cpu_seconds()
            run = load.run(server.address, (_get(server, query(some(), size.studies)) for _ in range(requests)))
            size.search_cpu_ms[name] = (server.cpu_seconds() - cpu) / requests * 1e3
            found = latency(run.latencies)
            size.search_p50_ms[name], size.search_p99_ms[name] = found.p50, found.p99
        yield "searches"
        series = (f"{_series(some())}/metadata" for _ in range(max(2, requests // 4)))
        found = latency(load.run(server.address, (_get(server, path) for path in series)).latencies)
        size.metadata_p50_ms, size.metadata_p99_ms = found.p50, found.p99
        paths = (_frame(some(), draw.randint(1, shape.per_study)) for _ in range(requests))
        found = latency(load.run(server.address, (_get(server, path, _STORED) for path in paths)).latencies)
        size.frame_p50_ms, size.frame_p99_ms = found.p50, found.p99
        assert server.process is not None
        size.memory_MB = machine.memory(server.process.pid) / 1e6
        yield "metadata and frames"
        _upload(server, shape, size, requests)
        yield "uploads"
    size.index_bytes_per_instance = _index_bytes(root)
    size.check_per_second, size.check_cpu_ms, size.check_MB = _command("check", root)
    yield "check"
    size.reindex_per_second, size.reindex_cpu_ms, size.reindex_MB = _command("reindex", root)
    size.reindexed_bytes_per_instance = _index_bytes(root)
    size.disk_bytes_per_instance = layout.bytes_on_disk(root / layout.STUDIES) / _instances(root)
    yield "reindex"


def _start(root: Path, workers: int, *, booted: bool = False) -> float:
    """Seconds until the server is ready."""
    if booted:
        index = Index(str(root / layout.INDEX))
        with index.write() as view:
            state = view.state()
            state.boot = "another"
            view.put_state(state)
        index.close()
    began = time.perf_counter()
    with Pacs(workers, archive=root):
        return time.perf_counter() - began


def _upload(server: Pacs, shape: Shape, size: Size, requests: int) -> None:
    """STOW-RS of studies that are new, beside those that are counted: less than 2 % of 10,000 instances by default."""
    images = images_of(shape)
    numbers = iter(random.SystemRandom().sample(range(10**9, 10**12), 10_000))
    files = (one.pieces for number in numbers for one in Study(number).instances(images, shape.per_study))
    for each, name in ((1, "1 a request"), (10, "10 a request")):
        batches = [list(islice(files, each)) for _ in range(-(-requests // each))]
        uploads = [load.stow(f"{server.root}/studies", server.host, batch) for batch in batches]
        cpu = server.cpu_seconds()
        run = load.run(server.address, iter(uploads), clients=_CLIENTS)
        size.stow_per_second[name] = run.instances / run.seconds
        if each == 1:
            found = latency(run.latencies)
            size.stow_p50_ms, size.stow_p99_ms = found.p50, found.p99
            size.stow_cpu_ms = (server.cpu_seconds() - cpu) / run.instances * 1e3


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


def _index_bytes(root: Path) -> float:
    """Bytes of the index for each instance, free pages among them."""
    index = Index(str(root / layout.INDEX), readonly=True)
    try:
        with index.read() as view:
            return index.size()[0] / view.counters().instances
    finally:
        index.close()


def _instances(root: Path) -> int:
    index = Index(str(root / layout.INDEX), readonly=True)
    try:
        with index.read() as view:
            return view.counters().instances
    finally:
        index.close()


def _command(name: str, root: Path) -> tuple[float, float, float]:
    """(instances a second, CPU milliseconds an instance, most megabytes) of a `pacs` command that must succeed."""
    count = _instances(root)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "pacs", name, "--archive", str(root)], stdout=subprocess.DEVNULL, cwd=machine.ROOT
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise load.RequestFailedError(f"pacs {name} ended with status {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return count / seconds, cpu / count * 1e3, usage.ru_maxrss * 1024 / 1e6


# --- the command ------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> int:
    """Grow an archive and measure it at each size."""
    arguments = _parser().parse_args(argv)
    shape = Shape(arguments.rows, arguments.per_study)
    sizes = sorted({max(1, size // shape.per_study) for size in arguments.sizes})
    folder = arguments.keep or arguments.dir or Path(tempfile.gettempdir())
    with ExitStack() as closing:
        if arguments.keep:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            work = tempfile.TemporaryDirectory(prefix="pacs-benchmark-growth-", dir=folder)
            folder = Path(closing.enter_context(work))
        run = _Run(folder, shape, arguments)
        needed = 1.2 * (sizes[-1] - run.stored) * shape.per_study * (shape.rows**2 + 6000)
        if shutil.disk_usage(folder).free < needed:
            sys.exit(f"{folder} has less than {needed / 1e9:.0f} GB free: name another folder with --dir or --keep")
        for studies in sizes:
            run.to(studies)
    return 0


class _Run:
    """An archive that grows, and what was measured of it so far."""

    def __init__(self, folder: Path, shape: Shape, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._shape = shape
        self._root = folder / "archive"
        self._state = folder / "growth.json"
        self._began = time.monotonic()
        self.stored = 0
        """Studies that are stored for certain."""
        self._result: dict[str, Any] = {"machine": {}, "shape": asdict(shape), "ingest": [], "sizes": []}
        if self._state.exists():
            found = json.loads(self._state.read_text())
            if found["result"]["shape"] != asdict(shape):
                sys.exit(f"{folder} holds an archive of another shape")
            self.stored, self._result = found["stored"], found["result"]
            self._result["sizes"] = [size for size in self._result["sizes"] if size["reindexed_bytes_per_instance"]]
        else:
            Archive.open(self._root, create=True).close()
        self._result["machine"] = machine.describe()

    def to(self, studies: int) -> None:
        """Grow to this size and measure, unless that has been done."""
        instances = studies * self._shape.per_study
        if any(size["instances"] == instances for size in self._result["sizes"]) or studies < self.stored:
            return
        for stored, rate in fill(self._root, self._shape, self.stored, studies, self._arguments.processes):
            self.stored = stored
            self._result["ingest"].append((stored * self._shape.per_study, rate))
            self._write()
        rates = sorted(rate for count, rate in self._result["ingest"][-3:] if count <= instances)
        size = Size(instances, studies, rates[len(rates) // 2])
        self._result["sizes"].append({})
        for step in measure(self._root, self._shape, size, self._arguments.workers, self._arguments.requests):
            self._result["sizes"][-1] = asdict(size)
            self._write()
            print(f"  {time.monotonic() - self._began:8.0f} s  {instances:,}: {step}", file=sys.stderr, flush=True)
        print(growth_plot.table(self._result["sizes"]), flush=True)

    def _write(self) -> None:
        """After every step, so that hours are not lost with the last one."""
        self._state.write_text(json.dumps({"stored": self.stored, "result": self._result}))
        out: Path | None = self._arguments.out
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(self._result, indent=1) + "\n")
            whole = [size for size in self._result["sizes"] if size.get("reindexed_bytes_per_instance")]
            if whole:
                out.with_suffix(".svg").write_text(growth_plot.draw(whole), encoding="utf-8")


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
    parser.add_argument("--keep", type=Path, help="folder in which the archive stays; a run that was cut short goes on")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON; the curves go beside it as .svg")
    return parser
