"""A running server whose disk fills, whose index is deleted, restored or shared: told clearly, and nothing lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.durability.clients import Load, assert_sound, refusal, refused, stored_files, upload, wait_for


def test_an_index_deleted_under_a_running_server(
    tmp_path: Path, ct_slices: Callable[..., list[bytes]], start_server: Callable[..., Any],
    pacs_command: Callable[..., Any],
) -> None:  # fmt: skip
    """What is stored can be read on, nothing more is taken, and `reindex` brings all of it back."""
    files = ct_slices(6)
    server = start_server(tmp_path / "archive", workers=2)
    assert all(upload(server.address, data) for data in files[:4])
    shutil.rmtree(tmp_path / "archive" / "index")
    for data in files[4:]:
        assert "deleted or replaced" in refusal(server.address, data)
    assert stored_files(server, files[0]) == files[0]
    assert server.logged("was deleted or replaced"), server.log
    server.stop()
    with pytest.raises(RuntimeError, match="pacs reindex"):
        start_server(tmp_path / "archive")
    assert pacs_command("reindex", "--archive", tmp_path / "archive").returncode == 0
    again = start_server(tmp_path / "archive")
    for data in files[:4]:
        assert stored_files(again, data) == data
    for data in files[4:]:
        assert stored_files(again, data) is None
        assert upload(again.address, data)
    again.stop()
    assert pacs_command("check", "--archive", tmp_path / "archive").returncode == 0


def test_yesterdays_index_put_back(
    tmp_path: Path, ct_slices: Callable[..., list[bytes]], start_server: Callable[..., Any],
    pacs_command: Callable[..., Any],
) -> None:  # fmt: skip
    files = ct_slices(6)
    archive = tmp_path / "archive"
    server = start_server(archive, workers=1)
    assert upload(server.address, files[0])
    server.stop()
    shutil.copytree(archive / "index", tmp_path / "yesterday")
    server = start_server(archive, workers=1)
    assert all(upload(server.address, data) for data in files[1:])
    server.stop()
    shutil.rmtree(archive / "index")
    shutil.copytree(tmp_path / "yesterday", archive / "index")
    with pytest.raises(RuntimeError, match="pacs reindex"):
        start_server(archive)
    assert pacs_command("reindex", "--archive", archive).returncode == 0
    again = start_server(archive)
    for data in files:
        assert stored_files(again, data) == data


def test_two_servers_on_one_archive(
    tmp_path: Path, ct_slices: Callable[..., list[bytes]], start_server: Callable[..., Any],
    pacs_command: Callable[..., Any],
) -> None:  # fmt: skip
    """They share it: each sees what the other stores, in the same series too."""
    files = ct_slices(24)
    first = start_server(tmp_path / "archive", workers=1)
    second = start_server(tmp_path / "archive", workers=1)
    loads = [
        Load(first.address, files[::2], until_all=True),
        Load(second.address, files[1::2], until_all=True),
    ]
    for load in loads:
        load.join()
        assert not load.failures
    for data in files:
        assert stored_files(first, data) == data
        assert stored_files(second, data) == data
    second.stop()
    assert_sound(first, loads[0], files, pacs_command)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_index_whose_meta_page_cannot_be_written(
    workers: int, tmp_path: Path, ct_slices: Callable[..., list[bytes]], start_server: Callable[..., Any],
    pacs_command: Callable[..., Any],
) -> None:  # fmt: skip
    """LMDB does nothing more in a process that met it, no reading either: another takes its place, and goes on."""
    files = ct_slices(8)
    met = {
        "PYTHONPATH": str(Path(__file__).parent / "crash"), "CRASH_STEP": "index-written", "CRASH_COUNT": "2",
        "CRASH_ONCE": str(tmp_path / "met"), "CRASH_HOW": "meta page",
    }  # fmt: skip
    server = start_server(tmp_path / "archive", workers=workers, env=met)
    before = set(server.workers)
    acknowledged = []
    for data in files:
        if not refused(server.address, data):
            acknowledged.append(data)
        for stored in acknowledged:
            wait_for(lambda stored=stored: stored_files(server, stored) == stored)
    assert len(acknowledged) < len(files)
    wait_for(lambda: len(server.workers) == workers and set(server.workers) != before)
    assert server.logged("another is started")
    assert not any(refused(server.address, data) for data in files)
    assert all(stored_files(server, data) == data for data in files)
    server.stop()
    assert server.log.count("CRITICAL") == 1, server.log
    assert pacs_command("check", "--archive", tmp_path / "archive").returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system of a known size can be mounted by root only")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk(
    small_disk: Path, ct_slices: Callable[..., list[bytes]], start_server: Callable[..., Any],
    pacs_command: Callable[..., Any],
) -> None:  # fmt: skip
    """Uploads are refused when nothing fits, reading goes on, and storing too once there is space again."""
    ballast = small_disk / "ballast"
    server = start_server(small_disk / "archive", workers=2)
    early = ct_slices(6)
    assert all(upload(server.address, data) for data in early)
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    late = ct_slices(40, rows=128)
    kept = [data for data in late if upload(server.address, data)]
    assert len(kept) < len(late)
    for data in (*early, *kept):
        assert stored_files(server, data) == data
    ballast.unlink()
    load = Load(server.address, late, until_all=True)
    load.join()
    assert not load.failures
    assert_sound(server, load, [*early, *late], pacs_command)
