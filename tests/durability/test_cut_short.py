"""What a killed batch had moved into place is given back; frames of what somebody may have been promised never are."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pacs.errors import PacsError
from pacs.storage import layout
from pacs.storage.commit import Status
from pacs.storage.disk import Disk, Operation
from pacs.storage.files import records
from pacs.storage.files.last_commit import SLOT, LastCommit
from pacs.storage.model import NewInstance
from pacs.storage.recovery.reindex import reindex
from tests.durability.clients import Load, assert_sound, wait_for
from tests.durability.killed import Killing, in_child
from tests.durability.synthetic import FOUR, Opened, create, new_instance, opened, stage
from tests.durability.test_backup import fast_disk
from tests.durability.test_server_killed import crash_environment
from tests.objects import images

__all__ = ["fast_disk"]
ROOT = Path(__file__).resolve().parents[2]
BEFORE = [new_instance("1.1", "1.2", "1.2.0", key=FOUR, chunks=5), new_instance("1.1", "1.3", "1.3.1")]
BIG = new_instance("2.1", "2.2", "2.2.1", key=FOUR, chunks=6)
"""In a series of its own."""
MORE = [
    new_instance("1.1", "1.2", "1.2.1", key=FOUR, chunks=7),
    new_instance("1.1", "1.2", "1.2.2", key=FOUR, chunks=2),
    new_instance("1.1", "1.3", "1.3.2"),
]


def batch(archive: Opened) -> list[NewInstance]:
    """New arrays of three kinds: grown in `staging/`, from memory, and shared."""
    return [stage(archive.committer, BIG), *MORE]


def on_disk(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.glob("studies/*/series/*/frames-*")}


def known(archive: Opened) -> set[str]:
    with archive.index.read() as view:
        return {
            layout.array_path(study.uid, series.uid, k)
            for study in view.studies()
            for series in view.series_of(study.uid)
            for k, _ in view.arrays(series.number)
        }


def prepare(root: Path) -> None:
    with opened(create(root)) as archive:
        assert archive.commit(*BEFORE) == [Status.STORED] * 2


def commit_and_die(root: Path, place: int) -> None:
    disk = Killing(place)
    with opened(root, disk) as archive:
        new = batch(archive)
        disk.armed = True
        archive.commit(*new)
        archive.committer.settle()


def look(root: Path, report: Path | None = None) -> None:
    """`report` gets how many arrays opening the archive has removed."""
    there = on_disk(root)
    with opened(root) as archive:
        assert all(archive.holds(new) for new in BEFORE)
        assert on_disk(root) == known(archive)
        assert archive.errors() == []
        gone = len(there - on_disk(root))
        assert set(archive.commit(*batch(archive))) <= {Status.STORED, Status.DUPLICATE}
        assert all(archive.holds(new) for new in [*BEFORE, BIG, *MORE])
        archive.committer.settle()
        assert archive.errors() == []
        assert on_disk(root) == known(archive)
    if report is not None:
        report.write_text(str(gone))


def kill_everywhere(base: Path) -> None:
    in_child(lambda: prepare(base / "start"))
    gone = 0
    for place in range(1, 1000):
        root = base / f"killed-{place}"
        shutil.copytree(base / "start", root)
        died = in_child(lambda root=root, place=place: commit_and_die(root, place))
        in_child(lambda root=root: look(root, base / "gone"))
        gone += int((base / "gone").read_text())
        shutil.rmtree(root)
        if not died:
            break
    print(json.dumps({"kills": place - 1, "gone": gone}))


class Dies(Disk):
    """At a step."""

    def __init__(self, step: str) -> None:
        super().__init__(self._observe)
        self._step = step

    def _observe(self, operation: Operation) -> None:
        if (operation.name, operation.path) == ("step", self._step):
            os.kill(os.getpid(), signal.SIGKILL)


def die_at(root: Path, step: str) -> None:
    with opened(root, Dies(step)) as archive:
        archive.commit(*batch(archive))


def reopen_and_die(root: Path, place: int) -> None:
    disk = Killing(place)
    disk.armed = True
    with opened(root, disk):
        disk.armed = False


def kill_recovery(base: Path) -> None:
    in_child(lambda: prepare(base / "start"))
    in_child(lambda: die_at(base / "start", "frames-written"))
    for place in range(1, 1000):
        root = base / f"killed-{place}"
        shutil.copytree(base / "start", root)
        os.utime(root / layout.LAST_COMMIT)  # newer than the index, as it was before it was copied
        died = in_child(lambda root=root, place=place: reopen_and_die(root, place))
        in_child(lambda root=root: look(root))
        shutil.rmtree(root)
        if not died:
            break
    print(json.dumps({"kills": place - 1}))


def acknowledged(base: Path) -> None:
    """An archive whose server was killed right after it had answered, and the index of one commit before."""
    root = base / "archive"
    in_child(lambda: prepare(root))
    shutil.copytree(root / "index", base / "index")
    assert in_child(lambda: die_at(root, "index-committed")) == signal.SIGKILL


def torn(base: Path) -> None:
    """A server killed when all records had been written, none of them answered."""
    in_child(lambda: prepare(base / "start"))
    assert in_child(lambda: die_at(base / "start", "records-written")) == signal.SIGKILL


TASKS = {"everywhere": kill_everywhere, "recovery": kill_recovery, "acknowledged": acknowledged, "torn": torn}


def run(task: str, place: Path) -> dict[str, int]:
    """In a process that never opened an archive: it forks the writers."""
    command = [sys.executable, "-m", "tests.durability.test_cut_short", task, str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout or "{}")  # type: ignore[no-any-return]


# --- what is given back ---------------------------------------------------------------------------------------


def test_killed_at_any_operation(fast_disk: Path) -> None:
    result = run("everywhere", fast_disk)
    assert result["kills"] > 30
    assert result["gone"] > 10


def test_killed_again_at_any_operation_of_the_opening(fast_disk: Path) -> None:
    assert run("recovery", fast_disk)["kills"] > 10


def crash(step: str, tmp_path: Path, *, group: bool) -> dict[str, str]:
    return {**crash_environment(step, tmp_path, group=group), "CRASH_COUNT": "1"}


@pytest.mark.parametrize("group", [False, True])
def test_a_server_killed_behind_a_large_upload(
    group: bool, tmp_path: Path, start_server: Callable[..., Any], pacs_command: Callable[..., Any]
) -> None:
    """The worker beside, or the next server, removes the array, and the sender sends again."""
    archive, file = tmp_path / "archive", images.long_multi_frame(600, length=20_000).file
    server = start_server(archive, workers=2, env=crash("frames-written", tmp_path, group=group))
    load = Load(server.address, [file], until_all=not group)
    load.join()
    if group:
        wait_for(lambda: server.process.poll() is not None)
        assert len(on_disk(archive)) == 1, "it was moved into place"
        server = start_server(archive, workers=2)
        wait_for(lambda: on_disk(archive) == set())
    else:
        wait_for((tmp_path / "crashed").exists)
        assert load.acknowledged == [file]
    assert_sound(server, load, [file], pacs_command)
    assert len(on_disk(archive)) == 1
    checked = pacs_command("check", "--archive", archive)
    assert "note" not in checked.stdout


def test_a_server_killed_in_the_middle_of_a_large_upload(
    tmp_path: Path, start_server: Callable[..., Any], pacs_command: Callable[..., Any]
) -> None:
    """What grew in `staging/` goes at the next open."""
    archive, file = tmp_path / "archive", images.long_multi_frame(600, length=20_000).file
    server = start_server(archive, workers=1, env=crash("placed", tmp_path, group=True))
    load = Load(server.address, [file], until_all=False)
    load.join()
    wait_for(lambda: server.process.poll() is not None)
    assert len(list(archive.glob("staging/*/*/c.*"))) > 2
    server = start_server(archive, workers=1)
    wait_for(lambda: not any((archive / "staging").iterdir()))
    assert_sound(server, load, [file], pacs_command)


# --- what never is --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an archive killed between a commit and the shapes of its arrays: `archive`, and `index` of one commit ago."""
    folder = tmp_path_factory.mktemp("killed")
    run("acknowledged", folder)
    return folder


@pytest.fixture
def answered(killed: Path, fast_disk: Path) -> Path:
    """That archive, with that index in it."""
    root = fast_disk / "archive"
    shutil.copytree(killed / "archive", root, symlinks=True, ignore=lambda _, names: {"index"} & set(names))
    shutil.copytree(killed / "index", root / "index")
    return root


def frames(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.glob("studies/**/c.*")}


def test_an_index_of_one_commit_ago(answered: Path) -> None:
    there = on_disk(answered)
    assert not list(answered.glob("studies/2.1/series/*/frames-*/zarr.json"))
    with opened(answered) as archive:
        assert all(archive.holds(new) for new in [*BEFORE, BIG, *MORE])
        assert on_disk(answered) == known(archive) == there


def lost(log: Path) -> None:
    log.rename(log.with_name("lost"))


def emptied(log: Path) -> None:
    """No batch of the series was committed before this one."""
    os.truncate(log, 0)


def cut(log: Path) -> None:
    os.truncate(log, log.stat().st_size - 1)


def a_length_too_long(log: Path) -> None:
    with log.open("r+b") as file:
        file.seek(12)
        file.write(b"\x01")


def damaged_head(log: Path) -> None:
    with log.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff\xff\xff\xff")


def damaged_part(log: Path) -> None:
    with log.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"\xff" * 10)


def damaged_frame(log: Path) -> None:
    with (log.parent / "frames-0" / "c.1").open("r+b") as file:
        file.seek(500)
        file.write(bytes(100))


@pytest.mark.parametrize("fault", [lost, emptied, cut, a_length_too_long, damaged_head, damaged_part, damaged_frame])
def test_frames_whose_record_is_not_whole_any_more(answered: Path, fault: Callable[[Path], None]) -> None:
    """An index of one commit ago is put back, so that the commit looks as if it had never ended, and more is broken."""
    fault(answered / layout.log_path("2.1", "2.2"))
    there = frames(answered)
    for _ in range(2):
        with opened(answered) as archive:
            assert archive.commit(new_instance("1.1", "1.3", "9.9.9")) != []
    assert {path: frames(answered)[path] for path in there if "2.1" in path} == {
        path: data for path, data in there.items() if "2.1" in path
    }


@pytest.mark.parametrize("fault", [cut, a_length_too_long, damaged_head, damaged_part, damaged_frame])
def test_the_record_itself_is_set_aside(answered: Path, fault: Callable[[Path], None]) -> None:
    """Its commit was answered, and only what is damaged of it may be lost."""
    log = answered / layout.log_path("2.1", "2.2")
    fault(log)
    record = log.read_bytes()
    for _ in range(2):
        with opened(answered) as archive:
            assert not archive.uids() & {"2.2.1"}
    assert [path.read_bytes() for path in (answered / "set-aside").iterdir()] == [record]


def test_what_is_set_aside_is_durable_before_it_is_cut_off(answered: Path) -> None:
    """Also what an opening had set aside that was cut short."""
    damaged_part(answered / layout.log_path("2.1", "2.2"))
    for goes_on in (False, True):
        done: list[str] = []

        def observe(operation: Operation, done: list[str] = done, goes_on: bool = goes_on) -> None:
            if operation.name == "truncate" and not goes_on:
                raise KeyboardInterrupt
            if operation.done:
                done.append(operation.name)

        with suppress(KeyboardInterrupt), opened(answered, Disk(observe)):
            pass
        assert done[: done.index("truncate") if goes_on else None][-1] == "syncfs"


class Stops(Disk):
    """As a kill does, behind the first truncation of a file, or at the first sync; and may set nothing aside."""

    def __init__(self, operation: str, *, refuse: bool) -> None:
        super().__init__(self._observe)
        self._operation, self._refuse = operation, refuse

    def _observe(self, operation: Operation) -> None:
        if self._refuse and "set-aside" in operation.path:
            raise OSError(errno.ENOSPC, "No space left on device", operation.path)
        if operation.done and operation.name == self._operation:
            raise KeyboardInterrupt


def all_of_it_lost(log: Path) -> None:
    os.truncate(log, next(log.parent.glob("known")).stat().st_size)


@pytest.mark.parametrize("first", [None, Stops("truncate", refuse=False), Stops("syncfs", refuse=True)])
@pytest.mark.parametrize("fault", [cut, damaged_part, all_of_it_lost])
def test_frames_in_an_array_of_many(answered: Path, fault: Callable[[Path], None], first: Disk | None) -> None:
    """Of an answered record that lost its end nothing is written over: the log may be put back. The first opening may
    be cut short."""
    log = answered / layout.log_path("1.1", "1.3")
    before = log.read_bytes()
    (log.parent / "known").write_bytes(before[: len(before) // 2])
    fault(log)
    damaged = log.read_bytes()[len(before) // 2 :]
    if first is not None:
        with suppress(KeyboardInterrupt), opened(answered, first):
            pass
    with opened(answered) as archive:
        assert not archive.uids() & {"1.3.2"}
        assert archive.commit(new_instance("1.1", "1.3", "9.9.9")) == [Status.STORED]
    assert damaged in [b"", *(path.read_bytes() for path in answered.glob("set-aside/*"))]
    log.write_bytes(before)
    assert reindex(answered).damaged == []
    with opened(answered) as archive:
        assert all(archive.holds(new) for new in [*BEFORE, BIG, *MORE])


def test_a_whole_record_behind_a_damaged_one(answered: Path) -> None:
    """What was set aside comes back as docs/operations.md says."""
    log = answered / layout.log_path("1.1", "1.2")
    second = records_of(log)[2]
    with log.open("r+b") as file:
        file.seek(second.offset - 20)
        file.write(b"\xff" * 10)
    with opened(answered) as archive:
        assert archive.commit(new_instance("1.1", "1.2", "9.9.9", key=FOUR)) == [Status.STORED]
        assert not archive.holds(MORE[1])
    (aside,) = answered.glob("set-aside/*")
    with log.open("ab") as file:
        file.write(aside.read_bytes())
    assert len(reindex(answered).damaged) == 1
    aside.rename(answered.parent / "elsewhere")
    with opened(answered) as archive:
        assert all(archive.holds(new) for new in [*BEFORE, BIG, MORE[1], MORE[2]])
        assert not archive.holds(MORE[0])


def records_of(log: Path) -> list[records.Record]:
    with log.open("rb") as file:
        return list(records.walk(file.fileno(), str(log), 0, log.stat().st_size))


def test_a_last_commit_that_was_changed_since(answered: Path) -> None:
    """It is newer than the index that was put back, and has lost the slot of the commit before: it proves nothing."""
    log = answered / layout.log_path("1.1", "1.3")
    damaged_part(log)
    record = log.read_bytes()[-100:]
    with (answered / layout.LAST_COMMIT).open("r+b") as file:
        file.seek(SLOT)
        file.write(bytes(4096))
    with opened(answered):
        pass
    assert [path.read_bytes()[-100:] for path in answered.glob("set-aside/*")] == [record]


@pytest.mark.parametrize(("offset", "length"), [(0, 8), (16, 3), (0, 16), (0, 4096)])
def test_the_slot_of_the_newest_commit_is_lost_too(answered: Path, offset: int, length: int) -> None:
    """Nothing but the logs tells that the index is not of the newest commit: all of them are looked at."""
    with (answered / layout.LAST_COMMIT).open("r+b") as file:
        file.seek(offset)
        file.write(bytes(length))
    assert LastCommit(answered, Disk()).read()[0].sequence == 1
    with opened(answered) as archive:
        assert all(archive.holds(new) for new in [*BEFORE, BIG, *MORE])
        assert on_disk(answered) == known(archive)
        assert archive.errors() == []


def test_a_record_that_is_torn_names_no_array(fast_disk: Path) -> None:
    run("torn", fast_disk)
    root = fast_disk / "start"
    log = root / layout.log_path("2.1", "2.2")
    os.truncate(log, log.stat().st_size // 2)
    with opened(root) as archive:
        assert all(archive.holds(new) for new in BEFORE)
        assert layout.array_path("2.1", "2.2", 0) not in on_disk(root)
        assert on_disk(root) == known(archive)


def test_the_slot_that_an_opening_wrote_proves_nothing(answered: Path) -> None:
    """The newest slot is lost, too; the first opening is killed right behind writing it anew."""
    log = answered / layout.log_path("1.1", "1.3")
    before = log.read_bytes()
    cut(log)
    with (answered / layout.LAST_COMMIT).open("r+b") as file:
        file.write(bytes(4096))

    def stop(operation: Operation) -> None:
        if operation.done and operation.path.endswith(layout.LAST_COMMIT):
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), opened(answered, Disk(stop)):
        pass
    assert LastCommit(answered, Disk()).read()[0].found
    with opened(answered) as archive:
        assert archive.commit(new_instance("1.1", "1.3", "9.9.9")) == [Status.STORED]
    log.write_bytes(before)
    assert reindex(answered).damaged == []
    with opened(answered) as archive:
        assert all(archive.holds(new) for new in [*BEFORE, BIG, *MORE])


def test_a_log_that_cannot_be_opened_to_set_its_end_aside(answered: Path) -> None:
    """Too much is open by then: it is not cut off either."""
    logs = [answered / layout.log_path("1.1", "1.3"), answered / layout.log_path("2.1", "2.2")]
    for log in logs:
        damaged_part(log)
    sizes = [log.stat().st_size for log in logs]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)

    def too_much(operation: Operation) -> None:
        if operation.done and operation.name == "syncfs":
            links = {int(link.name): os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}
            lowest = min(number for number, path in links.items() if path.endswith("records.log"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limit[1]))

    try:
        with pytest.raises(PacsError), opened(answered, Disk(too_much)):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert [log.stat().st_size for log in logs] == sizes


def test_a_log_that_could_not_be_cut_off(fast_disk: Path) -> None:
    """Its end may name the array, damaged as it is: it is set aside before it goes, and without room for that it stays,
    as the array does."""

    def refuse(operation: Operation) -> None:
        if "set-aside" in operation.path:
            raise OSError(errno.ENOSPC, "No space left on device", operation.path)

    run("torn", fast_disk)
    root = fast_disk / "start"
    damaged_head(root / layout.log_path("2.1", "2.2"))
    there, log = on_disk(root), (root / layout.log_path("2.1", "2.2")).read_bytes()
    assert len(there) > 1
    with opened(root, Disk(refuse)):
        assert (root / layout.log_path("2.1", "2.2")).read_bytes() == log
        assert root / layout.array_path("2.1", "2.2", 0) in map(root.joinpath, on_disk(root))


def test_a_log_that_cannot_be_opened(answered: Path) -> None:
    log, aside = answered / layout.log_path("2.1", "2.2"), answered / "aside"
    log.rename(aside)
    log.symlink_to(log.name)  # ELOOP, for root too
    there = frames(answered)
    with pytest.raises(PacsError), opened(answered):
        pass
    assert frames(answered) == there
    log.unlink()
    aside.rename(log)
    with opened(answered) as archive:
        assert archive.holds(BIG)


def test_an_index_that_was_deleted(answered: Path) -> None:
    shutil.rmtree(answered / "index")
    there = on_disk(answered)
    with pytest.raises(PacsError), opened(answered):
        pass
    assert reindex(answered).damaged == []
    with opened(answered) as archive:
        assert archive.holds(BIG)
        assert on_disk(answered) == there


def test_a_last_commit_that_is_damaged_tells_nothing(answered: Path) -> None:
    os.truncate(answered / layout.log_path("2.1", "2.2"), 0)
    with (answered / layout.LAST_COMMIT).open("r+b") as file:
        file.seek(2 * 65536)
        file.write(b"\x01" * 12)
    there = on_disk(answered)
    with opened(answered):
        pass
    assert on_disk(answered) == there


if __name__ == "__main__":
    TASKS[sys.argv[1]](Path(sys.argv[2]))
