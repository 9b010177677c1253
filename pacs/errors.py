"""Every error this archive reports, each kind with a stable code that is never reused.

The text says what is wrong and where; `docs/errors.md` lists the codes. HTTP statuses and DICOM Failure
Reasons are given to the kinds in `dicomweb/problems.py`: nothing below that layer knows HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


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


class BackupError(PacsError):
    """A folder that a backup cannot go to: another archive, or a copy that something else has written to."""

    code = "STO-06"


class SettingsError(PacsError):
    """An unknown or impossible setting."""

    code = "SET-01"


# --- what was asked of the DICOMweb server --------------------------------------------------------------------


class RequestError(PacsError):
    """A request that cannot be understood."""

    code = "WEB-01"


class UnknownResourceError(PacsError):
    """There is no such path under `/dicomweb`."""

    code = "WEB-02"


class MethodError(PacsError):
    """The resource exists and does not know this HTTP method. `allowed` are those it knows."""

    code = "WEB-03"

    def __init__(self, message: str, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed


class NotAcceptableError(PacsError):
    """None of the media types asked for can be sent. `offered` are those that can. PS3.18 8.7"""

    code = "WEB-04"

    def __init__(self, message: str, offered: tuple[str, ...] = ()) -> None:
        super().__init__(f"{message}; offered: {', '.join(offered)}" if offered else message)
        self.offered = offered


class MediaTypeError(PacsError):
    """The body of the request is of a media type that is not read here."""

    code = "WEB-05"


class TooLargeError(PacsError):
    """A request or a part of it is longer than the settings allow."""

    code = "WEB-06"


class PartError(PacsError):
    """A part of a multipart body that is not whole: truncated, or with a header that cannot be read."""

    code = "WEB-07"


class BusyError(PacsError):
    """Too much is in work; asking again later will do."""

    code = "WEB-08"


class HostError(PacsError):
    """A request under a name that this server does not go by: a page elsewhere may be using a browser against it."""

    code = "WEB-09"


class StalledError(PacsError):
    """A client that stopped sending in the middle of a request."""

    code = "WEB-10"


class ChangedError(PacsError):
    """What a request continues from is no longer what is stored: more has arrived since."""

    code = "WEB-11"


class ForbiddenError(PacsError):
    """The resource is not for clients of this address."""

    code = "WEB-12"


class ViewerError(PacsError):
    """The viewer has not been fetched, cannot be, or is not the version that this program knows."""

    code = "VWR-01"


class InternalError(PacsError):
    """A fault of this program: the log has its trace."""

    code = "WEB-99"


# --- on the sending side --------------------------------------------------------------------------------------


class UploadError(PacsError):
    """There is no use in sending more: nobody answers at that URL, or what answers is no DICOMweb server."""

    code = "UPL-01"


# --- on the reading side --------------------------------------------------------------------------------------


class RemoteError(PacsError):
    """A DICOMweb server answered a request with an error.

    `url` is what was asked for, `status` the HTTP status, `problem` the members of the JSON that explains it, {} when
    there is none.
    """

    code = "CLI-01"

    def __init__(self, url: str, status: int, text: str = "", problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{url} answered {status}{': ' + text if text else ''}")
        self.url = url
        self.status = status
        self.problem: Mapping[str, Any] = problem if problem is not None else {}


class UnreachableError(PacsError):
    """Nobody answers at `url`, or the connection broke and could not be made again in time."""

    code = "CLI-02"

    def __init__(self, url: str, text: str) -> None:
        super().__init__(f"{url}: {text}")
        self.url = url


class AnswerError(PacsError):
    """What a server sent from `url` contradicts itself, or what it announced: nothing of it is used."""

    code = "CLI-03"

    def __init__(self, url: str, text: str) -> None:
        super().__init__(f"{url}: {text}")
        self.url = url


class RemoteChangedError(PacsError):
    """What lies at `url` became something else while it was read, so that its parts do not fit together."""

    code = "CLI-04"

    def __init__(self, url: str, text: str = "it changed while it was read") -> None:
        super().__init__(f"{url}: {text}")
        self.url = url


# --- measuring ------------------------------------------------------------------------------------------------


class BenchError(PacsError):
    """`pacs bench` cannot measure here: too little room, an archive in the way, a server that answers wrongly."""

    code = "BEN-01"
