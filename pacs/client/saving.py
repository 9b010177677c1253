"""Files that appear under their name when they are whole, and go on from what is there before that."""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import os
import re
from pathlib import Path
from typing import IO

from pacs.errors import AnswerError

PARTIAL = ".partial"
_SHA_256 = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]+):", re.ASCII)
_PIECE = 1 << 20


def open_alone(path: Path) -> IO[bytes]:
    """A file for reading and writing, made if it is not there, which no other run writes to until it is closed.

    Raises OSError when another run does.
    """
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The other run may have finished it in between, and given it another name.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError:
            file.close()
            raise OSError(errno.EAGAIN, "another run is writing it", str(path)) from None
        except BaseException:
            file.close()
            raise
        file.close()


class PartialFile:
    """A file that is being received: its bytes in `NAME.partial`, what they are bytes of in `NAME.partial.etag`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(path.name + PARTIAL)
        self._note = path.with_name(self._partial.name + ".etag")
        self._file: IO[bytes] | None = None

    def here(self) -> tuple[int, str]:
        """(bytes, entity tag) of what an earlier attempt left; (0, "") when it is of no use."""
        try:
            etag = self._note.read_text(encoding="ascii")
            size = self._partial.stat().st_size
        except (OSError, UnicodeDecodeError):
            return 0, ""
        return (size, etag) if size and re.fullmatch(r'"[\x21\x23-\x7e]*"', etag) else (0, "")

    def begin(self, start: int, etag: str) -> None:
        """Bytes from `start` on of the entity `etag` come next."""
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)  # not before: for what cannot be had nothing is made
        self._file = open_alone(self._partial)
        if start == 0:
            self._note.unlink(missing_ok=True)
        self._file.truncate(start)
        self._file.seek(start)
        if start == 0 and etag:
            self._note.write_text(etag, encoding="ascii")

    def write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)

    def finish(self, length: int | None, digest: str) -> None:
        """Give the file its name. `digest`: the Repr-Digest of the answer. RFC 9530 3

        Raises AnswerError when the bytes are not those that the server announced; nothing is kept then.
        """
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        if length is not None and size != length:
            self.drop()
            raise AnswerError(self.path.name, f"{size} bytes where {length} are announced")
        announced = _SHA_256.search(digest)
        if announced is not None and self._sha256() != announced[1]:
            self.drop()
            raise AnswerError(self.path.name, "its bytes do not have the SHA-256 that the server names")
        # The note first: killed in between, the file is fetched again; else the note would stay for ever.
        self._note.unlink(missing_ok=True)
        self._partial.replace(self.path)
        self.close()

    def close(self) -> None:
        """Keep what is there for another attempt."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def drop(self) -> None:
        """Forget what is there."""
        if self._file is None:
            if not self._partial.exists():
                return
            with open_alone(self._partial):
                self._unlink()
            return
        self._unlink()
        self.close()

    def _unlink(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _sha256(self) -> str:
        found = hashlib.sha256()
        with self._partial.open("rb") as file:
            while piece := file.read(_PIECE):
                found.update(piece)
        return base64.b64encode(found.digest()).decode()
