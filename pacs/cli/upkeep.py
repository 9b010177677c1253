"""`pacs check`, `pacs reindex`, `pacs info`: looking after an archive."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from pacs.archive import Archive
from pacs.cli import OK, WRONG
from pacs.cli.report import Progress, count_text, size_text
from pacs.storage import layout


def check(arguments: argparse.Namespace) -> int:
    raise NotImplementedError


def reindex(arguments: argparse.Namespace) -> int:
    raise NotImplementedError


def info(arguments: argparse.Namespace) -> int:
    with Archive.open(arguments.archive) as archive:
        counters = archive.counters()
        description = layout.read_description(str(arguments.archive))
    stored = _bytes_on_disk(arguments.archive / "studies")
    index = _bytes_on_disk(arguments.archive / "index")
    ratio = counters.received_bytes / stored if stored else 0.0
    if arguments.json:
        print(json.dumps({
            "archive": str(arguments.archive), "archive_id": description.archive_id,
            "format_version": description.format_version, "studies": counters.studies, "series": counters.series,
            "instances": counters.instances, "received_bytes": counters.received_bytes, "stored_bytes": stored,
            "index_bytes": index, "ratio": round(ratio, 3),
        }))  # fmt: skip
        return OK
    rows = [
        ("archive", f"{arguments.archive.resolve()}"),
        ("format version", f"{description.format_version}"),
        ("studies", f"{counters.studies:,}"),
        ("series", f"{counters.series:,}"),
        ("instances", f"{counters.instances:,}"),
        ("received", size_text(counters.received_bytes)),
        ("stored", f"{size_text(stored)}, and {size_text(index)} of index"),
        ("ratio", f"{ratio:.2f}" if stored else "nothing is stored yet"),
    ]
    for name, text in rows:
        print(f"{name:<16}{text}")
    return OK


def _bytes_on_disk(folder: Path) -> int:
    """What the file system has allotted: sparse files count for what they hold."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(f"{path}/{name}").st_blocks * 512
            except FileNotFoundError:
                continue
    return total


_ = (sys, WRONG, Progress, count_text)
