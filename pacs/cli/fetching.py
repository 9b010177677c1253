"""`pacs fetch`: what a DICOMweb server has, into files."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from pacs.cli import OK, USAGE, WRONG, report
from pacs.cli.places import check_folder, writing_below
from pacs.cli.report import count_text, size_text
from pacs.cli.sending import headers_of
from pacs.client.fetch import Options, Progress, fetch_all
from pacs.client.patience import Patience
from pacs.client.resource import resource

_NAMED = 10


def fetch(arguments: argparse.Namespace) -> int:
    headers = headers_of(arguments)
    if headers is None:
        return USAGE
    try:
        options = Options(
            resource(arguments.url), arguments.out, arguments.form, arguments.until, arguments.transfer_syntax,
            arguments.jobs, headers, Patience(total=arguments.patience),
        )  # fmt: skip
    except ValueError as error:
        print(f"pacs fetch: {error}", file=sys.stderr)
        return USAGE
    check_folder(options.out)
    unit = "file" if options.form == "dicom" else "frame"
    began = time.monotonic()
    with report.Progress("fetching", 0, "B") as bar:

        def show(progress: Progress) -> None:
            done = progress.fetched + progress.already
            note = f"{done:,} of {count_text(progress.items, unit)}"
            note += f", {progress.failed:,} failed" if progress.failed else ""
            bar.show(progress.received, max(progress.received, _estimate(progress)), note)

        with writing_below(options.out):
            progress = asyncio.run(fetch_all(options, show))
    return _end(options, progress, unit, time.monotonic() - began)


def _estimate(progress: Progress) -> int:
    """Bytes in all, where only those of a part of the files are known."""
    if not progress.sized:
        return progress.expected
    left = progress.items - progress.already - progress.sized
    return progress.expected + progress.expected // progress.sized * max(0, left)


def _end(options: Options, progress: Progress, unit: str, seconds: float) -> int:
    for note in progress.notes:
        print(note)
    for name, reason in progress.failures[:_NAMED]:
        print(f"pacs fetch: {name}: {reason}", file=sys.stderr)
    if progress.failed > _NAMED:
        print(f"pacs fetch: … and {progress.failed - _NAMED:,} more", file=sys.stderr)
    done = f"{count_text(progress.fetched, unit)} fetched"
    if progress.already:
        done += f", {progress.already:,} were there"
    if progress.failed:
        done += f", {progress.failed:,} failed"
    print(f"{done}: {size_text(progress.received)} in {seconds:.1f} s, below {options.out}")
    return WRONG if progress.failed else OK
