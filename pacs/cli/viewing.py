"""`pacs viewer`: fetch the viewer that `pacs serve --viewer` serves."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pacs import viewer
from pacs.cli import OK
from pacs.cli.report import size_text
from pacs.errors import ViewerError


def viewer_(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.dir or Path(os.environ.get("PACS_VIEWER") or viewer.default_folder())
    found = None if arguments.again else _present(folder)
    if found is None:
        found = viewer.fetch(folder, arguments.archive, lambda line: print(f"{line} …", flush=True))
    files = found.files.values()
    size = size_text(sum(file.size for file in files))
    print(f"{viewer.PACKAGE} {found.version}, verified: {len(files)} files, {size}, in {found.folder}")
    setting = "" if folder == viewer.default_folder() else f"PACS_VIEWER={folder} "
    print(f"Serve it: {setting}pacs serve --viewer …, then open http://HOST:PORT/viewer")
    return OK


def _present(folder: Path) -> viewer.Viewer | None:
    """The viewer, when it is there and every file of it is as it was unpacked."""
    try:
        found = viewer.load(folder)
    except ViewerError:
        return None
    wrong = viewer.damaged(found)
    if wrong:
        which = wrong[0] if len(wrong) == 1 else f"{wrong[0]} and {len(wrong) - 1:,} more"
        print(f"not as fetched: {which}; fetching again", flush=True)
        return None
    return found
