"""`pacs store`, `pacs import`, `pacs export`: files into an archive and out of it."""

from __future__ import annotations

import argparse
import mmap
import os
import re
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pacs import uids
from pacs.cli import OK, USAGE, WRONG
from pacs.cli.places import check_folder, require_archive, writing_below
from pacs.cli.report import Progress, count_text, nothing_found, size_text, summary
from pacs.client import files
from pacs.client.tally import Result, Status, Tally
from pacs.errors import NotFoundError, PacsError, UidError

if TYPE_CHECKING:
    from pacs.archive import Archive, StoreResult
    from pacs.storage.index import Index
    from pacs.storage.model import Buffer, InstanceEntry, SeriesEntry

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_IN_WORK = 64
_IN_WORK_BYTES = 256 << 20
_MAPPED_FROM = 64 << 20
"""Bytes from which a file is mapped instead of read."""


def store(arguments: argparse.Namespace) -> int:
    from pacs.client import upload
    from pacs.client.resource import http_url

    headers = headers_of(arguments)
    if headers is None:
        return USAGE
    try:
        http_url(arguments.url)
    except ValueError as error:
        print(f"pacs store: {error}", file=sys.stderr)
        return USAGE
    # Where it posts to is what curl is given, and easily given here too.
    root = arguments.url.rstrip("/").removesuffix("/studies")
    target = upload.Target(root, arguments.jobs, arguments.per_request, headers)
    began = time.monotonic()
    with _progress("uploading", arguments.paths) as progress:
        tally = upload.store(files.walk(arguments.paths), target, _Advance(progress))
    return _end("store", tally, time.monotonic() - began)


def headers_of(arguments: argparse.Namespace) -> dict[str, str] | None:
    """The headers that `--header` names; None, said on standard error, when one of them is none."""
    headers = {}
    for header in arguments.header:
        name, colon, value = header.partition(":")
        if not colon or not _HEADER_NAME.fullmatch(name.strip()) or not value.strip().isprintable():
            print(f"pacs {arguments.command}: --header {header!r} is not of the form 'NAME: VALUE'", file=sys.stderr)
            return None
        headers[name.strip()] = value.strip()
    return headers


def import_(arguments: argparse.Namespace) -> int:
    from pacs.archive import Archive

    began = time.monotonic()
    tally = Tally()
    with _progress("importing", arguments.paths) as progress:
        advance = _Advance(progress)

        def settle(result: Result) -> None:
            tally.add(result)
            advance(result)

        found = files.usable(files.walk(arguments.paths), settle)
        first = next(found, None)
        if first is not None:  # else there is nothing to make an archive for
            with Archive.open(arguments.archive, create=True) as archive:
                _import_files(archive, chain((first,), found), settle)
    return _end("import", tally, time.monotonic() - began)


def _progress(what: str, paths: list[Path]) -> Progress:
    return Progress(what, files.count(paths) if sys.stderr.isatty() else None)


class _Advance:
    """Counts results on a progress bar and notes what went wrong so far."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._wrong = 0

    def __call__(self, result: Result) -> None:
        self._wrong += result.status in (Status.REFUSED, Status.UNREADABLE)
        self._progress.advance(note=f"{self._wrong:,} refused" if self._wrong else "")


def _end(command: str, tally: Tally, seconds: float) -> int:
    if not tally.readable:
        for line in nothing_found(tally):
            print(f"pacs {command}: {line}", file=sys.stderr)
        return WRONG
    for line in summary(tally, seconds):
        print(line)
    return OK if tally.in_order else WRONG


# --- import ---------------------------------------------------------------------------------------------------------


def _import_files(archive: Archive, found: Iterable[files.Found], settle: Callable[[Result], None]) -> None:
    """Store all of `found`, several files at once, holding a bounded number of bytes."""
    waiting: deque[tuple[files.Found, Future[StoreResult]]] = deque()
    held = 0

    def settle_oldest() -> None:
        nonlocal held
        file, future = waiting.popleft()
        held -= file.size
        settle(_result(file, future.result()))

    for file in found:
        while waiting and (len(waiting) >= _IN_WORK or held + file.size > _IN_WORK_BYTES):
            settle_oldest()
        try:
            data = _content(file)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            settle(Result(file.path, file.size, Status.UNREADABLE, reason))
            continue
        held += file.size
        waiting.append((file, archive.submit(data)))
    while waiting:
        settle_oldest()


def _content(file: files.Found) -> Buffer:
    if file.size < _MAPPED_FROM:
        return file.path.read_bytes()
    with file.path.open("rb") as opened:
        return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))


def _result(file: files.Found, stored: StoreResult) -> Result:
    if stored.status == "stored":
        return Result(file.path, file.size, Status.STORED, warnings=stored.warnings)
    if stored.status == "duplicate":
        return Result(file.path, file.size, Status.DUPLICATE)
    if stored.error is None:
        return Result(file.path, file.size, Status.REFUSED, "no reason given")
    return Result(file.path, file.size, Status.REFUSED, _kind(stored.error), stored.error.message)


def _kind(error: PacsError) -> str:
    """What the error's description says first, and the code: what refusals are grouped by."""
    text = " ".join((type(error).__doc__ or "").split()).split(". ")[0].split("; ")[0].rstrip(".")
    return f"{text[:1].lower()}{text[1:]} [{error.code}]"


# --- export ---------------------------------------------------------------------------------------------------------


def export(arguments: argparse.Namespace) -> int:
    from pacs.cli.upkeep import reading
    from pacs.storage.index.readers import check_newest

    root: Path = arguments.archive
    require_archive(root)
    check_folder(arguments.out)
    wrong = written = size = 0
    with reading(root) as index:
        check_newest(root, index)
        wanted = []
        for uid in arguments.uids:
            try:
                wanted.append(_instances(index, uids.check(uid, "the UID")))
            except (NotFoundError, UidError) as error:
                print(f"pacs export: {error.message} [{error.code}]", file=sys.stderr)
                wrong += 1
        with Progress("exporting", sum(count for count, _ in wanted)) as progress:
            for _, entries in wanted:
                for entry in entries:
                    try:
                        with writing_below(arguments.out):
                            size += _write(root, index, entry, arguments.out)
                        written += 1
                    except PacsError as error:
                        name = entry.descriptor.instance
                        progress.print(f"pacs export: {name}: {error.message} [{error.code}]", sys.stderr)
                        wrong += 1
                    progress.advance()
    if written:
        print(f"{count_text(written, 'file')}, {size_text(size)}, written below {arguments.out}")
    return WRONG if wrong else OK


def _instances(index: Index, uid: str) -> tuple[int, Iterator[InstanceEntry]]:
    """How many instances have `uid` as their Study, Series or SOP Instance UID, and these. Raises NotFoundError."""
    from pacs.storage.search import series_order

    with index.read() as view:
        entry = view.instance(uid)
        if entry is not None:
            return 1, iter((entry,))
        study = view.study(uid)
        if study is not None:
            return study.instances, _of_series(index, sorted(view.series_of(uid), key=series_order))
        for found in view.studies():
            series = view.series(found.uid, uid)
            if series is not None:
                return series.instances, _of_series(index, [series])
    raise NotFoundError(f"{uid} is not stored")


def _of_series(index: Index, listed: Iterable[SeriesEntry]) -> Iterator[InstanceEntry]:
    for series in listed:
        with index.read() as view:  # one for each: a long download must not pin pages of the index
            entries = list(view.instances_of(series))
        yield from entries


def _write(root: Path, index: Index, entry: InstanceEntry, out: Path) -> int:
    """Write one original file under its UIDs; it appears whole or not at all."""
    from pacs.export import rebuild
    from pacs.reading import Committed

    descriptor = entry.descriptor
    folder = out / descriptor.study / descriptor.series
    folder.mkdir(parents=True, exist_ok=True)
    size = 0
    handle, partial = tempfile.mkstemp(prefix=".", suffix=".partial", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in rebuild(Committed(root, index, entry)):
                size += file.write(piece)
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(file.fileno(), 0o666 & ~mask)
        Path(partial).replace(folder / f"{descriptor.instance}.dcm")
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return size
