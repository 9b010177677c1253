"""Backups that are cut short, meet damage, a full disk or the wrong folder; oracle: what was committed, and `check`."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from pacs import tags
from pacs.errors import ArchiveLockedError, BackupError, PacsError, StorageError
from pacs.storage import layout
from pacs.storage.backup import BackedUp, backup
from pacs.storage.check import check
from pacs.storage.commit import Status
from pacs.storage.disk import Disk, Operation
from pacs.storage.files import records
from pacs.storage.files.last_commit import LastCommit
from pacs.storage.index import Index, matching
from pacs.storage.locks import ArchiveLock
from pacs.storage.model import NewInstance
from pacs.storage.recovery import recovery
from pacs.storage.recovery.reindex import reindex
from tests.durability.synthetic import FOUR, create, element, new_instance, opened, part
from tests.durability.test_full_disk import fill, small_disk

__all__ = ["small_disk"]
ROOT = Path(__file__).resolve().parents[2]


def back_up(root: Path, target: Path, disk: Disk | None = None) -> BackedUp:
    index = Index(str(root / layout.INDEX), readonly=True)
    try:
        return backup(root, index, target, disk=disk)
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
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["kills"] > 12
    instances = [instances for instances, _ in result["again"]]
    assert instances == sorted(instances, reverse=True) and instances[0] == 6 and instances[-1] == 0
    assert len(set(instances)) > 2, "there was but one batch"
    assert result["again"][-1] == [0, 0]


def test_each_step_is_durable_before_the_next(tmp_path: Path) -> None:
    """That logs grow is said before they do, what is copied is there before the index says so, and all of it when the
    backup ends; what a backup that was cut short has left is taken back before that is forgotten."""
    root, target = create(tmp_path / "archive"), tmp_path / "copy"
    fill_archive(root, 4)
    back_up(root, target)
    fill_archive(root, 4, start=4)
    done: list[tuple[str, str]] = []
    stops_at = "copied"

    def observe(operation: Operation) -> None:
        if operation.done:
            done.append((operation.name, Path(operation.path).name))
        if (operation.name, operation.path) == ("step", stops_at):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(root, target, Disk(observe))
    said = done.index(("rename", "copying.tmp"))
    assert done[said + 1][0] == "syncfs" and ("write", "records.log") in done[said + 2 :]
    assert [name for name, _ in done[-2:]] == ["syncfs", "step"]
    stops_at = ""
    done.clear()
    assert back_up(root, target, Disk(observe)).instances == 4
    assert done[done.index(("unlink", "copying")) - 1][0] == "syncfs"
    assert done[-1][0] == "syncfs"


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
    assert LastCommit(target, Disk()).complete, "or every opening looks at the end of every log"
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


def unreadable(patched: pytest.MonkeyPatch, name: str, start: int = 0, end: int = 1 << 40) -> None:
    """The disk cannot read these bytes of this file, nor a stretch that they are part of."""
    genuine = os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        file = Path(f"/proc/self/fd/{descriptor}").readlink()
        if offset < end and offset + length > start and str(file).endswith(name):
            raise OSError(errno.EIO, "Input/output error")
        return genuine(descriptor, length, offset)

    patched.setattr(os, "pread", pread)


@pytest.mark.parametrize("how", ["missing", "closed", "unreadable", "its end"])
def test_a_log_that_cannot_be_read_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """It is named, all others are copied; and when it can be read again, the next backup has it."""
    root, target = create(tmp_path / "archive"), tmp_path / "copy"
    fill_archive(root, 60)
    name = layout.log_path("1.1", "1.1")
    log = root / name
    with monkeypatch.context() as patched:
        if how == "missing":
            log.rename(log.with_suffix(".away"))
        elif how == "closed":
            log.rename(log.with_suffix(".away"))
            log.symlink_to(log)
        else:
            unreadable(patched, f"archive/{name}", 0 if how == "unreadable" else 8192)
        first = back_up(root, target)
        assert first.instances in ([40] if how != "its end" else range(45, 55))
        assert any(name in text for text in first.damaged)
        assert not (target / name).exists() or (target / name).stat().st_size < log.stat().st_size
        with opened(root) as archive:
            found = list(check(root, archive.index))
        assert any(finding.severity == "error" and name in finding.path for finding in found)
    if how in ("missing", "closed"):
        log.unlink(missing_ok=True)
        log.with_suffix(".away").rename(log)
    fill_archive(root, 3, start=60)
    second = back_up(root, target)
    assert (second.instances, second.damaged) == (63 - first.instances, [])
    assert (target / name).read_bytes() == log.read_bytes()
    with opened(target) as archive, opened(root) as original:
        assert archive.uids() == original.uids()
        assert archive.errors() == []
    assert (reindex(target).instances, back_up(root, target).instances) == (63, 0)


def test_a_block_of_a_log_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands behind it is copied; in the copy it is zeros until its records can be read again."""
    root, target = create(tmp_path / "archive"), tmp_path / "copy"
    with opened(root) as archive:
        for n in range(40):
            archive.commit(new_instance("1.1", "1.2", f"2.{n}", bulk=(b"b" * 500,)))
    name = layout.log_path("1.1", "1.2")
    with monkeypatch.context() as patched:
        unreadable(patched, f"archive/{name}", 8192, 12288)
        first = back_up(root, target)
        assert 30 < first.instances < 40
        assert first.damaged
    theirs, ours = (root / name).read_bytes(), (target / name).read_bytes()
    assert ours == theirs[:8192] + bytes(4096) + theirs[12288:]
    with monkeypatch.context() as patched:
        unreadable(patched, f"archive/{name}", 8192, 12288)
        found = reindex(root)
    with opened(target) as archive:
        assert found.instances == len(archive.uids())
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "3.1"))
    assert back_up(root, target).instances == 1
    assert (root / name).read_bytes().startswith(theirs)
    assert reindex(root).instances == 41
    assert back_up(root, target).instances == 40 - found.instances
    assert (back_up(root, target), reindex(target).instances) == (BackedUp(sequence=41), 41)


def test_a_record_that_cannot_be_entered_into_the_copy_stays_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that its series has: a log of which the index of the copy would know nothing."""
    root, target = create(tmp_path / "archive"), tmp_path / "copy"
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"), new_instance("1.1", "1.3", "1.3.1"))
        with archive.index.read() as view:
            entry = view.instance("1.2.1")
    assert entry is not None
    log = root / layout.log_path("1.1", "1.2")
    data = bytearray(log.read_bytes())
    data[entry.parts[records.JSON].offset + 5] ^= 1
    log.write_bytes(data)
    assert back_up(root, target).damaged
    monkeypatch.setattr(recovery, "boot_id", lambda: "another machine")
    with opened(target) as archive:
        assert archive.commit(new_instance("1.1", "1.2", "1.2.2")) == [Status.STORED]
    copied = target / log.relative_to(root)
    assert copied.read_bytes().startswith(data)
    data[entry.parts[records.JSON].offset + 5] ^= 1
    copied.write_bytes(data + copied.read_bytes()[len(data) :])
    assert (reindex(target).instances, reindex(target).damaged) == (3, []), "its frames are in the copy, too"


def test_a_log_deleted_since_the_last_backup_is_told(tmp_path: Path) -> None:
    root, target = create(tmp_path / "archive"), tmp_path / "copy"
    fill_archive(root, 3)
    back_up(root, target)
    (root / layout.log_path("1.1", "1.1")).unlink()
    found = back_up(root, target)
    assert found.damaged == [f"{layout.log_path('1.1', '1.1')} cannot be read: No such file or directory"]
    with opened(target) as archive:
        assert len(archive.uids()) == 3


def test_a_series_that_was_left_out_since_the_last_backup(tmp_path: Path) -> None:
    root, target = create(tmp_path / "archive"), tmp_path / "copy"
    fill_archive(root, 3)
    back_up(root, target)
    frames = root / layout.array_path("1.1", "1.1", 0)
    frames.rename(frames.with_suffix(".away"))
    assert reindex(root).instances == 2
    fill_archive(root, 3, start=3)
    assert back_up(root, target).instances == 3
    with opened(target) as archive:
        assert len(archive.uids()) == 6, "the copy still has it"


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def numbered(new: NewInstance, number: int) -> NewInstance:
    """The instance, with a Series Number."""
    attributes = {**new.attributes, tags.SERIES_NUMBER: element("IS", number)}
    text = b",".join(b'"%08X":%s' % (tag, attributes[tag]) for tag in sorted(attributes))
    return msgspec.structs.replace(new, json=part(b"{" + text + b"}"), attributes=attributes)


def left_out(root: Path, count: int) -> tuple[Path, int]:
    """An archive that has left out the first instance of a series of `count`; the byte that makes it whole again."""
    with opened(create(root)) as archive:
        for n in range(count):
            new = new_instance("1.1", "1.2", f"1.2.{n}", patient=f"P{n}", modality="CT" if n else "MR")
            archive.commit(numbered(new, n))  # the first says what study and series say of themselves
        archive.commit(new_instance("1.1", "1.9", "1.9.1", patient="P9", modality="US"))
        with archive.index.read() as view:
            entry = view.instance("1.2.0")
            assert entry is not None
            chunk = view.chunk(entry, 0)
    flip(root / chunk.path, chunk.offset)
    assert reindex(root).instances == count
    return root / chunk.path, chunk.offset


def assert_equal(root: Path, target: Path) -> None:
    """The copy says what the archive says."""
    with opened(target) as archive, opened(root) as original:
        assert archive.uids() == original.uids() and archive.errors() == []
        with archive.index.read() as ours, original.index.read() as theirs:
            assert ours.counters() == theirs.counters()
            assert list(ours.studies()) == list(theirs.studies())
            for database in (matching.POSTINGS, matching.ORDER, matching.TEXTS, matching.DAYS):
                rows = [[(bytes(key), bytes(value)) for key, value in view.cursor(database)] for view in (ours, theirs)]
                assert rows[0] == rows[1]
            for series in theirs.series_of("1.1"):
                copied = ours.series("1.1", series.uid)
                assert copied is not None
                assert (copied.attributes, copied.sequence) == (series.attributes, series.sequence)
                assert ours.files(copied.number).log_end == theirs.files(series.number).log_end


@pytest.mark.parametrize("later", ["", "before", "after"])
@pytest.mark.parametrize("count", [1, 3])
def test_what_the_archive_had_left_out_comes_when_it_is_whole_again(tmp_path: Path, count: int, later: str) -> None:
    root, target = tmp_path / "archive", tmp_path / "copy"
    place = left_out(root, count)
    first = back_up(root, target)
    assert first.instances == count
    assert len(first.damaged) == 1 and f"{layout.log_path('1.1', '1.2')}: record at byte 0" in first.damaged[0]
    assert back_up(root, target) == BackedUp(sequence=count + 1), "nothing new, nothing to do"
    if later:
        with opened(root) as archive:
            archive.commit(new_instance("1.1", "1.2", "1.2.9"))
    if later == "before":
        assert back_up(root, target).instances == 1
    flip(*place)
    assert reindex(root).instances == count + 1 + bool(later)
    done = back_up(root, target)
    assert (done.instances, done.damaged) == (2 if later == "after" else 1, [])
    assert_equal(root, target)
    assert back_up(root, target) == BackedUp(sequence=done.sequence)
    with opened(target) as archive:
        assert archive.commit(new_instance("1.1", "1.2", "1.2.10")) == [Status.STORED]
    assert (reindex(target).instances, reindex(target).damaged) == (count + 2 + bool(later), [])


def test_failed_while_it_brings_what_was_left_out(tmp_path: Path) -> None:
    """At each place the copy has all that it had, and the next run brings the rest."""
    root, target = tmp_path / "archive", tmp_path / "copy"
    place = left_out(root, 3)
    back_up(root, target)
    flip(*place)
    reindex(root)
    for number in range(1, 100):
        cut = tmp_path / f"cut-{number}"
        shutil.copytree(target, cut)
        left = [number]

        def fail(operation: Operation, left: list[int] = left) -> None:
            left[0] -= not operation.done
            if left[0] == 0:
                left[0] = -1000
                raise OSError(errno.EIO, "Input/output error", operation.path)

        disk = Disk(fail)
        index = Index(str(root / layout.INDEX), readonly=True)
        try:
            with suppress(OSError, StorageError):
                backup(root, index, cut, disk=disk)
        finally:
            index.close()
            disk.close()
        with opened(cut) as archive:
            assert {"1.2.1", "1.2.2", "1.9.1"} <= archive.uids()
        assert back_up(root, cut).damaged == []
        assert_equal(root, cut)
        shutil.rmtree(cut)
        if left[0] > 0:
            return
    pytest.fail("the backup never came to its end")


def test_a_series_without_a_log_is_no_damage(tmp_path: Path) -> None:
    """What the index keeps of a log that was lost is how many arrays there were."""
    root, target = create(tmp_path / "archive"), tmp_path / "copy"
    fill_archive(root, 3)
    (root / layout.log_path("1.1", "1.1")).unlink()
    assert reindex(root).instances == 2
    with opened(root) as archive, archive.index.read() as view:
        assert list(view.left()) == [("1.1", "1.1")]
    assert [back_up(root, target).damaged for _ in range(2)] == [[], []]
