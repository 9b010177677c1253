"""Files and directories that an archive does not have. They harm nothing, but somebody put them there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Container, Iterable, Iterator

from pacs.storage import layout
from pacs.storage.check.findings import Finding, note
from pacs.storage.recovery.copying import COPYING
from pacs.storage.recovery.set_aside import SET_ASIDE

_LEFT = {
    SET_ASIDE: "ends of logs that were cut off, arrays that no record names: they may be more than what a crash left",
    layout.NEW_INDEX: "left by `pacs reindex`",
    layout.OLD_INDEX: "left by `pacs reindex`",
    COPYING: "a backup into this archive is going on, or was cut short",
}
_ROOT = {
    layout.ARCHIVE_JSON, layout.LOCK, layout.WRITE_LOCK, layout.LAST_COMMIT, layout.INDEX, layout.STUDIES,
    layout.STAGING, layout.ZARR_JSON, layout.RENDITIONS, *_LEFT,
}  # fmt: skip
_INDEX = {"data.mdb", "lock.mdb"}
NO_PLACE = "belongs to nothing that is stored"


def listed(root: layout.Root, directory: str) -> dict[str, bool]:
    """What lies in a directory of the archive, and whether it is a directory; nothing where it is gone."""
    try:
        with os.scandir(f"{root}/{directory}") as entries:
            return {entry.name: entry.is_dir() for entry in entries}
    except FileNotFoundError:
        return {}


def strange(root: layout.Root, directory: str, there: Iterable[str], known: Container[str]) -> Iterator[Finding]:
    """Notes on what is not `known` of what was listed in a directory, and still is there."""
    for name in sorted(there):
        path = f"{directory}/{name}".lstrip("/")
        if name not in known and os.path.lexists(f"{root}/{path}"):
            yield note(path, NO_PLACE)


def of_archive(root: layout.Root) -> Iterator[Finding]:
    """In the archive's own directories, down to those that hold series."""
    there = listed(root, "")
    yield from strange(root, "", there, _ROOT)
    for name, text in _LEFT.items():
        if name in there:
            yield note(name, text)
    yield from strange(root, layout.INDEX, listed(root, layout.INDEX), _INDEX)
    for name, directory in sorted(listed(root, layout.STAGING).items()):
        path = f"{layout.STAGING}/{name}"
        if not directory:
            yield note(path, NO_PLACE)
        elif not _held(f"{root}/{path}"):
            yield note(path, "left by a process that died: removed at the next open")
    for study, directory in sorted(listed(root, layout.STUDIES).items()):
        if directory:
            yield from _of_study(root, layout.study_path(study))
        else:
            yield from strange(root, layout.STUDIES, [study], (layout.ZARR_JSON,))


def _of_study(root: layout.Root, path: str) -> Iterator[Finding]:
    yield from strange(root, path, listed(root, path), (layout.ZARR_JSON, "series"))
    series = listed(root, f"{path}/series")
    files = [name for name, directory in series.items() if not directory]
    yield from strange(root, f"{path}/series", files, (layout.ZARR_JSON,))
    if len(files) == len(series) and os.path.lexists(f"{root}/{path}"):
        yield note(path, "a study without a series")


def _held(path: str) -> bool:
    """Whether the process that fills a directory below `staging/` lives; True where nobody may look."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
