"""`pacs check`, `pacs reindex`, `pacs strays`, `pacs info`: looking after an archive."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pacs.cli import OK, WRONG
from pacs.cli.places import require_archive
from pacs.cli.report import Progress, count_text, size_text
from pacs.storage import layout
from pacs.storage.index import Index, readers

if TYPE_CHECKING:
    from pacs.storage.model import InstanceEntry


@contextmanager
def reading(root: Path) -> Iterator[Index]:
    """The index of what has to be an archive, to read from alone."""
    require_archive(root)
    with readers.reading(root) as index:
        yield index


def check(arguments: argparse.Namespace) -> int:
    from pacs import proof
    from pacs.reading import Committed
    from pacs.storage.check import Severity
    from pacs.storage.check import check as check_archive

    root: Path = arguments.archive
    require_archive(root)
    signal = readers.kills(root)
    if signal:
        text = f"its pages are damaged, reading them ends with {signal}: run `pacs reindex`"
        print(f"error: {layout.INDEX}/data.mdb: {text}")
        print("nothing else was checked: 1 error")
        return WRONG
    errors = notes = 0
    with reading(root) as index, Progress("checking", 0, "series") as progress:

        def verify(entry: InstanceEntry) -> None:
            proof.verify(Committed(root, index, entry))

        for finding in check_archive(
            root, index, verify=verify, progress=lambda _, done, total: progress.show(done, total)
        ):
            errors += finding.severity is Severity.ERROR
            notes += finding.severity is Severity.NOTE
            text = finding.text.removeprefix(f"{finding.path}: ")  # an error of the file says it again
            progress.print(f"{finding.severity.value}: {finding.path}: {text}")
        checked = _checked(index)
    verdict = count_text(errors, "error") if errors else "everything is in order"
    verdict += f", {count_text(notes, 'note')}" if notes else ""
    print(f"{checked}: {verdict}")
    return WRONG if errors else OK


def _checked(index: Index) -> str:
    try:
        with index.read() as view:
            return f"{count_text(view.counters().instances, 'instance')} checked"
    except Exception:  # noqa: BLE001
        return "an unknown number of instances checked"  # it has been said that the index cannot be read


def reindex(arguments: argparse.Namespace) -> int:
    from pacs.storage.recovery.reindex import reindex as reindex_archive

    require_archive(arguments.archive)
    with Progress("reindexing", 0, "step") as progress:

        def show(what: str, done: int, total: int) -> None:
            progress.describe(what)
            progress.show(done, total)

        result = reindex_archive(arguments.archive, progress=show)
    for text in result.damaged:
        print(f"left out: {text}", file=sys.stderr)
    print(f"the index is new: {count_text(result.instances, 'instance')}")
    return WRONG if result.damaged else OK


def strays(arguments: argparse.Namespace) -> int:
    from pacs.storage.recovery.stray_arrays import strays as stray_arrays

    root: Path = arguments.archive
    require_archive(root)
    found = stray_arrays(root, move=arguments.set_aside)
    for stray in found:
        if stray.doubt:
            text = f"stays, it may be more than what a killed process left: {stray.doubt}"
        else:
            text = f"now in {stray.moved}" if stray.moved else "no record names it"
        print(f"{stray.path}: {size_text(stray.size)}, {text}")
    print(f"{count_text(len(found), 'array')} that no record names, {size_text(sum(each.size for each in found))}")
    return WRONG if any(stray.doubt for stray in found) else OK


def info(arguments: argparse.Namespace) -> int:
    root: Path = arguments.archive
    with reading(root) as index:
        readers.check_newest(root, index)
        with index.read() as view:
            counters = view.counters()
        description = layout.read_description(root)
    stored, used_by_index = layout.bytes_on_disk(root / layout.STUDIES), layout.bytes_on_disk(root / layout.INDEX)
    ratio = counters.received_bytes / stored if stored else 0.0
    if arguments.json:
        print(json.dumps({
            "archive": str(root), "archive_id": description.archive_id, "format_version": description.format_version,
            "studies": counters.studies, "series": counters.series, "instances": counters.instances,
            "received_bytes": counters.received_bytes, "stored_bytes": stored, "index_bytes": used_by_index,
            "ratio": round(ratio, 3),
        }))  # fmt: skip
        return OK
    rows = [
        ("archive", f"{root.resolve()}"),
        ("format version", f"{description.format_version}"),
        ("studies", f"{counters.studies:,}"),
        ("series", f"{counters.series:,}"),
        ("instances", f"{counters.instances:,}"),
        ("received", f"{size_text(counters.received_bytes)} in Part 10 files"),
        ("stored", f"{size_text(stored)} on disk, and {size_text(used_by_index)} of index"),
        ("ratio", f"{ratio:.2f} to 1" if counters.instances else "nothing is stored yet"),
    ]
    for name, text in rows:
        print(f"{name:<16}{text}")
    return OK
