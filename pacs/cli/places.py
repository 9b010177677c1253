"""The archive that a command names and the folder that it writes into: whether they are there, what is said of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs.errors import NotFoundError
from pacs.storage import layout


def require_archive(root: Path) -> None:
    """Raises NotFoundError where there is none, OSError where nobody may look, PacsError for one of another version."""
    try:
        (root / layout.ARCHIVE_JSON).stat()
    except (FileNotFoundError, NotADirectoryError):
        if root.is_dir():
            raise NotFoundError(f"{root} is not an archive") from None
        raise NotFoundError(f"{root} {'is a file, not an archive' if root.exists() else 'does not exist'}") from None
    layout.read_description(root)


def check_folder(folder: Path) -> None:
    """Before anything else is done: raises NotADirectoryError where a file is in the way."""
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
            return


@contextmanager
def writing_below(folder: Path) -> Iterator[None]:
    """What a write fails with names no file: with a full disk one has to know which."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(folder)
        raise
