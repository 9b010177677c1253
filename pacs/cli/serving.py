"""`pacs serve`: a server on an archive, with something to look at when asked."""

from __future__ import annotations

import argparse
import ipaddress
import sys
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pacs import viewer
from pacs.cli import OK, USAGE
from pacs.settings import Settings

if TYPE_CHECKING:
    from pacs.archive import StoreResult
    from pacs.cli.report import Progress

_IN_WORK = 32
"""Files of the demo that are held at once."""


def serve(arguments: argparse.Namespace) -> int:
    if not arguments.insecure and not _is_loopback(arguments.host):
        print(
            f"pacs serve: {arguments.host} may be reached by other machines, and there is no authentication yet: "
            "whoever reaches it can read and write everything.\n"
            "Listen on 127.0.0.1 behind a proxy that asks who is there, or say --insecure.",
            file=sys.stderr,
        )
        return USAGE
    settings = Settings.from_environment()
    if arguments.viewer:
        settings = replace(settings, viewer=settings.viewer or str(viewer.default_folder()))
    if settings.viewer:
        viewer.load(Path(settings.viewer))
    if arguments.demo:
        _load_demo(arguments.archive)
    from pacs.dicomweb import server

    server.serve(
        arguments.archive, arguments.host, arguments.port, arguments.workers, settings, insecure=arguments.insecure
    )
    return OK


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _load_demo(path: Path) -> None:
    """Put the demo into an archive that holds no study; an archive with one is left alone without being opened."""
    if any((path / "studies").glob("*")):
        return
    from pacs import demo
    from pacs.archive import Archive
    from pacs.cli.report import Progress, count_text

    with Archive.open(path, create=True) as archive:
        if archive.counters().instances:
            return
        print("The archive is empty: loading a demo, real images and a synthetic CT of a head.", flush=True)
        refused: Counter[str] = Counter()
        with Progress("demo", demo.FILES) as progress:
            waiting: deque[Future[StoreResult]] = deque()
            for data in demo.files_of_demo():
                waiting.append(archive.submit(data))
                if len(waiting) > _IN_WORK:
                    _settle(waiting.popleft(), progress, refused)
            while waiting:
                _settle(waiting.popleft(), progress, refused)
    for reason, count in refused.items():
        print(f"demo: {count_text(count, 'file')} not stored: {reason}", file=sys.stderr)


def _settle(future: Future[StoreResult], progress: Progress, refused: Counter[str]) -> None:
    result = future.result()
    if result.error is not None:
        refused[f"{result.error.message} [{result.error.code}]"] += 1
    progress.advance()
