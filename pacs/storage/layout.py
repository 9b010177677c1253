"""Where everything lies below the archive's directory, and the archive's own description."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec

from pacs.errors import FormatVersionError, StorageError
from pacs.storage.disk import Disk
from pacs.storage.model import ArrayKey, Encoding

Root: TypeAlias = str | Path

FORMAT_VERSION = 1

ARCHIVE_JSON = "archive.json"
LOCK = "lock"
WRITE_LOCK = "write.lock"
LAST_COMMIT = "last-commit"
INDEX = "index"
NEW_INDEX = "index.new"
OLD_INDEX = "index.old"
"""The index that another one is about to replace."""
STUDIES = "studies"
STAGING = "staging"
RENDITIONS = "renditions"
"""Kept frames in other Transfer Syntaxes; may be deleted at any time."""
RECORDS_LOG = "records.log"
ZARR_JSON = "zarr.json"


class ArchiveDescription(msgspec.Struct, frozen=True):
    """`archive.json`."""

    format_version: int
    archive_id: str


def study_path(study: str) -> str:
    return f"studies/{study}"


def series_path(study: str, series: str) -> str:
    return f"studies/{study}/series/{series}"


def log_path(study: str, series: str) -> str:
    return f"studies/{study}/series/{series}/records.log"


def array_path(study: str, series: str, array: int) -> str:
    return f"studies/{study}/series/{series}/frames-{array}"


def shard_name(key: ArrayKey, shard: int) -> str:
    """The chunk key of a shard: `c`, its number along the first dimension, 0 along the others."""
    if key.encoding is Encoding.HTJ2K:
        return f"c.{shard}.0.0" if key.samples_per_pixel == 1 else f"c.{shard}.0.0.0"
    return f"c.{shard}.0" if key.encoding is Encoding.NATIVE else f"c.{shard}"


def create(disk: Disk, root: Root, description: ArchiveDescription | None = None) -> ArchiveDescription:
    """A new archive in `root`, a directory that is missing or empty; a copy has the `description` of another.

    Of processes that do this at once one makes it, the others get what that one has made.
    """
    disk.mkdir(str(root))
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # of the directory: before it is known to be ours, nothing is put there
        if not is_archive(root):
            return _create(disk, root, description)
    finally:
        os.close(directory)
    made = read_description(root)
    if description is not None and description.archive_id != made.archive_id:
        raise StorageError(f"{root} has become another archive")
    return made


def _create(disk: Disk, root: Root, description: ArchiveDescription | None) -> ArchiveDescription:
    if not _only_begun(root):
        raise StorageError(f"{root} is not an archive and not empty")
    description = description or ArchiveDescription(FORMAT_VERSION, str(uuid.uuid4()))
    disk.mkdir(f"{root}/{STUDIES}")
    disk.mkdir(f"{root}/{STAGING}")
    for path in (LOCK, WRITE_LOCK):
        disk.create(f"{root}/{path}")
    # Last, and synced on both sides: where archive.json is, the rest is.
    disk.syncfs(str(root))
    disk.replace(f"{root}/{ARCHIVE_JSON}", msgspec.json.format(msgspec.json.encode(description)))
    disk.syncfs(str(root))
    return description


def _only_begun(root: Root) -> bool:
    """Whether a directory holds nothing but what `create` had made when it was interrupted."""
    begun = {STUDIES, STAGING, LOCK, WRITE_LOCK, f"{ARCHIVE_JSON}.tmp"}
    return begun.issuperset(os.listdir(root)) and not _names(f"{root}/{STUDIES}")


def is_archive(root: Root) -> bool:
    return os.path.exists(f"{root}/{ARCHIVE_JSON}")


def read_description(root: Root) -> ArchiveDescription:
    """`archive.json` of an archive this version can read. Raises StorageError or FormatVersionError."""
    path = f"{root}/{ARCHIVE_JSON}"
    try:
        with open(path, "rb") as file:
            description = msgspec.json.decode(file.read(), type=ArchiveDescription)
    except FileNotFoundError:
        raise StorageError(f"{root} is not an archive: it has no {ARCHIVE_JSON}") from None
    except (OSError, ValueError, msgspec.DecodeError) as error:  # ValueError: what is not UTF-8
        raise StorageError(f"{path} cannot be read: {error}") from None
    if description.format_version != FORMAT_VERSION:
        raise FormatVersionError(
            f"{root} has format version {description.format_version}, this program reads {FORMAT_VERSION}"
        )
    return description


def series_on_disk(root: Root) -> Iterator[tuple[str, str]]:
    """(study, series) of every directory that a series may have, in order of name."""
    for study in _names(f"{root}/{STUDIES}"):
        for series in _names(f"{root}/{STUDIES}/{study}/series"):
            yield study, series


def arrays_on_disk(root: Root, study: str, series: str) -> list[int]:
    """k of every `frames-<k>` in the directory of a series, ascending."""
    names = (name.removeprefix("frames-") for name in _names(f"{root}/{series_path(study, series)}")
             if name.startswith("frames-"))  # fmt: skip
    return sorted(int(k) for k in names if k.isdecimal() and str(int(k)) == k)


def _names(path: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def bytes_on_disk(folder: Root) -> int:
    """What the file system has allotted to everything below `folder`: sparse files count for what they hold."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(f"{path}/{name}").st_blocks * 512
            except FileNotFoundError:
                continue
    return total
