"""A file system without space, of all of the archive's files and of LMDB's too. Needs the right to mount."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pacs.errors import StorageError
from pacs.storage.commit import Status
from pacs.storage.model import NewInstance
from pacs.storage.recovery.reindex import reindex
from tests.durability.synthetic import create, new_instance, opened
from tests.objects import images

LEFT = 200_000
"""Bytes that are free when the writing begins."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)  # a test that failed may have files open


def fill(disk: Path, left: int = LEFT) -> Path:
    """Take all the space but a little."""
    filler = disk / "filler"
    found = os.statvfs(disk)
    filler.write_bytes(bytes(max(0, found.f_bavail * found.f_frsize - left)))
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


@pytest.mark.parametrize("command", ["import", "serve"])
def test_a_new_archive_on_a_full_disk(small_disk: Path, pacs_command: Callable[..., Any], command: str) -> None:
    """Whatever it is that finds no room: `last-commit`, groups, LMDB's table of readers, which it maps, its pages."""
    file = small_disk / "file.dcm"
    file.write_bytes(images.long_multi_frame(2).file)
    words = (file,) if command == "import" else ("--port", "0", "--workers", "1")
    root = small_disk / "archive"
    for pages in (0, 20, 36) if command == "import" else (36,):
        filler = fill(small_disk, pages << 12)
        done = pacs_command(command, "--archive", root, *words)
        assert done.returncode == 1
        assert re.fullmatch(rf"pacs {command}: .*{root}.*: No space left on device \[STO-01\]\n", done.stderr), pages
        filler.unlink()
        shutil.rmtree(root)
