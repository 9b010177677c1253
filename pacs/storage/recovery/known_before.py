"""What the index knew that a reindex replaces. It may be damaged, and LMDB takes the numbers in its pages for right:
another process reads it, and what ends that one ends nobody else."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Final

import msgspec

from pacs import uids
from pacs.errors import UidError
from pacs.storage.index.environment import map_size
from pacs.storage.index.rows import INDEX_FORMAT, IndexState
from pacs.storage.model import SeriesEntry

_LIST: Final = """
import struct, sys, lmdb
env = lmdb.open(sys.argv[1], readonly=True, lock=False, max_dbs=99, map_size=int(sys.argv[2]), readahead=False)
def tell(found):
    sys.stdout.buffer.write(struct.pack("<I", len(found)) + found)
with env.begin() as txn:
    meta, series = (env.open_db(name, txn=txn, create=False) for name in (b"meta", b"series"))
    tell(txn.get(b"state", b"", db=meta))
    before = b""
    for key, value in txn.cursor(series):
        if key <= before:  # pages that lead back to themselves
            break
        tell(value)
        before = key
"""
_LENGTH: Final = struct.Struct("<I")
_LARGEST: Final = 1 << 20
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, UidError)
"""What decoding noise ends with."""


def series(path: str, archive_id: str) -> Iterator[SeriesEntry]:
    """The series that an index of this archive has, as far as it can be read. Raises nothing."""
    if not os.path.exists(os.path.join(path, "data.mdb")):
        return
    # -P: no module of the working directory is run.
    command = [sys.executable, "-P", "-c", _LIST, path, str(map_size(path))]
    with (
        suppress(OSError, *_UNREADABLE),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as reader,
    ):
        assert reader.stdout is not None
        try:
            state = msgspec.msgpack.decode(_next(reader.stdout), type=IndexState)
            if (state.index_format, state.archive_id) != (INDEX_FORMAT, archive_id):
                return
            while found := _next(reader.stdout):
                entry = msgspec.msgpack.decode(found, type=SeriesEntry)
                uids.check(entry.study, "Study Instance UID")
                uids.check(entry.uid, "Series Instance UID")
                yield entry
        finally:
            reader.kill()


def _next(output: IO[bytes]) -> bytes:
    """Nothing at the end."""
    head = output.read(_LENGTH.size)
    length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
    found = output.read(length) if length <= _LARGEST else b""
    return found if len(found) == length else b""
