"""Backups that are killed at any operation: run by test_backup.py, one JSON line a result.

A process that never opened an archive forks those that do, since an LMDB environment must not cross a fork.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from pacs.storage import layout
from pacs.storage.backup import BackedUp, backup
from pacs.storage.disk import Disk
from pacs.storage.index import Index
from pacs.storage.model import NewInstance
from tests.durability.killed import Killing, in_child
from tests.durability.synthetic import FOUR, Opened, create, new_instance, opened, stage

_BATCH = 12_000
"""Bytes: so small that a backup takes several batches."""


def commits(part: int) -> list[list[NewInstance]]:
    """What is stored, commit by commit: two parts, with a backup between them."""
    if part == 0:
        return [
            [new_instance("1.1", "1.2", f"1.2.{n}", key=FOUR, chunks=1 + n % 3), new_instance("1.1", "1.3", f"1.3.{n}")]
            for n in range(2)
        ]
    return [
        [new_instance("1.1", "1.2", f"1.2.{n}", key=FOUR, chunks=2), new_instance("2.1", f"2.{n}", f"2.{n}.1")]
        for n in range(2, 4)
    ] + [[new_instance("3.1", "3.2", "3.2.1", key=FOUR, chunks=6)], [new_instance("1.1", "1.3", "1.3.9", key=None)]]


def store(root: Path, part: int) -> None:
    with opened(root) as archive:
        for batch in commits(part):
            archive.commit(*(_own(archive, new) for new in batch))


def _own(archive: Opened, new: NewInstance) -> NewInstance:
    return stage(archive.committer, new) if len(new.chunks) > 4 else new


def back_up(root: Path, target: Path, disk: Disk | None = None) -> BackedUp:
    index = Index(str(root / layout.INDEX), readonly=True)
    try:
        return backup(root, index, target, disk=disk, batch_bytes=_BATCH)
    finally:
        index.close()


def look(target: Path, whole: bool) -> None:
    """Open a copy: it is the archive at one of its commits, all of it there."""
    batches = commits(0) + commits(1)
    with opened(target) as archive:
        there = [[archive.holds(new) for new in batch] for batch in batches]
        assert all(all(batch) or not any(batch) for batch in there), "half a commit"
        flat = [all(batch) for batch in there]
        assert flat == sorted(flat, reverse=True), "a commit is missing before another"
        assert len(archive.uids()) == sum(len(batch) for batch, is_there in zip(batches, flat, strict=True) if is_there)
        assert all(flat) or not whole
        assert sum(flat) >= 2, "what an earlier backup had is gone"
        assert archive.errors() == []


def go_on(root: Path, target: Path, report: Path) -> None:
    done = back_up(root, target)
    assert not done.damaged
    report.write_text(json.dumps([done.instances, done.bytes]))


def kill(root: Path, target: Path, place: int) -> None:
    disk = Killing(place)
    disk.armed = True
    back_up(root, target, disk)


def kill_everywhere(base: Path, step: int) -> None:
    """A second backup that is killed at every `step`th operation; its copy is looked at, then the backup goes on."""
    root, first, report = base / "archive", base / "first", base / "report"

    def prepare() -> None:
        store(create(root), 0)
        back_up(root, first)

    in_child(prepare)
    in_child(lambda: store(root, 1))
    copied = []
    kills = 0
    for place in range(1, 10_000, step):
        target, restored = base / f"killed-{place}", base / f"restored-{place}"
        shutil.copytree(first, target)
        died = in_child(lambda target=target, place=place: kill(root, target, place))
        shutil.copytree(target, restored)
        in_child(lambda restored=restored, died=died: look(restored, whole=not died))
        in_child(lambda target=target: go_on(root, target, report))
        in_child(lambda target=target: look(target, whole=True))
        copied.append(json.loads(report.read_text()))
        shutil.rmtree(target)
        shutil.rmtree(restored)
        kills += bool(died)
        if not died:
            break
    print(json.dumps({"kills": kills, "again": copied}))


def main() -> None:
    work: Callable[[Path, int], None] = kill_everywhere
    work(Path(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    main()
