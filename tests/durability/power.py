"""A disk that can lose power: what was recorded of a run is replayed with any subset of what was not synced.

The model knows less than real file systems do, so it allows more: every unsynced write may be lost whole or in
sectors, every unsynced directory entry may be lost, in any combination. A sync of a file makes its bytes durable, of
a directory its entries, of the file system everything. A rename is atomic. An LMDB commit is atomic and durable: a
copy of the environment is kept after each.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pacs.storage.disk import Operation

SECTOR = 512


@dataclass(eq=False)
class File:
    durable: bytes = b""
    pending: list[tuple[str, int, bytes]] = field(default_factory=list)
    """(write or truncate, offset or length, data)"""


@dataclass(eq=False)
class Directory:
    durable: dict[str, File | Directory] = field(default_factory=dict)
    live: dict[str, File | Directory] = field(default_factory=dict)


@dataclass(eq=False)
class Change:
    """Directory entries that change together. None: the entry goes."""

    entries: list[tuple[Directory, str, File | Directory | None]]


class PowerLoss:
    """The state of a disk while recorded operations are replayed."""

    def __init__(self, start: Path, root: Path) -> None:
        """`start` holds what was there, all of it durable, when the recording of `root` began."""
        self._prefix = f"{root}/"
        self._top = _load(start)
        self._changes: list[Change] = []

    def _find(self, path: str) -> tuple[Directory, str]:
        assert path.startswith(self._prefix), path
        *parents, name = path.removeprefix(self._prefix).split("/")
        directory = self._top
        for parent in parents:
            found = directory.live[parent]
            assert isinstance(found, Directory)
            directory = found
        return directory, name

    def _node(self, path: str) -> File | Directory:
        if path + "/" == self._prefix:
            return self._top
        directory, name = self._find(path)
        return directory.live[name]

    def _change(self, *entries: tuple[Directory, str, File | Directory | None]) -> None:
        for directory, name, node in entries:
            if node is None:
                del directory.live[name]
            else:
                directory.live[name] = node
        self._changes.append(Change(list(entries)))

    def replay(self, operation: Operation) -> None:
        name, path = operation.name, operation.path
        if name in ("create", "mkdir"):
            directory, entry = self._find(path)
            node = directory.live.get(entry)
            if name == "create" and isinstance(node, File):
                node.pending.append(("truncate", 0, b""))
            else:
                self._change((directory, entry, File() if name == "create" else Directory()))
        elif name in ("unlink", "rmdir"):
            self._change((*self._find(path), None))
        elif name == "rename":
            source, old = self._find(path)
            target, new = self._find(operation.target)
            self._change((target, new, source.live[old]), (source, old, None))
        elif name in ("write", "truncate"):
            file = self._node(path)
            assert isinstance(file, File)
            file.pending.append((name, operation.offset, operation.data))
        elif name == "sync":
            self._sync(self._node(path))
        elif name == "syncfs":
            self._sync_all(self._top)
            self._changes.clear()

    def _sync(self, node: File | Directory) -> None:
        if isinstance(node, File):
            for each in node.pending:
                node.durable = _apply(node.durable, each)
            node.pending.clear()
            return
        node.durable = dict(node.live)
        for change in self._changes:
            change.entries = [entry for entry in change.entries if entry[0] is not node]

    def _sync_all(self, node: File | Directory) -> None:
        self._sync(node)
        if isinstance(node, Directory):
            for child in node.live.values():
                self._sync_all(child)

    def materialise(self, target: Path, noise: random.Random) -> None:
        """What a machine finds after power came back: one of the many possibilities."""
        kept = noise.choice([0.0, 0.2, 0.5, 0.8, 1.0])
        entries: dict[Directory, dict[str, File | Directory]] = {}
        in_order = noise.random() < 0.5
        for change in self._changes:
            if noise.random() >= kept:
                if in_order:
                    break
                continue
            for directory, name, node in change.entries:
                names = entries.setdefault(directory, dict(directory.durable))
                if node is None:
                    names.pop(name, None)
                else:
                    names[name] = node
        self._write(self._top, target, entries, lambda: noise.random() < kept, noise)

    def _write(
        self, directory: Directory, target: Path, entries: dict[Directory, dict[str, File | Directory]],
        keep: Callable[[], bool], noise: random.Random,
    ) -> None:  # fmt: skip
        target.mkdir(exist_ok=True)
        for name, node in entries.get(directory, directory.durable).items():
            if isinstance(node, Directory):
                self._write(node, target / name, entries, keep, noise)
                continue
            content = node.durable
            for each in node.pending:
                if keep():
                    content = _apply(content, each)
                elif each[0] == "write" and noise.random() < 0.5:
                    content = _torn(content, each, noise)
            (target / name).write_bytes(content)


def _apply(content: bytes, change: tuple[str, int, bytes]) -> bytes:
    kind, offset, data = change
    if kind == "truncate":
        return content[:offset].ljust(offset, b"\0")
    return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]


def _torn(content: bytes, change: tuple[str, int, bytes], noise: random.Random) -> bytes:
    """Some sectors of a write. Its length may have become durable with zeros, or not at all."""
    _, offset, data = change
    if noise.random() < 0.3:
        content = content.ljust(offset + len(data), b"\0")
    start = 0
    while start < len(data):
        end = min(len(data), start + SECTOR - (offset + start) % SECTOR)
        if noise.random() < 0.5:
            content = _apply(content, ("write", offset + start, data[start:end]))
        start = end
    return content


def _load(path: Path) -> Directory:
    """A directory as it is, all of it durable; the index is kept apart."""
    directory = Directory()
    for child in path.iterdir():
        if child.name != "index":
            directory.live[child.name] = _load(child) if child.is_dir() else File(child.read_bytes())
    directory.durable = dict(directory.live)
    return directory


def copy_index(root: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    shutil.copyfile(root / "index" / "data.mdb", target / "data.mdb")
    return target
