"""`pacs reindex` names what the index before knew and the logs have no more, and no damage of that index stops it."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from pacs.storage import layout
from pacs.storage.recovery.reindex import reindex
from tests.durability.synthetic import create, new_instance, opened
from tests.durability.test_backup import fast_disk

__all__ = ["fast_disk"]


@pytest.fixture
def root(fast_disk: Path) -> Path:
    """Series without arrays: nothing but their logs tells of them."""
    with opened(create(fast_disk / "archive")) as archive:
        for number in range(1, 7):
            series = f"1.{2 + number % 2}"
            archive.commit(new_instance("1.1", series, f"{series}.{number}", key=None))
        archive.commit(new_instance("2.1", "2.2", "2.2.1", key=None))
    return fast_disk / "archive"


@pytest.mark.parametrize("index", [layout.INDEX, layout.OLD_INDEX])
def test_a_log_that_was_deleted(root: Path, index: str) -> None:
    """Also when a reindex was killed while the index before lay elsewhere."""
    path = layout.log_path("2.1", "2.2")
    (root / path).unlink()
    (root / layout.INDEX).rename(root / index)
    found = reindex(root)
    assert found.damaged == [f"{path}: the index before knew 1 of this series, its log has 0"]
    assert found.instances == 6
    assert reindex(root).damaged == [], "it is told once: then no index knows of it"
    with opened(root) as archive:
        assert archive.errors() == []


def test_a_study_that_was_deleted(root: Path) -> None:
    shutil.rmtree(root / layout.study_path("1.1"))
    assert len(reindex(root).damaged) == 2


def test_a_log_that_was_cut_between_two_records(root: Path) -> None:
    with opened(root) as archive, archive.index.read() as view:
        entry = view.instance("1.3.5")
        assert entry is not None
    path = layout.log_path("1.1", "1.3")
    os.truncate(root / path, entry.record_offset)
    assert reindex(root).damaged == [f"{path}: the index before knew 3 of this series, its log has 2"]


def test_damage_is_told_once(root: Path) -> None:
    path = layout.log_path("2.1", "2.2")
    with (root / path).open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 8)
    assert not any("the index before" in text for text in reindex(root).damaged)


def test_the_index_of_another_archive_tells_nothing(root: Path, fast_disk: Path) -> None:
    with opened(create(fast_disk / "other")) as archive:
        archive.commit(new_instance("8.1", "8.2", "8.2.1"))
    shutil.rmtree(root / "index")
    shutil.copytree(fast_disk / "other" / "index", root / "index")
    assert reindex(root).damaged == []


@pytest.mark.parametrize("seed", range(8))
def test_an_index_of_damaged_pages(root: Path, seed: int) -> None:
    noise = random.Random(seed)
    data = root / "index" / "data.mdb"
    content = bytearray(data.read_bytes())
    if seed % 2:
        content[noise.randrange(8192, len(content)) :] = b""
    for start in range(8192, len(content), 4096):
        if noise.random() < 0.5:
            content[start : start + 64] = noise.randbytes(64)
    data.write_bytes(content)
    found = reindex(root)
    assert (found.instances, found.damaged) == (7, [])
    with opened(root) as archive:
        assert archive.errors() == []


@pytest.mark.parametrize("uid", [b"2\xff1", b"2/1", b"2\x001"])
def test_a_uid_that_is_damaged(root: Path, uid: bytes) -> None:
    """No other series is looked up, and what cannot be decoded ends no reindex."""
    data = root / "index" / "data.mdb"
    content, entry = data.read_bytes(), b"\xa3%s\xa32.2"
    assert content.count(entry % b"2.1") >= 1
    data.write_bytes(content.replace(entry % b"2.1", entry % uid))
    found = reindex(root)
    assert (found.instances, found.damaged) == (7, [])
