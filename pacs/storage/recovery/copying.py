"""`copying`: which logs a backup is about to grow in its copy, so that what was cut short can be taken back.

A batch of a backup stands for many commits of the archive, which `last-commit` has no words for. The file is there,
and durable, before a batch touches a log, and goes when the batch is in the index: whoever opens the copy in between
cuts the logs to where the index ends. Nobody was promised anything of what lies behind.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import msgspec

from pacs.storage import layout
from pacs.storage.disk import Disk
from pacs.storage.files.last_commit import LastCommit
from pacs.storage.index import Index

COPYING = "copying"

_log = logging.getLogger(__name__)
_decode = msgspec.msgpack.Decoder(list[tuple[str, str]]).decode


def begin(root: layout.Root, disk: Disk, series: Sequence[tuple[str, str]]) -> None:
    """Say durably that the logs of these series, (study, series) each, are going to grow."""
    disk.replace(f"{root}/{COPYING}", msgspec.msgpack.encode(list(series)))
    disk.syncfs(str(root))


def end(root: layout.Root, disk: Disk) -> None:
    disk.unlink(f"{root}/{COPYING}")


def undo(root: layout.Root, index: Index, disk: Disk) -> None:
    """Take back what a backup that was cut short left behind the index. Only under the writer's lock."""
    path = f"{root}/{COPYING}"
    try:
        with open(path, "rb") as file:
            series = _decode(file.read())
    except FileNotFoundError:
        return
    except msgspec.DecodeError:
        series = []  # it was not durable yet, so no log was touched
    with index.read() as view:
        sequence = view.counters().sequence
        for study, uid in series:
            committed = view.log_end(study, uid)
            log = f"{root}/{layout.log_path(study, uid)}"
            if os.path.exists(log) and os.stat(log).st_size > committed:
                _log.warning("%s: cut at byte %d, where a backup was cut short", log, committed)
                disk.truncate(log, committed)
    last = LastCommit(root, disk)
    last.create()
    last.stand_at(sequence)
    disk.syncfs(str(root))
    end(root, disk)
