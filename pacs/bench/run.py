"""A whole run: which parts there are, in which order, and where they may write."""

from __future__ import annotations

import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pacs import __version__
from pacs.bench import codecs, commits, disk, machine, stages, target, verdict
from pacs.bench.corpus import Corpus
from pacs.bench.exchange import SWEEPS, Effort, Exchange, client_counts
from pacs.bench.kinds import KINDS
from pacs.bench.load import RequestFailedError
from pacs.bench.model import Report
from pacs.bench.soak import soak
from pacs.bench.target import Target
from pacs.errors import BenchError
from pacs.storage import layout

_LARGEST_FILE: Final = 1 << 30
_MARGIN: Final = 256 << 20
"""Bytes that stay free whatever is written."""
_STAGES: Final = 200 << 20
"""Bytes that the stages of an ingest may write."""
_EXCHANGE_STEPS: Final = 1 + len(SWEEPS) + len(KINDS)
_NODE_STEPS: Final = 4 + 1 + len(codecs.CODECS) + 1 + 1 + len(KINDS) + 1


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured."""

    size: int = 2 << 30
    """The most bytes that are sent, and written for the archive's part."""
    seconds: float = 3.0
    """Of each timed run."""
    clients: int = 0
    """The most clients at once; 0: four for each core, eight at least."""
    workers: int = 0
    """Of the server that is started; 0: one for each core."""
    soak: float = 0.0
    """Minutes."""
    shrink: int = 1
    """Divides the sides of images: for tests."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def effort(self) -> Effort:
        most = self.clients or min(256, max(8, 4 * machine.cores()))
        share = 0.8 if self.soak else 1.0
        return Effort(int(self.size * share), self.seconds, client_counts(most))


SOAK_STEPS: Final = 60


def steps(options: Options, *, on_node: bool) -> int:
    """How often a run tells that something begins, and SOAK_STEPS for a soak."""
    return _EXCHANGE_STEPS + (1 + SOAK_STEPS if options.soak else 0) + (_NODE_STEPS if on_node else 0)


class Progress:
    """What is told while a run is under way; this one tells nobody."""

    def step(self, what: str) -> None:
        """`what` begins."""

    def share(self, done: float) -> None:
        """So much of the soak is over."""


def on_node(folder: Path, options: Options, progress: Progress) -> Report:
    """Everything, on the disk below `folder` and a server of its own. Nothing stays. Raises BenchError."""
    check_folder(folder)
    file_size = min(_LARGEST_FILE, max(8 << 20, options.size // 4))
    check_room(folder, options, file_size)
    report, corpus = _begin(str(folder.resolve()), options)
    began = time.perf_counter()
    interval = sys.getswitchinterval()
    # As in the server: codecs release the interpreter, and should get it back soon.
    sys.setswitchinterval(0.0005)
    try:
        with target.working_folder(folder) as work:
            report.disk = disk.measure(work, file_size, options.seconds, progress.step)
            progress.step("index")
            report.index = commits.measure(work, options.seconds)
            report.codecs = list(codecs.measure(corpus, options.seconds, progress.step))
            progress.step("codecs: each core")
            report.cores = codecs.each_core(corpus, options.seconds)
            for kind in KINDS:
                progress.step(f"{kind.modality}: stages of an ingest")
                report.stages.append(stages.measure(work, corpus, kind.modality, options.seconds / 2))
                shutil.rmtree(work / f"stages-{kind.modality}", ignore_errors=True)
            progress.step("starting a server")
            with target.own_server(work, options.workers or machine.cores()) as server:
                report.memory["idle"] = machine.memory(server.pid)
                _exchange(server, corpus, options, report, progress)
                report.memory["peak"] = machine.peak_memory(server.pid)
                report.stored["on_disk"] = layout.bytes_on_disk(work / "archive")
    finally:
        sys.setswitchinterval(interval)
    return _end(report, began)


def at_server(url: str, options: Options, progress: Progress) -> Report:
    """The exchange alone, with a server that runs already; what it stores stays there. Raises BenchError."""
    report, corpus = _begin(url, options)
    began = time.perf_counter()
    server = target.at_url(url, options.headers)
    report.own_server = False
    _exchange(server, corpus, options, report, progress)
    return _end(report, began)


def _begin(what: str, options: Options) -> tuple[Report, Corpus]:
    corpus = Corpus(secrets.token_hex(4), options.shrink)
    report = Report(version=__version__, node=machine.describe(), target=what)
    report.node["links"] = machine.links()
    effort = options.effort()
    report.options = {
        "size": options.size, "seconds": options.seconds, "clients": list(effort.clients),
        "workers": options.workers or machine.cores(), "soak": options.soak, "shrink": options.shrink,
        "patient": corpus.patient,
    }  # fmt: skip
    return report, corpus


def _end(report: Report, began: float) -> Report:
    report.seconds = time.perf_counter() - began
    report.verdict = verdict.judge(report)
    return report


def _exchange(server: Target, corpus: Corpus, options: Options, report: Report, progress: Progress) -> None:
    exchange = Exchange(server, corpus, options.effort())

    def attempt(what: str, work: Callable[[], None]) -> None:
        """What a server cannot do is noted, and the rest goes on."""
        progress.step(what)
        try:
            work()
        except RequestFailedError as error:
            report.notes.append(f"{what}: {error}")

    try:
        attempt("store", lambda: report.sweeps.append(exchange.store()))
        try:
            exchange.prepare()
        except RequestFailedError as error:
            raise BenchError(f"{server.url} does not store what it is sent: {error}") from None
        for name, sweep in SWEEPS.items():
            attempt(name, lambda sweep=sweep: report.sweeps.append(sweep(exchange)))  # type: ignore[misc]
        try:
            report.kinds += exchange.kinds(progress.step)
        except RequestFailedError as error:
            report.notes.append(f"kinds of images: {error}")
        if options.soak:
            progress.step("soak")
            left = max(0, options.size - exchange.sent_bytes)
            try:
                report.soak = soak(exchange, options.soak, left, progress.share)
            except RequestFailedError as error:
                report.notes.append(f"the soak ended early: {error}")
    finally:
        exchange.settle()
        report.stored["sent"] = exchange.sent_bytes
        if not server.own:
            report.left_behind = list(exchange.studies)


# --- where it may be ------------------------------------------------------------------------------------------------


def check_folder(folder: Path) -> None:
    """Raises BenchError where nothing may be written: an archive, or no folder."""
    if not folder.is_dir():
        raise BenchError(f"{folder} is not a folder: name one on the disk that is to hold the archive")
    for place in (folder.resolve(), *folder.resolve().parents):
        if layout.is_archive(place):
            raise BenchError(f"{place} is an archive: name a folder beside it on the same disk")


def check_room(folder: Path, options: Options, file_size: int) -> None:
    """Raises BenchError where the run would fill the disk. What is written at a time: the file, then the archive."""
    needed = max(2 * file_size, _STAGES, options.size + options.size // 10) + _MARGIN
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BenchError(
            f"{folder} has {free / 1e9:.1f} GB free and up to {needed / 1e9:.1f} GB may be written for a while: "
            "ask for less with --size"
        )
