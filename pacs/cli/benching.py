"""`pacs bench`: what this node carries, or a server that runs already; two such reports beside each other."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pacs.bench import compare, model, page, run, summary
from pacs.bench.model import Report
from pacs.cli import OK, USAGE, WRONG
from pacs.cli.report import Progress, size_text
from pacs.cli.sending import headers_of
from pacs.client.resource import http_url

COMPARE = "compare"
_LEAST = 200 << 20
_SUFFIXES = (".json", ".html")


def bench(arguments: argparse.Namespace) -> int:
    targets: list[str] = arguments.target
    if targets[0] == COMPARE:
        return _compare(arguments, targets[1:])
    if len(targets) > 1:
        print(f"pacs bench: one folder or URL at a time, not {' '.join(targets)}", file=sys.stderr)
        return USAGE
    headers = headers_of(arguments)
    if headers is None:
        return USAGE
    options = run.Options(
        size=arguments.size, seconds=arguments.seconds, clients=arguments.clients, workers=arguments.workers,
        soak=arguments.soak, shrink=arguments.shrink, headers=headers,
    )  # fmt: skip
    if options.size * options.shrink**2 < _LEAST:
        print("pacs bench: --size 200M is the least: a few images of each kind take that", file=sys.stderr)
        return USAGE
    is_url = "://" in targets[0]
    if is_url:
        try:
            http_url(targets[0])
        except ValueError as error:
            print(f"pacs bench: {error}", file=sys.stderr)
            return USAGE
    if is_url and not arguments.yes:
        print(_warning(targets[0], options), file=sys.stderr)
        return USAGE
    base = arguments.out or Path(time.strftime("pacs-bench-%Y%m%d-%H%M%S"))
    written = [_beside(base, ".json"), _beside(base, ".html")]
    for path in written:
        _check_writable(path)
    total = run.steps(options, on_node=not is_url)
    with _ended_by_signals(), Progress("bench", total, "step") as bar:
        shown = _Shown(bar, total)
        if is_url:
            report = run.at_server(targets[0], options, shown)
        else:
            report = run.on_node(Path(targets[0]), options, shown)
    written[0].write_bytes(model.encode(report))
    written[1].write_text(page.render(report), encoding="utf-8")
    for line in summary.lines(report, shutil.get_terminal_size((100, 24)).columns):
        print(line)
    for line in _left_behind(report):
        print(line)
    _say_where(written)
    return WRONG if report.notes else OK


class _Shown(run.Progress):
    """Steps on the bar."""

    def __init__(self, bar: Progress, total: int) -> None:
        self._bar, self._total, self._begun = bar, total, 0

    def step(self, what: str) -> None:
        self._begun += 1
        self._bar.describe(what)
        self._bar.show(self._begun, self._total)

    def share(self, done: float) -> None:
        self._bar.show(self._begun + round(done * run.SOAK_STEPS), self._total)


def _warning(url: str, options: run.Options) -> str:
    """What a foreign server would keep."""
    return (
        f"pacs bench: up to {size_text(options.size)} of synthetic studies would be stored in {url} and stay there.\n"
        "Their Patient ID begins with BENCH- and their UIDs are of this run alone, so that they can be found and\n"
        "removed by whatever means that server has. Say --yes if that is what you want."
    )


def _left_behind(report: Report) -> Iterator[str]:
    if report.left_behind:
        patient = report.options.get("patient", "")
        yield ""
        sent = size_text(report.stored.get("sent", 0))
        yield f"left in {report.target}: {len(report.left_behind):,} studies, {sent}, all of Patient ID {patient}."
        yield (
            f"Find them with {report.target}/studies?PatientID={patient} and remove them there; the JSON report lists "
            "their UIDs."
        )


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end the run as Ctrl-C does: everything that was made is removed."""
    ended: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        # An exception from here would be lost in a callback of an event loop, which knows what to do with SIGINT.
        ended.append(number)
        signal.raise_signal(signal.SIGINT)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    # A shell starts what runs in the background with SIGINT ignored.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        if ended:
            sys.exit(128 + ended[0])
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _beside(base: Path, suffix: str) -> Path:
    """`base` with a suffix of its own, whichever of the two it was given with."""
    return base.with_suffix(suffix) if base.suffix in _SUFFIXES else base.with_name(base.name + suffix)


def _check_writable(path: Path) -> None:
    """Before minutes are spent. Raises OSError."""
    existed = path.exists()
    with path.open("ab"):
        pass
    if not existed:
        path.unlink()


def _say_where(paths: list[Path]) -> None:
    print("\nwritten to " + " and ".join(map(str, paths)))


def _compare(arguments: argparse.Namespace, paths: list[str]) -> int:
    if len(paths) != 2:
        print("pacs bench compare: name two reports, A.json and B.json", file=sys.stderr)
        return USAGE
    first, second = (model.read(Path(path)) for path in paths)
    found = compare.rows(first, second)
    if not found:
        print("pacs bench compare: the reports have no figure in common", file=sys.stderr)
        return WRONG
    path = _beside(arguments.out, ".html") if arguments.out is not None else None
    if path is not None:
        path.write_text(compare.render(found, first, second), encoding="utf-8")
    for line in compare.summary(found, first, second, shutil.get_terminal_size((100, 24)).columns):
        print(line)
    if path is not None:
        _say_where([path])
    return OK
