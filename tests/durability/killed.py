"""Writers that are killed at any operation, and others that go on: run by test_killed.py, one JSON line a result.

A process that never opened an archive forks the writers, since an LMDB environment must not cross a fork.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from pacs.storage.commit import Status
from pacs.storage.disk import Disk, Operation
from pacs.storage.model import NewInstance
from tests.durability.synthetic import FOUR, Opened, create, new_instance, opened, stage


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a process of its own; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a child failed with {os.WEXITSTATUS(status)}")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def before() -> list[NewInstance]:
    return [new_instance("1.1", "1.2", "1.2.0", key=FOUR, chunks=3), new_instance("1.1", "1.3", "1.3.1")]


def batch(archive: Opened | None) -> list[NewInstance]:
    own = new_instance("2.1", "2.2", "2.2.1", key=FOUR, chunks=6)
    return [
        new_instance("1.1", "1.2", "1.2.1", key=FOUR, chunks=2),
        stage(archive.committer, own) if archive is not None else own,
        new_instance("1.1", "1.3", "1.3.2"),
    ]


class Killing(Disk):
    """Counts operations and steps, and kills its own process at one of them."""

    def __init__(self, place: int) -> None:
        super().__init__(self._observe)
        self.place = place
        self.count = 0
        self.armed = False

    def _observe(self, operation: Operation) -> None:
        if self.armed:
            self.count += 1
            if self.count == self.place:
                os.kill(os.getpid(), signal.SIGKILL)


def prepare(root: Path) -> None:
    with opened(create(root)) as archive:
        assert archive.commit(*before()) == [Status.STORED] * 2


def commit_and_die(root: Path, place: int, report: Path) -> None:
    """Commit a batch, killed at operation `place`; `report` is written if the commit is acknowledged."""
    disk = Killing(place)
    with opened(root, disk) as archive:
        new = batch(archive)
        disk.armed = True
        statuses = archive.commit(*new)
        assert statuses == [Status.STORED] * 3
        report.write_text("acknowledged")
        archive.committer.settle()


def look(root: Path, acknowledged: bool, others: int = 0) -> None:
    """Open the archive after the kill: everything that must be there is, and nothing half."""
    with opened(root) as archive:
        assert all(archive.holds(new) for new in before())
        there = [archive.holds(new) for new in batch(None)]
        assert all(there) or not acknowledged, there
        assert len(archive.uids()) == 2 + others + sum(there), "half visible"
        assert archive.errors() == []
        assert set(archive.commit(*batch(archive))) <= {Status.STORED, Status.DUPLICATE}
        assert all(archive.holds(new) for new in batch(None))
        archive.committer.settle()
        assert archive.errors() == []


def kill_everywhere(base: Path) -> None:
    """One kill at every operation; the archive is then opened anew."""
    in_child(lambda: prepare(base / "start"))
    for place in range(1, 1000):
        root, report = base / f"killed-{place}", base / f"report-{place}"
        shutil.copytree(base / "start", root)
        died = in_child(lambda root=root, place=place, report=report: commit_and_die(root, place, report))
        in_child(lambda root=root, report=report: look(root, report.exists()))
        shutil.rmtree(root)
        if not died:
            print(json.dumps({"kills": place - 1}))
            return


def survivor(root: Path, ready: int, go: int) -> None:
    """A second worker: has the archive open while the other is killed, then goes on."""
    with opened(root) as archive:
        os.write(ready, b"x")
        os.read(go, 1)
        later = new_instance("1.1", "1.2", "7.7.7", key=FOUR, chunks=3)
        assert archive.commit(later) == [Status.STORED]
        assert archive.holds(later)
        there = [archive.holds(new) for new in batch(None)]
        assert len(archive.uids()) == 3 + sum(there), "half visible"
        archive.committer.settle()
        assert archive.errors() == []
        assert set(archive.commit(*batch(archive))) <= {Status.STORED, Status.DUPLICATE}
        assert all(archive.holds(new) for new in [*batch(None), later])


def kill_one_of_two(base: Path) -> None:
    """One kill at every third operation, beside a worker that survives."""
    in_child(lambda: prepare(base / "start"))
    for place in range(1, 1000, 3):
        root, report = base / f"two-{place}", base / f"report-{place}"
        shutil.copytree(base / "start", root)
        ready, is_ready = os.pipe()
        go, may_go = os.pipe()
        other = os.fork()
        if other == 0:
            code = 1
            try:
                survivor(root, is_ready, go)
                code = 0
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
            finally:
                os._exit(code)
        os.read(ready, 1)
        died = in_child(lambda root=root, place=place, report=report: commit_and_die(root, place, report))
        os.write(may_go, b"x")
        _, status = os.waitpid(other, 0)
        for descriptor in (ready, is_ready, go, may_go):
            os.close(descriptor)
        assert status == 0, f"the survivor of a kill at operation {place} failed"
        in_child(lambda root=root, report=report: look(root, report.exists(), others=1))
        shutil.rmtree(root)
        if not died:
            print(json.dumps({"kills": place // 3}))
            return


def write_beside_others(root: Path, name: str) -> None:
    """One of several processes that append to the same series."""
    stored = 0
    with opened(root) as archive:
        for n in range(40):
            own = new_instance("1.1", "1.2", f"1.{name}.{n}", key=FOUR, chunks=1 + n % 3)
            contested = new_instance("1.1", "1.2", f"2.{n}")
            statuses = archive.commit(own, contested)
            assert statuses[0] is Status.STORED
            stored += statuses[1] is Status.STORED
        assert archive.holds(own)
    print(json.dumps({"contested": stored}))


def main() -> None:
    task, base = sys.argv[1], Path(sys.argv[2])
    if task == "everywhere":
        kill_everywhere(base)
    elif task == "one of two":
        kill_one_of_two(base)
    else:
        write_beside_others(base, task)


if __name__ == "__main__":
    main()
