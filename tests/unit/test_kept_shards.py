"""Shards that stay open: what a descriptor reads is never believed against its checksum, and files may change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pacs.errors import ChecksumError
from pacs.storage.checksum import crc32c
from pacs.storage.files import kept_shards
from pacs.storage.files.kept_shards import KeptShards
from pacs.storage.files.stretch import MAPPED_FROM
from pacs.storage.model import ChunkLocation

ONE, OTHER = np.random.default_rng(5).bytes(9000), np.random.default_rng(6).bytes(9000)


def place(data: bytes, path: str = "shard") -> ChunkLocation:
    return ChunkLocation(path, 100, len(data), crc32c(data), ())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "shard", ONE)
    with (tmp_path / "shard").open("rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError as error:
            pytest.skip(f"the file system of the tests cannot tell what is in memory: {error.strerror}")
    return tmp_path


@pytest.fixture
def kept(root: Path) -> Iterator[KeptShards]:
    kept = KeptShards(root)
    yield kept
    kept.let_go()
    assert held(root) == []


def write(path: Path, data: bytes) -> None:
    path.write_bytes(bytes(100) + data + b"behind")


def replace(path: Path, data: bytes) -> None:
    write(path.with_suffix(".new"), data)
    path.with_suffix(".new").rename(path)


def held(root: Path) -> list[str]:
    """Names of the files below `root` that this process has open."""
    links = []
    for name in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(name.readlink()))
        except FileNotFoundError:
            continue
    return sorted(link.removeprefix(f"{root}/") for link in links if link.startswith(f"{root}/"))


def test_a_shard_stays_open_until_it_is_let_go(root: Path, kept: KeptShards) -> None:
    for _ in range(3):
        assert kept.read(place(ONE)) == ONE
        assert held(root) == ["shard"]
    kept.let_go()
    assert held(root) == []
    assert kept.read(place(ONE)) == ONE


def test_a_shard_in_the_place_of_another_is_read_at_once(root: Path, kept: KeptShards) -> None:
    assert kept.read(place(ONE)) == ONE
    replace(root / "shard", OTHER)
    assert kept.read(place(OTHER)) == OTHER
    with pytest.raises(ChecksumError, match="shard: the frame at byte 100"):
        kept.read(place(ONE))


def test_a_longer_shard_in_the_place_of_another(root: Path, kept: KeptShards) -> None:
    assert kept.read(place(ONE)) == ONE
    replace(root / "shard", OTHER * 3)
    assert kept.read(place(OTHER * 3)) == OTHER * 3


def test_a_damaged_shard_in_the_place_of_another_is_noticed_when_it_is_let_go(root: Path, kept: KeptShards) -> None:
    assert kept.read(place(ONE)) == ONE
    replace(root / "shard", ONE[:-1] + b"?")
    assert kept.read(place(ONE)) == ONE
    kept.let_go()
    with pytest.raises(ChecksumError):
        kept.read(place(ONE))


@pytest.mark.parametrize("opened_before", [True, False])
def test_damage_in_the_file_itself(root: Path, kept: KeptShards, opened_before: bool) -> None:
    if opened_before:
        assert kept.read(place(ONE)) == ONE
    with (root / "shard").open("r+b") as file:
        file.seek(100 + 17)
        file.write(bytes([ONE[17] ^ 1]))
    for _ in range(2):
        with pytest.raises(ChecksumError):
            kept.read(place(ONE))
    with (root / "shard").open("r+b") as file:
        file.seek(100 + 17)
        file.write(ONE[17:18])
    assert kept.read(place(ONE)) == ONE


def test_a_file_that_ends_early_or_is_gone_is_left_to_others(root: Path, kept: KeptShards) -> None:
    assert kept.read(place(ONE)) == ONE
    os.truncate(root / "shard", 5000)
    assert kept.read(place(ONE)) is None
    replace(root / "shard", ONE)
    assert kept.read(place(ONE)) == ONE
    (root / "shard").unlink()
    kept.let_go()
    assert kept.read(place(ONE)) is None
    assert held(root) == []


def test_what_is_long_is_left_to_others(root: Path, kept: KeptShards) -> None:
    write(root / "shard", bytes(MAPPED_FROM))
    assert kept.read(place(bytes(MAPPED_FROM))) is None
    assert held(root) == []


def test_no_more_than_so_many_stay_open(root: Path, kept: KeptShards) -> None:
    names = [f"shard {number:03d}" for number in range(kept_shards._MOST + 10)]
    for name in names:
        write(root / name, name.encode() * 100)
        assert kept.read(place(name.encode() * 100, name)) == name.encode() * 100
    assert held(root) == names[10:]
    for name in names:
        assert kept.read(place(name.encode() * 100, name)) == name.encode() * 100
