"""Power loss at any moment: whatever subset of the unsynced operations survives, nothing acknowledged is lost."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pacs.errors import PacsError
from pacs.storage import layout
from pacs.storage.commit import Status
from pacs.storage.disk import Disk, Operation
from pacs.storage.model import NewInstance
from pacs.storage.recovery import recovery
from pacs.storage.recovery.reindex import reindex
from tests.durability.power import PowerLoss, copy_index
from tests.durability.synthetic import FOUR, Opened, create, new_instance, opened, stage

CRASHES = 400
MEMORY = Path("/dev/shm")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Memory where there is some: the replayed archives need no real durability."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(dir=MEMORY))
    yield path
    shutil.rmtree(path)


@dataclass
class History:
    """What happened to an archive, in order."""

    root: Path
    place: Path
    events: list[Operation | Path | list[NewInstance]] = field(default_factory=list)
    """Operations; a copy of the index after each of its commits; instances that were acknowledged."""
    sent: dict[str, NewInstance] = field(default_factory=dict)
    full: str = ""
    """The disk is full for the next write to a file of this name."""
    dies_at: str = ""
    """The step from which on the process does nothing more."""
    dead: bool = False

    def observe(self, operation: Operation) -> None:
        self.dead = bool(self.dies_at) and (self.dead or (operation.name, operation.path) == ("step", self.dies_at))
        if self.dead:
            raise OSError(errno.EIO, "Input/output error", operation.path)
        if self.full and operation.name == "write" and operation.path.endswith(self.full):
            self.full = ""
            raise OSError(errno.ENOSPC, "No space left on device", operation.path)
        if operation.name == "step":
            if operation.path == "index-committed":
                self.events.append(copy_index(self.root, self.place / f"index-{len(self.events)}"))
        elif operation.done:
            self.events.append(operation)

    def commit(self, archive: Opened, *batch: NewInstance) -> None:
        for new in batch:
            self.sent.setdefault(new.descriptor.instance, new)
        statuses = archive.commit(*batch)
        self.events.append(
            [
                self.sent[new.descriptor.instance]
                for new, status in zip(batch, statuses, strict=True)
                if status in (Status.STORED, Status.DUPLICATE)
            ]
        )


def live(history: History, archive: Opened) -> None:
    small = [new_instance("1.1", "1.2", f"1.2.{n}", number=n) for n in range(6)]
    big = history.sent["1.3.1"] = new_instance("1.1", "1.3", "1.3.1", key=FOUR, chunks=9)
    history.commit(archive, *small[:2])
    history.commit(archive, small[2], small[0], new_instance("2.1", "2.2", "2.2.1", key=FOUR, chunks=3, date=""))
    archive.committer.settle()
    # A new series in an array of its own, while another series goes on over the end of its shard.
    history.commit(archive, stage(archive.committer, big), new_instance("2.1", "2.2", "2.2.2", key=FOUR))
    history.commit(archive, new_instance("2.1", "2.2", "2.2.3", key=FOUR, chunks=3), small[3])
    history.commit(archive, new_instance("1.1", "1.2", "1.2.0", seed=7))  # refused: nothing is written
    archive.committer.settle()
    history.commit(archive, new_instance("3.1", "3.2", "3.2.1", key=None, bulk=(b"letter" * 700, b"x" * 90)))
    for name in ("records.log", "c.1"):
        history.full = name
        refused = new_instance("4.1", "4.2", f"4.2.{name.count('o')}", key=FOUR, chunks=6)
        history.commit(archive, new_instance("2.1", "2.2", "2.2.4", key=FOUR, chunks=3), refused)
        assert not history.full
    history.commit(archive, small[4], new_instance("2.1", "2.9", "2.9.1"))
    history.commit(archive, stage(archive.committer, big))  # a duplicate: its staged array goes away
    history.commit(archive, small[5])


def crash(history: History, start: PowerLoss, index: Path, target: Path, noise: random.Random) -> list[NewInstance]:
    """Replay up to a random moment, lose power; what had been acknowledged by then."""
    acknowledged: list[NewInstance] = []
    end = noise.randrange(1, len(history.events) + 1)
    for event in history.events[:end]:
        if isinstance(event, Operation):
            start.replay(event)
        elif isinstance(event, Path):
            index = event
        else:
            acknowledged += event
    start.materialise(target, noise)
    shutil.copytree(index, target / "index")
    last = target / layout.LAST_COMMIT
    if noise.random() < 0.7 and last.exists():  # or when it was written is lost, too
        os.utime(last)
    return acknowledged


@contextmanager
def crashed(place: Path, history: History, seed: int) -> Iterator[tuple[Path, list[NewInstance]]]:
    """The archive that a crash leaves, and what was acknowledged before it."""
    target = place / f"crashed-{seed}"
    noise = random.Random(seed)
    start = PowerLoss(place / "start", history.root)
    yield target, crash(history, start, place / "index-start", target, noise)
    shutil.rmtree(target)


@pytest.fixture
def history(place: Path) -> History:
    return recorded(place, Disk())


def recorded(place: Path, disk: Disk) -> History:
    root = create(place / "archive")
    with opened(root):
        pass
    shutil.copytree(root, place / "start")
    copy_index(root, place / "index-start")
    history = History(root, place)
    disk.observer = history.observe
    with opened(root, disk) as archive:
        live(history, archive)
    return history


def lost(archive: Opened, acknowledged: list[NewInstance]) -> list[str]:
    """Acknowledged instances that are not there, or not as they were."""
    missing = []
    for new in acknowledged:
        try:
            there = archive.holds(new)
        except PacsError as error:
            missing.append(f"{new.descriptor.instance}: {error.message}")
            continue
        if not there:
            missing.append(new.descriptor.instance)
    return missing


def test_nothing_acknowledged_is_lost(place: Path, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "boot_id", lambda: "after the power came back")
    rolled_forward = 0
    for seed in range(CRASHES):
        with crashed(place, history, seed) as (target, acknowledged):
            with opened(target) as archive:
                assert lost(archive, acknowledged) == [], seed
                visible = archive.uids()
                assert lost(archive, [history.sent[uid] for uid in visible]) == [], seed
                rolled_forward += len(visible) > len({new.descriptor.instance for new in acknowledged})
                assert archive.errors() == [], seed
                if seed % 4 == 0:
                    later = new_instance("1.1", "1.2", "9.9.9")
                    assert archive.commit(later) == [Status.STORED]
                    assert lost(archive, [*acknowledged, later]) == [], seed
                    archive.committer.settle()
                    assert archive.errors() == [], seed
                    visible.add("9.9.9")
                before = archive.dump()
            if seed % 2 == 0:
                shutil.rmtree(target / "index")
                assert reindex(target).damaged == [], seed
                with opened(target) as archive:
                    assert archive.uids() == visible, seed
                    assert archive.errors() == [], seed
                    assert archive.dump().keys() == before.keys()
    assert rolled_forward > 5, "no crash hit the moment between records and index"


def test_reindex_right_after_a_crash(place: Path, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is lost together with the power: the records alone have to do."""
    monkeypatch.setattr(recovery, "boot_id", lambda: "after the power came back")
    for seed in range(1000, 1000 + CRASHES // 3):
        with crashed(place, history, seed) as (target, acknowledged):
            shutil.rmtree(target / "index")
            reindex(target)
            with opened(target) as archive:
                assert lost(archive, acknowledged) == [], seed
                assert lost(archive, [history.sent[uid] for uid in archive.uids()]) == [], seed
                assert archive.errors() == [], seed


def test_what_a_killed_batch_left_is_durable_before_it_is_answered(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process dies before its sync; the next one enters what it wrote, and tells who sends it again that it is
    stored. Then the power goes."""
    root = create(place / "archive")
    with opened(root):
        pass
    shutil.copytree(root, place / "start")
    history = History(root, place)
    sent = [new_instance("1.1", "1.2", "1.2.1"), new_instance("2.1", "2.2", "2.2.1", key=FOUR, chunks=5)]
    disk = Disk(history.observe)
    with opened(root, disk) as archive:
        history.dies_at = "records-written"
        assert archive.commit(*sent) == [Status.FAILED] * 2
    history.dies_at = ""
    with opened(root, Disk(history.observe)) as archive:
        copy_index(root, place / "index-start")
        start = len(history.events)
        history.commit(archive, *sent)
        assert history.events[start:] == [sent], "duplicates: nothing is written for them"
    monkeypatch.setattr(recovery, "boot_id", lambda: "after the power came back")
    for seed in range(20):
        target, noise = place / f"crashed-{seed}", random.Random(seed)
        before = PowerLoss(place / "start", root)
        for event in history.events:
            if isinstance(event, Operation):
                before.replay(event)
        before.materialise(target, noise)
        shutil.rmtree(target / "index", ignore_errors=True)
        shutil.copytree(place / "index-start", target / "index")
        with opened(target) as archive:
            assert lost(archive, sent) == [], seed
        shutil.rmtree(target)


class ForgetsRecords(Disk):
    """Syncs everything but the logs: what a forgotten sync in step 3 would be."""

    def syncfs(self, path: str) -> None:
        observer = self.observer
        assert observer is not None
        for found in sorted(Path(path).rglob("*")):
            if found.name != "records.log" and "index" not in found.parts:
                observer(Operation("sync", str(found), True))
        observer(Operation("sync", path, True))


class ForgetsFrames(ForgetsRecords):
    """Syncs everything but the frames."""

    def syncfs(self, path: str) -> None:
        observer = self.observer
        assert observer is not None
        for found in sorted(Path(path).rglob("*")):
            if not found.name.startswith("c.") and "index" not in found.parts:
                observer(Operation("sync", str(found), True))


class ForgetsDirectories(ForgetsRecords):
    """Syncs the files and forgets that their names are not durable yet."""

    def syncfs(self, path: str) -> None:
        observer = self.observer
        assert observer is not None
        for found in sorted(Path(path).rglob("*")):
            if found.is_file() and "index" not in found.parts:
                observer(Operation("sync", str(found), True))


@pytest.mark.parametrize("disk", [ForgetsRecords, ForgetsFrames, ForgetsDirectories])
def test_a_forgotten_sync_is_found(place: Path, monkeypatch: pytest.MonkeyPatch, disk: type[Disk]) -> None:
    monkeypatch.setattr(recovery, "boot_id", lambda: "after the power came back")
    history = recorded(place, disk())
    caught = 0
    for seed in range(40):
        with crashed(place, history, seed) as (target, acknowledged):
            try:
                with opened(target) as archive:
                    caught += bool(lost(archive, acknowledged) or archive.errors())
            except PacsError:
                caught += 1
    assert caught > 5
