"""Backups that are cut short, meet damage, a full disk or the wrong folder; oracle: what was committed, and `check`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.errors import ArchiveLockedError, BackupError, PacsError, StorageError
from pacs.storage import layout
from pacs.storage.backup import BackedUp, backup
from pacs.storage.commit import Status
from pacs.storage.index import Index
from pacs.storage.locks import ArchiveLock
from pacs.storage.reindex import reindex
from tests.durability.synthetic import FOUR, create, new_instance, opened
from tests.durability.test_full_disk import fill, small_disk

__all__ = ["small_disk"]
ROOT = Path(__file__).resolve().parents[2]


def back_up(root: Path, target: Path) -> BackedUp:
    index = Index(str(root / layout.INDEX), readonly=True)
    try:
        return backup(root, index, target)
    finally:
        index.close()


def fill_archive(root: Path, count: int, *, start: int = 0) -> None:
    with opened(root) as archive:
        for n in range(start, start + count):
            new = new_instance("1.1", f"1.{n % 3}", f"2.{n}", key=FOUR, chunks=2, bulk=(b"b" * 2000,))
            assert archive.commit(new) == [Status.STORED]


@pytest.fixture
def fast_disk(tmp_path: Path) -> Iterator[Path]:
    """In memory where that can be had: a process is killed, not the machine, so syncs only cost time."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_killed_at_any_operation(fast_disk: Path) -> None:
    """At each place the copy is the archive at an earlier commit, and the next run needs only the rest."""
    command = [sys.executable, "-m", "tests.durability.backed_up", str(fast_disk), "5"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["kills"] > 12
    instances = [instances for instances, _ in result["again"]]
    assert instances == sorted(instances, reverse=True) and instances[0] == 6 and instances[-1] == 0
    assert len(set(instances)) > 2, "there was but one batch"
    assert result["again"][-1] == [0, 0]


def test_the_second_run_copies_what_is_new(tmp_path: Path) -> None:
    root, target = create(tmp_path / "archive"), tmp_path / "deep" / "copy"
    target.parent.mkdir()
    fill_archive(root, 30)
    first = back_up(root, target)
    assert (first.instances, first.sequence) == (30, 30)
    fill_archive(root, 2, start=30)
    second = back_up(root, target)
    assert second.instances == 2 and second.bytes < first.bytes / 10
    third = back_up(root, target)
    assert (third.instances, third.bytes, third.sequence) == (0, 0, 32)
    with opened(target) as archive, opened(root) as original:
        assert archive.uids() == original.uids()
        assert archive.errors() == []
        with archive.index.read() as ours, original.index.read() as theirs:
            assert ours.counters() == theirs.counters()
    logs = sorted(path.relative_to(root) for path in root.glob("studies/**/*") if path.is_file())
    assert len(logs) > 6
    assert all((root / path).read_bytes() == (target / path).read_bytes() for path in logs), "derived files too"
    found = reindex(target)
    assert not found.damaged and found.instances == 32


def test_the_copy_of_a_copy_is_a_restore(tmp_path: Path) -> None:
    root, copy, again = create(tmp_path / "archive"), tmp_path / "copy", tmp_path / "again"
    fill_archive(root, 4)
    back_up(root, copy)
    back_up(copy, again)
    fill_archive(again, 3, start=4)
    assert back_up(again, copy).instances == 3, "the restored archive goes on in the same copy"
    with pytest.raises(BackupError):
        back_up(root, copy)  # the old one has not what came after


def test_damage_is_told_and_copied_as_it_is(tmp_path: Path) -> None:
    root, target = create(tmp_path / "archive"), tmp_path / "copy"
    fill_archive(root, 9)
    (shard,) = root.glob("studies/1.1/series/1.0/frames-0/c.0")
    data = bytearray(shard.read_bytes())
    data[-10] ^= 1
    shard.write_bytes(data)
    log = root / layout.log_path("1.1", "1.1")
    data = bytearray(log.read_bytes())
    data[60] ^= 1  # the head of its first record
    data[data.rindex(b"PACSREC1") + 60] ^= 1  # and of its last
    log.write_bytes(data)
    done = back_up(root, target)
    assert done.instances == 7
    assert len([text for text in done.damaged if "c.0" in text]) == 1
    assert len([text for text in done.damaged if "checksum" in text and "records.log" in text]) == 2
    again = back_up(root, target)
    assert (again.instances, again.bytes) == (0, 0)
    assert (target / layout.log_path("1.1", "1.1")).read_bytes() == bytes(data)
    assert (target / shard.relative_to(root)).read_bytes() == shard.read_bytes()
    fill_archive(root, 3, start=9)
    assert back_up(root, target).instances == 3, "what comes after damage is copied"


def test_folders_that_a_backup_cannot_go_to(tmp_path: Path) -> None:
    root, other, copy = create(tmp_path / "archive"), create(tmp_path / "other"), tmp_path / "copy"
    for archive in (root, other):
        fill_archive(archive, 2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if "lock" not in path.name}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("of somebody")
    for target, kind in (
        (other, BackupError), (root, BackupError), (root / "copy", BackupError), (tmp_path, BackupError),
        (tmp_path / "full", StorageError),
    ):  # fmt: skip
        with pytest.raises(kind):
            back_up(root, target)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path != tmp_path)
    back_up(root, copy)
    lock = ArchiveLock(copy)
    with pytest.raises(ArchiveLockedError):
        back_up(root, copy)
    lock.close()
    fill_archive(copy, 1, start=7)  # somebody stores into the copy
    fill_archive(root, 2, start=2)
    with pytest.raises(BackupError, match="written to"):
        back_up(root, copy)


def test_a_full_disk_of_the_copy(small_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = create(tmp_path_factory.mktemp("archive") / "archive")
    fill_archive(root, 20)
    copy = small_disk / "copy"
    back_up(root, copy)
    fill_archive(root, 100, start=20)
    filler = fill(small_disk)
    with pytest.raises((OSError, PacsError)):
        back_up(root, copy)
    filler.unlink()
    assert back_up(root, copy).instances == 100
    with opened(copy) as archive, opened(root) as original:
        assert archive.uids() == original.uids() and archive.errors() == []


def test_from_a_disk_that_takes_nothing_any_more(small_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file system that found errors is read-only: what is on it can still be checked and carried away."""
    root, copy = create(small_disk / "archive"), tmp_path_factory.mktemp("elsewhere") / "copy"
    fill_archive(root, 5)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        assert back_up(root, copy).instances == 5
        for command, said in (("check", "5 instances checked"), ("info", "instances       5")):
            line = [sys.executable, "-m", "pacs", command, "--archive", str(root)]
            assert said in subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False).stdout
        with pytest.raises(OSError):
            (small_disk / "x").touch()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
