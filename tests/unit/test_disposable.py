"""Files that may vanish or rot: what is read back is right or not there, and all together never too much."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacs.storage.disposable import DisposableFiles

MB = 1 << 20
LIMIT = 120
"""Seconds: of waits that end at once when all is well."""


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.parent != directory)


@pytest.fixture
def kept(tmp_path: Path) -> DisposableFiles:
    return DisposableFiles(str(tmp_path / "kept"), 4 * MB)


def test_a_value_comes_back_in_another_process_too(tmp_path: Path, kept: DisposableFiles) -> None:
    assert kept.get(b"group", "name") is None
    assert kept.put(b"group", "name", memoryview(b"value"))
    assert kept.put(b"group", "empty", b"")
    other = DisposableFiles(str(tmp_path / "kept"), 4 * MB)
    assert other.get(b"group", "name") == b"value"
    assert other.get(b"group", "empty") == b""
    assert other.get(b"group", "Name") is None and other.get(b"grou", "pname") is None
    assert kept.put(b"group", "name", b"newer") and other.get(b"group", "name") == b"newer"


def test_keys_that_run_together_are_told_apart(kept: DisposableFiles) -> None:
    keys = [(b"ab", "c"), (b"a", "bc"), (b"abc", ""), (b"", "abc")]
    for group, name in keys:
        kept.put(group, name, group + b"|" + name.encode())
    assert [kept.get(group, name) for group, name in keys] == [g + b"|" + n.encode() for g, n in keys]


def damages(content: bytes) -> Iterator[bytes]:
    for at in range(0, len(content), 3):
        yield content[:at]  # cut off by a crash
        yield content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]
        yield content[:at] + bytes(len(content) - at)  # a hole: the size was on disk, the data was not
    yield content + b"x"
    yield bytes(len(content))
    yield b""


def test_damage_is_absence(tmp_path: Path, kept: DisposableFiles) -> None:
    value = random.Random(1).randbytes(100)
    kept.put(b"group", "name", value)
    [path] = files(tmp_path / "kept")
    content = path.read_bytes()
    tried = 0
    for damaged in damages(content):
        if damaged == content:
            continue
        path.write_bytes(damaged)
        assert kept.get(b"group", "name") is None
        assert not path.exists()  # and does not take room any longer
        tried += 1
    assert tried > 100
    assert kept.put(b"group", "name", value) and kept.get(b"group", "name") == value


def test_a_file_under_the_wrong_name_is_not_believed(tmp_path: Path, kept: DisposableFiles) -> None:
    kept.put(b"one", "frame", b"of one patient")
    [first] = files(tmp_path / "kept")
    kept.put(b"two", "frame", b"of another")
    [second] = [path for path in files(tmp_path / "kept") if path != first]
    second.write_bytes(first.read_bytes())
    assert kept.get(b"two", "frame") is None


def test_what_was_used_longest_ago_goes(tmp_path: Path, kept: DisposableFiles) -> None:
    for number in range(60):
        kept.put(b"group", str(number), bytes(100_000))
        for path in files(tmp_path / "kept"):  # the clock of the file system is coarse
            os.utime(path, ns=(path.stat().st_mtime_ns - 10**9,) * 2)
        assert kept.get(b"group", "0") is not None
        assert kept.size() <= 4 * MB
    there = [number for number in range(60) if kept.get(b"group", str(number)) is not None]
    assert there[0] == 0 and there[1:] == list(range(60 - len(there) + 1, 60))
    assert len(there) >= 30


def test_what_is_too_long_is_not_kept(tmp_path: Path, kept: DisposableFiles) -> None:
    assert not kept.put(b"group", "long", bytes(MB + 1))
    assert not DisposableFiles(str(tmp_path / "none"), 0).put(b"group", "name", b"value")
    assert not (tmp_path / "none").exists()


def test_it_may_be_deleted_at_any_time(tmp_path: Path, kept: DisposableFiles) -> None:
    stop = threading.Event()
    wrong: list[bytes] = []

    def work(seed: int) -> None:
        numbers = random.Random(seed)
        while not stop.is_set():
            name = str(numbers.randrange(50))
            kept.put(b"group", name, name.encode() * 1000)
            found = kept.get(b"group", str(numbers.randrange(50)))
            if found is not None and found != found[: len(found) // 1000] * 1000:
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        shutil.rmtree(tmp_path / "kept", ignore_errors=True)
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert kept.put(b"group", "name", b"value") and kept.get(b"group", "name") == b"value"


def fill(directory: str, seed: int, most: int) -> None:
    kept = DisposableFiles(directory, 2 * MB)
    numbers = random.Random(seed)
    for number in range(most):
        kept.put(b"%d" % seed, str(number), bytes(numbers.randrange(200_000)))


def test_the_bound_holds_for_all_processes_together(tmp_path: Path) -> None:
    directory = str(tmp_path / "kept")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fill, args=(directory, seed, 120), daemon=True) for seed in range(2)]
    for process in processes:
        process.start()
    kept = DisposableFiles(directory, 2 * MB)
    largest = 0
    counter = tmp_path / "kept" / "size"
    while any(process.is_alive() for process in processes):
        if not counter.exists():
            continue
        # Between two writes: a look that takes longer sees what was dropped and what came instead.
        with counter.open("rb") as locked:
            fcntl.flock(locked, fcntl.LOCK_EX)
            largest = max(largest, kept.size())
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert 0 < kept.size() <= 2 * MB
    assert largest <= 2 * MB


def test_what_a_crash_left_goes_in_time(tmp_path: Path, kept: DisposableFiles) -> None:
    kept.put(b"group", "name", b"value")
    left = tmp_path / "kept" / "new"
    left.write_bytes(bytes(3 * MB))
    (tmp_path / "kept" / "size").write_bytes(b"\xff" * 8)  # counted by one who never finished
    kept.put(b"group", "other", b"value")
    assert not left.exists()
    assert kept.get(b"group", "name") == b"value"
    (tmp_path / "kept" / "size").write_bytes(b"torn")
    assert kept.put(b"group", "third", b"value")
    assert kept.get(b"group", "third") == b"value"
    assert int.from_bytes((tmp_path / "kept" / "size").read_bytes(), "little") == kept.size()


def test_a_group_is_forgotten_whole(kept: DisposableFiles) -> None:
    for number in range(5):
        kept.put(b"one", str(number), b"value")
        kept.put(b"two", str(number), b"value")
    kept.forget(b"one")
    assert [kept.get(b"one", str(number)) for number in range(5)] == [None] * 5
    assert [kept.get(b"two", str(number)) for number in range(5)] == [b"value"] * 5
    kept.forget(b"never there")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir(mode=0o500)
    kept = DisposableFiles(str(tmp_path / "kept"), MB)
    assert not kept.put(b"group", "name", b"value")


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("not a directory")
    kept = DisposableFiles(str(tmp_path / "kept"), MB)
    assert not kept.put(b"group", "name", b"value")
    assert kept.get(b"group", "name") is None
    assert kept.size() == 0


def make_alone(directory: str, began: Any, made: Any) -> None:
    kept = DisposableFiles(directory, 4 * MB)
    began.wait()
    with kept.alone(b"group", "name"):
        if kept.get(b"group", "name") is None:
            made.put(os.getpid())
            kept.put(b"group", "name", b"value")


def test_processes_share_one_making(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        began, made = context.Barrier(4), context.Queue()
        several = [
            context.Process(target=make_alone, args=(str(tmp_path / str(attempt)), began, made), daemon=True)
            for _ in range(4)
        ]
        for process in several:
            process.start()
        for process in several:
            process.join(LIMIT)
            assert process.exitcode == 0
        assert made.get(timeout=LIMIT) and made.empty()


def test_another_key_waits_for_nobody_and_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    kept, entered = DisposableFiles(str(tmp_path / "kept"), 4 * MB), threading.Event()
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold() -> None:
        with kept.alone(b"group", "name"):
            held.set()
            time.sleep(3 * LIMIT)

    def enter() -> None:
        with kept.alone(b"group", "name"):
            entered.set()

    holder = context.Process(target=hold, daemon=True)
    waiting = threading.Thread(target=enter)
    holder.start()
    try:
        assert held.wait(LIMIT)
        with kept.alone(b"group", "other"):
            pass
        waiting.start()
        assert not entered.wait(0.2)
    finally:
        holder.kill()
        holder.join()
    assert entered.wait(LIMIT)
    waiting.join()


def test_threads_share_one_making_too(kept: DisposableFiles) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def enter() -> None:
        nonlocal inside, most
        with kept.alone(b"group", "name"):
            with lock:
                inside, most = inside + 1, max(most, inside + 1)
            time.sleep(0.01)
            with lock:
                inside -= 1

    several = [threading.Thread(target=enter) for _ in range(4)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    assert most == 1


def test_nothing_waits_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("in the way")
    with DisposableFiles(str(tmp_path / "kept"), 4 * MB).alone(b"", ""), DisposableFiles("", 0).alone(b"", ""):
        pass
