"""A reindex that fails, or is killed, at any operation: the archive opens as before, or with the new index."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pacs.errors import PacsError
from pacs.storage import layout
from pacs.storage.disk import Disk, Operation
from pacs.storage.recovery.reindex import reindex
from tests.durability.killed import Killing, in_child
from tests.durability.synthetic import FOUR, create, new_instance, opened
from tests.durability.test_backup import fast_disk

__all__ = ["fast_disk"]
ROOT = Path(__file__).resolve().parents[2]
STORED = [
    [new_instance("1.1", "1.2", f"1.2.{n}", key=FOUR, chunks=2) for n in range(3)],
    [new_instance("1.1", "1.3", "1.3.1")],
]


def prepare(root: Path) -> None:
    with opened(create(root)) as archive:
        for batch in STORED:
            archive.commit(*batch)
    (root / layout.series_path("1.1", "1.2") / "zarr.json").unlink()  # so that there is something to derive


def look(root: Path) -> None:
    with opened(root) as archive:
        assert all(archive.holds(new) for batch in STORED for new in batch)


class Failing(Disk):
    """Fails once, at the operation `place`."""

    def __init__(self, place: int, number: int) -> None:
        super().__init__(self._observe)
        self.place, self.number, self.count = place, number, 0

    def _observe(self, operation: Operation) -> None:
        if not operation.done:
            self.count += 1
            if self.count == self.place:
                raise OSError(self.number, os.strerror(self.number), operation.path)


@pytest.mark.parametrize("known", [True, False])
def test_failed_at_any_operation(fast_disk: Path, known: bool) -> None:
    root, work = fast_disk / "archive", fast_disk / "work"
    prepare(root)
    if not known:
        (root / layout.LAST_COMMIT).unlink()
    for place in range(1, 100):
        shutil.copytree(root, work)
        disk = Failing(place, errno.EIO)
        failed = False
        try:
            reindex(work, disk=disk)
        except (PacsError, OSError):
            failed = True
        if known or not failed:
            look(work)
        if failed:
            assert reindex(work).instances == 4
            look(work)
        assert (disk.count < place) <= (not failed)
        shutil.rmtree(work)
        if disk.count < place:
            break
    assert 12 < place < 99


def test_what_takes_a_place_is_durable_before(fast_disk: Path) -> None:
    """The new index before it is renamed, its name before the old one goes: power may be lost in between."""
    done: list[str] = []

    def observe(operation: Operation) -> None:
        if operation.done:
            done.append(operation.name)

    prepare(fast_disk / "archive")
    reindex(fast_disk / "archive", disk=Disk(observe))
    first = done.index("rename", max(n for n, name in enumerate(done) if name in ("write", "mkdir")))
    assert done[first - 1 : first + 4] == ["syncfs", "rename", "rename", "syncfs", "rename"]
    assert set(done[first + 4 :]) == {"unlink", "rmdir"}


class KillingAtTheEnd(Killing):
    """Counts from the first rename on: before it, all that is written is another index."""

    def _observe(self, operation: Operation) -> None:
        self.armed = self.armed or operation.name == "rename"
        super()._observe(operation)


def kill_everywhere(base: Path) -> None:
    root, work, kills = base / "archive", base / "work", 0
    in_child(lambda: prepare(root))
    for place in range(1, 100):
        shutil.copytree(root, work)
        disk = KillingAtTheEnd(place)
        died = in_child(lambda disk=disk: reindex(work, disk=disk))
        in_child(lambda: look(work))
        shutil.rmtree(work)
        kills += bool(died)
        if not died:
            break
    print(json.dumps({"kills": kills}))


def test_killed_at_any_operation(fast_disk: Path) -> None:
    command = [sys.executable, "-m", "tests.durability.test_reindex_cut_short", str(fast_disk)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["kills"] > 8


def test_who_only_reads_is_told_where_the_index_is(fast_disk: Path, pacs_command: Callable[..., Any]) -> None:
    root = fast_disk / "archive"
    prepare(root)
    (root / layout.INDEX).rename(root / layout.OLD_INDEX)
    for command in ("info", "check"):
        done = pacs_command(command, "--archive", root)
        assert done.returncode != 0
        assert "lies in index.old and is put back" in done.stderr
        assert "run `pacs reindex`" not in done.stdout + done.stderr
    look(root)
    assert not (root / layout.OLD_INDEX).exists()
    assert pacs_command("info", "--archive", root).returncode == 0


if __name__ == "__main__":
    kill_everywhere(Path(sys.argv[1]))
