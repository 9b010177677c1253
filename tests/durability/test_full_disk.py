"""A file system without space, of all of the archive's files and of LMDB's too. Needs the right to mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.errors import StorageError
from pacs.storage.commit import Status
from pacs.storage.model import NewInstance
from pacs.storage.recovery.reindex import reindex
from tests.durability.synthetic import create, new_instance, opened

LEFT = 200_000
"""Bytes that are free when the writing begins."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)  # a test that failed may have files open


def fill(disk: Path) -> Path:
    """Take all the space but a little."""
    filler = disk / "filler"
    found = os.statvfs(disk)
    filler.write_bytes(bytes(max(0, found.f_bavail * found.f_frsize - LEFT)))
    return filler


@pytest.mark.parametrize("chunk_length", [5000, 30])
def test_a_full_disk_refuses_and_goes_on_when_there_is_space(small_disk: Path, chunk_length: int) -> None:
    """Long chunks fill the shards first, short ones the index."""
    root = create(small_disk / "archive")
    stored: list[NewInstance] = []
    with opened(root) as archive:
        for turn in range(3):
            filler = fill(small_disk)
            failed = 0
            for n in range(60):
                batch = [
                    new_instance("1.1", f"1.{n % 7}", f"2.{turn}.{n}.{i}", chunk_length=chunk_length) for i in range(3)
                ]
                for new, outcome in zip(batch, archive.outcomes(*batch), strict=True):
                    if outcome.status is Status.STORED:
                        stored.append(new)
                    else:
                        failed += 1
                        assert isinstance(outcome.error, StorageError)
            assert failed
            assert archive.errors() == []
            assert all(archive.holds(new) for new in stored), "reading goes on"
            filler.unlink()
            after = new_instance("1.1", "1.2", f"9.{turn}")
            assert archive.commit(after) == [Status.STORED]
            stored.append(after)
            archive.committer.settle()
            assert archive.errors() == []
    with opened(root) as archive:
        assert archive.uids() == {new.descriptor.instance for new in stored}
        assert all(archive.holds(new) for new in stored)
    assert reindex(root).damaged == []
