"""`pacs backup`: a copy of an archive, brought up to date."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from pacs.cli import OK, WRONG
from pacs.cli.report import Progress, count_text, size_text
from pacs.cli.upkeep import reading
from pacs.storage.backup import backup as back_up
from pacs.storage.index.readers import check_newest

_MOST_NAMED = 20


def backup(arguments: argparse.Namespace) -> int:
    root: Path = arguments.archive
    began = time.monotonic()
    with reading(root) as index, Progress("backing up", 0, "instance") as progress:
        # A copy that ends at an earlier commit than the archive would pass for a whole one.
        check_newest(root, index)
        done = back_up(
            root, index, arguments.to,
            progress=lambda count, total, size: progress.show(count, total, size_text(size)),
        )  # fmt: skip
    for text in done.damaged[:_MOST_NAMED]:
        print(f"damaged: {text}", file=sys.stderr)
    if len(done.damaged) > _MOST_NAMED:
        print(f"damaged: {len(done.damaged) - _MOST_NAMED:,} more, see `pacs check`", file=sys.stderr)
    copied = f"{count_text(done.instances, 'instance')} copied, {size_text(done.bytes)}"
    seconds = time.monotonic() - began
    print(f"{copied} in {seconds:.1f} s: the copy is the archive as of commit {done.sequence:,}")
    return WRONG if done.damaged else OK
