"""Arrays that no record names: listed, and moved to `set-aside/` where nothing speaks against it; never deleted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pacs.errors import ArchiveLockedError
from pacs.storage import layout
from pacs.storage.check import check
from pacs.storage.commit import Status
from pacs.storage.locks import ArchiveLock
from pacs.storage.recovery.reindex import reindex
from pacs.storage.recovery.stray_arrays import strays
from tests.durability.synthetic import FOUR, create, new_instance, opened
from tests.durability.test_backup import fast_disk
from tests.durability.test_cut_short import damaged_head, damaged_part, frames, known, lost, on_disk

__all__ = ["fast_disk"]
STORED = [new_instance("1.1", "1.2", "1.2.0", key=FOUR, chunks=5), new_instance("1.1", "1.3", "1.3.0")]
LEFT = {"studies/1.1/series/1.2/frames-1", "studies/3.1/series/3.2/frames-0"}
"""As a killed batch does that is told of nowhere: beside others, and in a series that never came to be."""


@pytest.fixture
def root(fast_disk: Path) -> Path:
    root = create(fast_disk / "archive")
    with opened(root) as archive:
        assert archive.commit(*STORED) == [Status.STORED] * 2
    made = root / "studies/1.1/series/1.2/frames-0"
    (root / "studies/3.1/series/3.2").mkdir(parents=True)
    (root / layout.log_path("3.1", "3.2")).touch()
    for path in LEFT:
        shutil.copytree(made, root / path)
        (root / path / layout.ZARR_JSON).unlink()
    return root


def test_they_are_listed_and_set_aside(root: Path, pacs_command: Callable[..., Any]) -> None:
    there = frames(root)
    listed = pacs_command("strays", "--archive", root)
    assert listed.returncode == 0
    assert {line.partition(":")[0] for line in listed.stdout.splitlines()[:-1]} == LEFT
    assert frames(root) == there
    moved = pacs_command("strays", "--archive", root, "--set-aside")
    assert moved.returncode == 0
    assert "2 arrays that no record names" in moved.stdout
    for path in LEFT:
        aside = root / "set-aside" / path.replace("/", "-")
        assert f"{path}: " in moved.stdout
        assert f"now in {aside.relative_to(root)}" in moved.stdout
        assert {f"{path}/{shard.name}": shard.read_bytes() for shard in aside.iterdir()} == {
            name: data for name, data in there.items() if name.startswith(path)
        }
    with opened(root) as archive:
        assert {finding.path for finding in check(root, archive.index)} == {"set-aside"}
    assert pacs_command("strays", "--archive", root).stdout.startswith("0 arrays")


@pytest.mark.parametrize("anew", [False, True])
def test_their_names_are_never_used_again(root: Path, anew: bool) -> None:
    """So that what was moved can be put back, should a record name it after all."""
    there = frames(root)
    moved = [stray.moved for stray in strays(root, move=True)]
    if anew:
        assert reindex(root).damaged == []
    with opened(root) as archive:
        for series in ("1.1", "1.2"), ("3.1", "3.2"):
            assert archive.commit(new_instance(*series, f"9.{series[1]}", key=FOUR, chunks=6)) == [Status.STORED]
        assert LEFT.isdisjoint(on_disk(root))
        assert on_disk(root) == known(archive)
        assert all(archive.holds(new) for new in STORED)
        assert archive.errors() == []
    for path in moved:
        (root / path).rename(root / path.removeprefix("set-aside/").replace("-", "/").replace("frames/", "frames-"))
    assert frames(root).items() >= there.items()


def of_a_shape(log: Path) -> None:
    shutil.copyfile(log.parent / "frames-0/zarr.json", log.parent / "frames-1/zarr.json")


def longer(log: Path) -> None:
    with log.open("ab") as file:
        file.write(b"PACSREC1" + os.urandom(30))


def set_aside(log: Path) -> None:
    aside = log.parents[4] / "set-aside"
    aside.mkdir()
    (aside / "studies-1.1-series-1.2-records.log-3").touch()


@pytest.mark.parametrize("fault", [of_a_shape, longer, set_aside, lost, damaged_head])
def test_what_may_be_more_stays(root: Path, fault: Callable[[Path], None], pacs_command: Callable[..., Any]) -> None:
    fault(root / layout.log_path("1.1", "1.2"))
    there = frames(root)
    found = pacs_command("strays", "--archive", root, "--set-aside")
    assert found.returncode == 1
    assert "studies/1.1/series/1.2/frames-1: " in found.stdout
    assert "stays" in found.stdout
    assert {path for path in frames(root) if "1.2" in path} == {path for path in there if "1.2" in path}


def test_frames_of_a_damaged_record_are_none(root: Path) -> None:
    """Its head says which array is its own, and `reindex` leaves it out."""
    damaged_part(root / layout.log_path("1.1", "1.2"))
    assert len(reindex(root).damaged) == 1
    strays(root, move=True)
    assert (root / "studies/1.1/series/1.2/frames-0").is_dir()


def test_refused_while_somebody_has_it_open(root: Path) -> None:
    there = on_disk(root)
    with closing(ArchiveLock(root)), pytest.raises(ArchiveLockedError):
        strays(root, move=True)
    assert on_disk(root) == there
