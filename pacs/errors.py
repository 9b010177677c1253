"""Every error this archive reports, each kind with a stable code that is never reused.

The text says what is wrong and where; `docs/errors.md` lists the codes. HTTP statuses and DICOM Failure
Reasons are given to the kinds in `dicomweb/problems.py`: nothing below that layer knows HTTP.
"""

from __future__ import annotations

from typing import ClassVar


class PacsError(Exception):
    """Base of all errors of this package: a stable `code` and a message fit to show to a client."""

    code: ClassVar[str] = "PAC-00"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# --- what was sent to us --------------------------------------------------------------------------------------


class DicomError(PacsError):
    """Bytes that are not a readable Part 10 file. `offset` is where in the file reading stopped."""

    code = "P10-01"

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(f"{message} at byte {offset}")
        self.offset = offset


class CodestreamError(PacsError):
    """Bytes that are not a readable JPEG 2000 codestream. `offset` counts from its first byte."""

    code = "J2K-01"

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(f"{message} at byte {offset}")
        self.offset = offset


class UidError(PacsError):
    """A UID that is missing or malformed (PS3.5 9.1)."""

    code = "UID-01"


class StudyMismatchError(PacsError):
    """An instance sent to `/studies/{study}` that belongs to another study (PS3.18 10.5)."""

    code = "STW-01"


class ConflictError(PacsError):
    """A SOP Instance UID that is already stored with other bytes; the first copy stays."""

    code = "STW-02"


class PixelError(PacsError):
    """Pixel data that contradicts its own description, or that no decoder here can decode."""

    code = "PIX-01"


class UnsupportedTransferSyntaxError(PacsError):
    """A representation was asked for that this archive cannot make from what is stored."""

    code = "PIX-02"


class QueryError(PacsError):
    """A search that cannot be understood (PS3.18 10.6)."""

    code = "QRY-01"


class NotFoundError(PacsError):
    """Nothing with this UID, frame number or bulk data path is stored."""

    code = "ARC-01"


# --- what happened to the archive -----------------------------------------------------------------------------


class StorageError(PacsError):
    """The disk refused an operation (full, read-only, failing)."""

    code = "STO-01"


class ChecksumError(PacsError):
    """Stored bytes do not match their checksum: never served."""

    code = "STO-02"


class IndexMismatchError(PacsError):
    """`index/` does not belong to the records on disk: run `pacs reindex`."""

    code = "STO-03"


class ArchiveLockedError(PacsError):
    """Another process holds the archive in a way that excludes this one."""

    code = "STO-04"


class FormatVersionError(PacsError):
    """The archive was written by an incompatible version."""

    code = "STO-05"


class SettingsError(PacsError):
    """An unknown or impossible setting."""

    code = "SET-01"
