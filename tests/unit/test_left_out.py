"""What `reindex` leaves out is never written over: when it can be read again, it is there again."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from pacs.errors import StorageError
from pacs.storage import layout
from pacs.storage.commit import Status
from pacs.storage.disk import Disk, Operation
from pacs.storage.files import records
from pacs.storage.files.last_commit import LastCommit
from pacs.storage.model import NewInstance
from pacs.storage.recovery import recovery
from pacs.storage.recovery.reindex import reindex
from tests.durability.power import copy_index
from tests.durability.synthetic import FOUR, Opened, create, new_instance, opened, stage

STORED = Status.STORED
LOG = layout.log_path("1.1", "1.2")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return create(tmp_path / "archive")


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


class Damage:
    """Done to an instance, and mended again."""

    def __init__(self, archive: Opened, uid: str, kind: str) -> None:
        with archive.index.read() as view:
            entry = view.instance(uid)
            assert entry is not None
            chunk = view.chunk(entry, 0)
        self._kind = kind
        self._offset = chunk.offset
        self._path = archive.root / chunk.path
        if kind == "array":
            self._path = self._path.parent
        if kind in ("json", "table", "head"):
            self._path = archive.root / layout.log_path(entry.descriptor.study, entry.descriptor.series)
            part = {"json": records.JSON, "table": records.CHUNK_TABLE}.get(kind)
            self._offset = entry.record_offset + 60 if part is None else entry.parts[part].offset

    def do(self) -> None:
        if self._kind in ("array", "shard"):
            if self._path.exists():
                self._path.rename(self._path.with_suffix(".away"))
        else:
            flip(self._path, self._offset)

    def mend(self) -> None:
        if self._kind in ("array", "shard"):
            if self._path.with_suffix(".away").exists():
                assert not self._path.exists(), "its place was taken"
                self._path.with_suffix(".away").rename(self._path)
        else:
            flip(self._path, self._offset)


@pytest.mark.parametrize("kind", ["frame", "json", "table", "array"])
@pytest.mark.parametrize("then", ["upload", "boot", "both"])
def test_a_series_of_which_nothing_could_be_entered(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str, then: str
) -> None:
    first, elsewhere = new_instance("1.1", "1.2", "1.2.1"), new_instance("1.1", "1.9", "1.9.1")
    with opened(root) as archive:
        archive.commit(first)
        archive.commit(elsewhere)
        damage = Damage(archive, "1.2.1", kind)
    damage.do()
    log = (root / LOG).read_bytes()
    found = reindex(root)
    assert (found.instances, len(found.damaged)) == (1, 1)
    if then != "upload":
        monkeypatch.setattr(recovery, "boot_id", lambda: "another")
    later = [new_instance("1.1", "1.2", f"1.2.{n}") for n in range(2, 5)] if then != "boot" else []
    with opened(root) as archive:
        assert archive.uids() == {"1.9.1"}, "what could not be entered is not to be seen"
        for new in later:
            assert archive.commit(new) == [STORED]
            assert archive.holds(new)
    assert (root / LOG).read_bytes().startswith(log)
    assert not (root / "set-aside").exists()
    damage.mend()
    found = reindex(root)
    assert (found.instances, found.damaged) == (2 + len(later), [])
    with opened(root) as archive:
        assert all(archive.holds(new) for new in (first, elsewhere, *later))
        assert archive.errors() == []


@pytest.mark.parametrize("seed", range(6))
def test_uploads_after_reindex_leave_what_was_left_out(root: Path, seed: int) -> None:
    """Any instances of shared arrays, of arrays of their own, with any damage, and reindexed again and again."""
    chance = random.Random(seed)
    stored: list[NewInstance] = []

    def upload(archive: Opened, name: str) -> None:
        for n in range(5):
            new = new_instance("1.1", chance.choice(("1.2", "1.3")), f"{name}.{n}", key=FOUR, chunks=1 + n)
            stored.append(new)
            assert archive.commit(stage(archive.committer, new) if n == 4 else new) == [STORED]

    with opened(root) as archive:
        upload(archive, "7.1")
        upload(archive, "7.2")
        ends = {series: max(new.descriptor.instance for new in stored if new.descriptor.series == series)
                for series in {new.descriptor.series for new in stored}}  # fmt: skip
        damaged = [
            # A damaged head at the very end of a log is set aside: only by hand does it come back.
            Damage(archive, uid, chance.choice(("frame", "json", "table", "shard", "array", "head")[: 5 + (
                uid not in ends.values())]))
            for uid in chance.sample([new.descriptor.instance for new in stored], chance.randint(1, 6))
        ]  # fmt: skip
    for damage in damaged:
        damage.do()
    for again in range(2):
        assert reindex(root).damaged
        with opened(root) as archive:
            upload(archive, f"8.{again}")
            assert all(archive.holds(new) for new in stored[10:])
    for damage in damaged:
        damage.mend()
    found = reindex(root)
    assert (found.instances, found.damaged) == (len(stored), [])
    with opened(root) as archive:
        assert all(archive.holds(new) for new in stored)
        assert archive.errors() == []


def test_both_copies_of_what_was_stored_again(root: Path) -> None:
    twice = new_instance("1.1", "1.2", "1.2.1", key=FOUR)
    with opened(root) as archive:
        archive.commit(twice)
        damage = Damage(archive, "1.2.1", "frame")
    damage.do()
    reindex(root)
    with opened(root) as archive:
        assert archive.commit(new_instance("1.1", "1.2", "1.2.2", key=FOUR)) == [STORED]
        assert archive.commit(twice) == [STORED]
    damage.mend()
    found = reindex(root)
    assert found.instances == 2 and "again" in found.damaged[0]
    with opened(root) as archive:  # behind the second copy, in the log and in the shard
        assert archive.commit(*(new_instance("1.1", "1.2", f"1.3.{n}", key=FOUR) for n in range(5))) == [STORED] * 5
    damage.do()
    found = reindex(root)
    assert found.instances == 7 and "checksum" in found.damaged[0]
    with opened(root) as archive:
        assert archive.holds(twice)


@pytest.mark.parametrize("then", ["upload", "boot"])
def test_what_an_index_knows_nothing_of_is_set_aside(root: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    """An index that an earlier version made says nothing of a series that was left out whole."""
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"), new_instance("1.1", "1.9", "1.9.1"))
        archive.commit(new_instance("1.1", "1.2", "1.2.2"))
        damage = Damage(archive, "1.2.1", "array")
    damage.do()
    log = (root / LOG).read_bytes()
    reindex(root)
    with opened(root) as archive, archive.index.write() as view:
        assert list(view.left()) == [("1.1", "1.2")]
        assert view.txn.delete(b"left\x001.1\x001.2", db=archive.index.databases[b"meta"])
    for _ in range(2):  # and never in the place of another
        if then == "boot":
            monkeypatch.setattr(recovery, "boot_id", lambda: str(random.random()))
        with opened(root) as archive:
            if then == "upload":
                assert archive.commit(new_instance("1.1", "1.2", "1.2.3")) in ([STORED], [Status.DUPLICATE])
        kept = list((root / "set-aside").iterdir())
        assert [path.read_bytes() for path in kept] == [log]
    damage.mend()  # nothing lies where its frames were
    (root / LOG).write_bytes(log)
    assert reindex(root).instances == 3


def test_what_cannot_be_set_aside_stays(root: Path) -> None:
    def full(operation: Operation) -> None:
        if operation.name == "write" and "set-aside" in operation.path:
            raise OSError(errno.ENOSPC, "No space left on device", operation.path)

    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"))
    foreign = (root / LOG).read_bytes()
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.3", "1.3.1"))
        other = root / layout.log_path("1.1", "1.3")
        with other.open("ab") as file:
            file.write(foreign)
        size = other.stat().st_size
    with opened(root, Disk(full)) as archive:
        assert archive.commit(new_instance("1.1", "1.3", "1.3.2")) == [Status.FAILED]
        assert other.stat().st_size == size
        assert not list((root / "set-aside").iterdir())
        assert archive.commit(new_instance("1.1", "1.2", "1.2.2")) == [STORED]
    with opened(root) as archive:
        assert archive.commit(new_instance("1.1", "1.3", "1.3.2")) == [STORED]
        assert [path.read_bytes() for path in (root / "set-aside").iterdir()] == [foreign]


def test_a_log_that_cannot_be_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many files are open: nothing is said against the log. The disk refuses: it is told, and nothing is lost."""
    first = new_instance("1.1", "1.2", "1.2.1")
    with opened(root) as archive:
        archive.commit(first, new_instance("1.1", "1.9", "1.9.1"))
    genuine = os.open
    number = errno.EMFILE

    def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if str(path).endswith(LOG) and not flags & os.O_WRONLY:
            raise OSError(number, os.strerror(number), path)
        return genuine(path, flags, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(StorageError, match="Too many open files"):
            reindex(root)
        number = errno.EIO
        found = reindex(root)
        assert found.instances == 1
        assert found.damaged == [f"{LOG} cannot be opened: Input/output error"]
    with opened(root) as archive:
        assert archive.commit(new_instance("1.1", "1.2", "1.2.2")) == [STORED]
    found = reindex(root)
    assert (found.instances, found.damaged) == (3, [])
    with opened(root) as archive:
        assert archive.holds(first)


def test_a_log_that_is_lost_beside_its_frames(root: Path) -> None:
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"))
    frames = root / layout.array_path("1.1", "1.2", 0) / "c.0.0.0"
    before = frames.read_bytes()
    (root / LOG).unlink()
    found = reindex(root)
    assert found.damaged == [f"{LOG} cannot be opened: No such file or directory"]
    with opened(root) as archive:
        assert archive.commit(new_instance("1.1", "1.2", "1.2.2")) == [STORED]
    assert frames.read_bytes() == before
    (root / layout.series_path("1.1", "1.7") / "frames-0").mkdir(parents=True)
    assert reindex(root).damaged == [], "a batch that was cut short leaves directories"


def test_a_shard_that_is_missing(root: Path) -> None:
    """Only what has frames in it is left out; without looking at frames it is told all the same."""
    stored = [new_instance("1.1", "1.2", f"1.2.{n}", key=FOUR) for n in range(6)]
    with opened(root) as archive:
        archive.commit(*stored)
        damage = Damage(archive, "1.2.0", "shard")
    damage.do()
    found = reindex(root)
    assert (found.instances, len(found.damaged)) == (2, 4)
    with opened(root) as archive:
        assert archive.uids() == {"1.2.4", "1.2.5"}
        assert all(archive.holds(new) for new in stored[4:])
        assert archive.commit(new_instance("1.1", "1.2", "1.2.9", key=FOUR)) == [STORED]
    found = reindex(root, verify_frames=False)
    assert found.instances == 7 and "c.0 cannot be written: No such file" in found.damaged[0]
    with opened(root) as archive:
        assert archive.commit(new_instance("1.1", "1.3", "1.3.1")) == [STORED]
    damage.mend()
    with opened(root) as archive:
        assert archive.errors() == [], "what could not be written is, at the next open"
    found = reindex(root)
    assert (found.instances, found.damaged) == (8, [])


def test_check_names_what_was_left_out(root: Path) -> None:
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"))
        damage = Damage(archive, "1.2.1", "json")
    damage.do()
    reindex(root)
    with opened(root) as archive:
        assert [found.path for found in archive.errors()] == [LOG]


@pytest.mark.parametrize("how", ["lost", "short"])
def test_the_newest_commit_without_last_commit(root: Path, how: str) -> None:
    """It stays in its log, however often the index is made anew, and the archive counts on behind it."""
    newest = new_instance("1.1", "1.2", "1.2.1")
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.9", "1.9.1"))
        archive.commit(newest)
        damage = Damage(archive, "1.2.1", "frame")
    damage.do()
    log = (root / LOG).read_bytes()
    if how == "lost":
        (root / layout.LAST_COMMIT).unlink()
    else:
        os.truncate(root / layout.LAST_COMMIT, 9)
    for _ in range(3):
        found = reindex(root)
        assert (found.instances, found.sequence, len(found.damaged)) == (1, 2, 1)
        assert (root / LOG).read_bytes() == log
        with opened(root):
            pass
    assert not (root / "set-aside").exists()
    damage.mend()
    assert reindex(root).damaged == []
    with opened(root) as archive:
        assert archive.holds(newest)


def test_what_cannot_be_cut_off_is_set_aside_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    refused = True

    def refuse(operation: Operation) -> None:
        if refused and operation.name == "truncate":
            raise OSError(errno.EPERM, "Operation not permitted", operation.path)

    with opened(root) as archive:
        for uid in ("1.2.0", "1.2.1"):
            archive.commit(new_instance("1.1", "1.2", uid))
    end = (root / LOG).stat().st_size
    tail = b"x" * (3 << 20) + b"y"
    with (root / LOG).open("ab") as file:
        file.write(tail)
    copy = root / "set-aside" / f"{LOG.replace('/', '-')}-{end}"
    copy.parent.mkdir()
    copy.write_bytes(b"z" + tail[1:])
    with opened(root, Disk(refuse)) as archive:
        for number in range(2, 5):
            assert archive.commit(new_instance("1.1", "1.2", f"1.2.{number}")) == [Status.FAILED]
        assert "cut at byte" not in caplog.text
        refused = False
        assert archive.commit(new_instance("1.1", "1.2", "1.2.9")) == [STORED]
        assert "cut at byte" in caplog.text
    assert {path.name: path.read_bytes() for path in copy.parent.iterdir()} == {
        copy.name: b"z" + tail[1:],
        f"{copy.name}.2": tail,
    }


@pytest.mark.parametrize("tail", ["whole", "torn", "foreign"])
@pytest.mark.parametrize("last", ["named", "not yet", "settled", "damaged", "short"])
def test_a_batch_that_lost_its_frames_with_the_power(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str, tail: str
) -> None:
    """It is cut off like any torn end, but only where index and `last-commit` both say that it never ended."""
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"))
    before, end = (root / layout.LAST_COMMIT).read_bytes(), (root / LOG).stat().st_size
    index = copy_index(root, tmp_path / "index")
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.2"), new_instance("1.1", "1.2", "1.2.3"))
        damage = Damage(archive, "1.2.2", "frame")
    damage.do()
    shutil.rmtree(root / "index")
    index.rename(root / "index")
    if last == "not yet":
        (root / layout.LAST_COMMIT).write_bytes(before)
    elif last != "settled":
        LastCommit(root, Disk()).settle(1)
    if last == "damaged":
        flip(root / layout.LAST_COMMIT, 20)
    if last == "short":
        os.truncate(root / layout.LAST_COMMIT, len(before) - 1)
    log = (root / LOG).read_bytes()
    log = {"whole": log, "torn": log[:-9], "foreign": log + b"x" * 100}[tail]
    (root / LOG).write_bytes(log)
    monkeypatch.setattr(recovery, "boot_id", lambda: "after the power came back")
    certain = last in ("named", "not yet") and tail != "foreign"
    with opened(root) as archive:
        assert archive.uids() == {"1.2.1"}
        assert (root / LOG).stat().st_size == end
        assert (root / "set-aside").exists() != certain
        assert certain or [path.read_bytes() for path in (root / "set-aside").iterdir()] == [log[end:]]
        assert archive.commit(new_instance("1.1", "1.2", "1.2.4")) == [STORED]
        with archive.index.read() as view:
            entry = view.instance("1.2.4")
            assert entry is not None
            assert entry.array == (0 if certain else 1)
        assert archive.errors() == []


@pytest.mark.parametrize("again", [0, 2])
def test_the_frames_of_what_was_set_aside(root: Path, again: int) -> None:
    """They stay, however often the index is made anew: the record can be mended and put back."""
    newest = new_instance("1.1", "1.2", "1.2.2")
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"))
        archive.commit(newest, new_instance("1.1", "1.20", "1.9.1"))
        damage = Damage(archive, "1.2.2", "head")
    log = (root / LOG).read_bytes()
    damage.do()
    for _ in range(1 + again):
        reindex(root)
    with opened(root) as archive:
        assert archive.commit(new_instance("1.1", "1.2", "1.2.3"), new_instance("1.1", "1.20", "1.9.2")) == [STORED] * 2
        with archive.index.read() as view:
            entry = view.instance("1.9.2")
            assert entry is not None
            assert entry.array == 0, "of another series nothing was set aside"
    (root / LOG).write_bytes(log)
    reindex(root)
    with opened(root) as archive:
        assert archive.holds(newest)


def test_an_instance_that_two_tails_have(root: Path, tmp_path: Path) -> None:
    """One was refused and could not be taken back, the other was stored; the index of before both is put back."""
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "1.2.1"), new_instance("1.1", "1.3", "1.3.1"))
    index = copy_index(root, tmp_path / "index")
    shutil.copytree(root, tmp_path / "other")
    with opened(tmp_path / "other") as archive:
        archive.commit(new_instance("1.1", "1.3", "5.5.5"))
    with opened(root) as archive:
        archive.commit(new_instance("1.1", "1.2", "5.5.5"))
    other = layout.series_path("1.1", "1.3")
    shutil.copytree(tmp_path / "other" / other, root / other, dirs_exist_ok=True)
    shutil.rmtree(root / "index")
    index.rename(root / "index")
    (root / layout.LAST_COMMIT).write_bytes((root / layout.LAST_COMMIT).read_bytes()[:100])
    with opened(root) as archive:
        assert archive.commit(new_instance("1.1", "1.3", "1.3.2")) == [STORED]
        assert archive.uids() == {"1.2.1", "1.3.1", "1.3.2", "5.5.5"}
        archive.committer.settle()
        assert archive.errors() == []
