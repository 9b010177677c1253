"""The disk below a folder: sequential and random reads, writes, and above all how long a sync takes."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pacs.bench import machine
from pacs.bench.model import Disk, Latency, latency

_PIECE = 1 << 20
_PAGE = 4096
_FRAME = 180 << 10
"""Bytes of an encoded CT slice."""
_READERS = 8
_COLD_ENOUGH = 0.05
"""Share of pages that may still be cached after the cache was told to forget them."""

Step = Callable[[str], None]
"""Is told what is measured next."""


def measure(folder: Path, size: int, seconds: float, step: Step) -> Disk:
    """Everything about the file system of `folder`, with a file of `size` bytes that is gone afterwards."""
    free = os.statvfs(folder)
    disk = Disk(
        file_system=machine.file_system(folder),
        free_bytes=free.f_bavail * free.f_frsize,
        file_bytes=max(1, size // _PIECE) * _PIECE,
    )
    path = folder / "disk"
    try:
        step("disk: sequential write")
        disk.write = _write(path, disk.file_bytes)
        step("disk: sequential read")
        _read(path, disk, seconds, step)
        step("disk: syncs")
        disk.syncs = {
            "fdatasync of 4 kB written in place": _sync_in_place(path, seconds / 2),
            "fdatasync of 180 kB appended": _sync_appended(folder / "log", seconds / 2, disk.file_bytes),
            "fsync of a new file and its folder": _sync_new(folder, seconds / 2),
        }
    finally:
        path.unlink(missing_ok=True)
    return disk


def _write(path: Path, size: int) -> float:
    """Bytes a second to the end of the sync. The bytes are random: some disks compress."""
    piece = random.Random(1).randbytes(_PIECE)
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(size // _PIECE):
            file.write(piece)
        os.fdatasync(file.fileno())
    return size / (time.perf_counter() - began)


def _read(path: Path, disk: Disk, seconds: float, step: Step) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        disk.cold = _forget(descriptor, disk.file_bytes)
        if not disk.cold:
            disk.read_cold = _read_through(descriptor, disk.file_bytes)
        else:
            _read_through(descriptor, disk.file_bytes)
        disk.read_warm = _read_through(descriptor, disk.file_bytes)
        step("disk: random reads")
        for name, size in (("4 kB", _PAGE), ("180 kB", _FRAME)):
            if size > disk.file_bytes // 8:
                continue
            for state in ("cold", "warm"):
                if state == "cold" and disk.cold:
                    continue
                _random(descriptor, disk, name, size, state, seconds / 4)
    finally:
        os.close(descriptor)


def _random(descriptor: int, disk: Disk, name: str, size: int, state: str, seconds: float) -> None:
    """One thread for the latency, several for the rate; cold pages are read once each, and forgotten between."""
    if state == "cold":
        _forget(descriptor, disk.file_bytes)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    places = list(range(0, disk.file_bytes - size + 1, size))
    random.Random(size).shuffle(places)
    if state == "warm":
        _read_through(descriptor, disk.file_bytes)
    half = len(places) // 2 or 1
    disk.random[f"{name}, {state}"] = latency(_timed_reads(descriptor, places[:half], size, seconds), curve=True)
    shares = [places[half + number :: _READERS] for number in range(_READERS)]
    began = time.perf_counter()
    with ThreadPoolExecutor(_READERS) as threads:
        done = sum(threads.map(lambda share: len(_timed_reads(descriptor, share, size, seconds)), shares))
    disk.random_rate[f"{name}, {state}, {_READERS} threads"] = done / (time.perf_counter() - began)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NORMAL)


def _timed_reads(descriptor: int, places: list[int], size: int, seconds: float) -> list[float]:
    taken: list[float] = []
    end = time.perf_counter() + seconds
    for place in places:
        began = time.perf_counter()
        if taken and began > end:
            break
        os.pread(descriptor, size, place)
        taken.append(time.perf_counter() - began)
    return taken


def _read_through(descriptor: int, size: int) -> float:
    began = time.perf_counter()
    buffer = bytearray(_PIECE)
    for place in range(0, size, _PIECE):
        os.preadv(descriptor, [buffer], place)
    return size / (time.perf_counter() - began)


def _forget(descriptor: int, size: int) -> str:
    """Have the kernel forget the file's pages; why it did not, "" when it did."""
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    cached = 0
    places = range(0, size, max(_PAGE, size // 200 // _PAGE * _PAGE))
    for place in places:
        try:
            cached += os.preadv(descriptor, [bytearray(1)], place, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return "this file system does not tell what is cached"
            raise
    if cached > _COLD_ENOUGH * len(places):
        return f"the file system keeps {cached / len(places):.0%} of the pages that it was told to forget"
    return ""


def _sync_in_place(path: Path, seconds: float) -> Latency:
    taken: list[float] = []
    draw = random.Random(2)
    pages = path.stat().st_size // _PAGE
    with path.open("r+b", buffering=0) as file:
        end = time.perf_counter() + seconds
        while not taken or time.perf_counter() < end:
            began = time.perf_counter()
            os.pwrite(file.fileno(), draw.randbytes(_PAGE), draw.randrange(pages) * _PAGE)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return latency(taken, curve=True)


def _sync_appended(path: Path, seconds: float, most: int) -> Latency:
    """What a shard of frames sees. Never more than `most` bytes."""
    taken: list[float] = []
    data = random.Random(3).randbytes(_FRAME)
    try:
        with path.open("wb", buffering=0) as file:
            end = time.perf_counter() + seconds
            while not taken or (time.perf_counter() < end and (len(taken) + 1) * _FRAME <= most):
                began = time.perf_counter()
                file.write(data)
                os.fdatasync(file.fileno())
                taken.append(time.perf_counter() - began)
    finally:
        path.unlink(missing_ok=True)
    return latency(taken, curve=True)


def _sync_new(folder: Path, seconds: float) -> Latency:
    taken: list[float] = []
    data = random.Random(4).randbytes(64 << 10)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.perf_counter() + seconds
        while not taken or time.perf_counter() < end:
            path = folder / f"new-{len(taken)}"
            began = time.perf_counter()
            with path.open("wb", buffering=0) as file:
                file.write(data)
                os.fsync(file.fileno())
            os.fsync(directory)
            taken.append(time.perf_counter() - began)
            path.unlink()
    finally:
        os.close(directory)
    return latency(taken, curve=True)
