"""Errors as clients see them: one table from exception class to HTTP status and DICOM Failure Reason."""

from __future__ import annotations

import json
import logging
from typing import Final, NamedTuple

from pacs import errors
from pacs.dicomweb.answer import Answer
from pacs.errors import PacsError

_log = logging.getLogger("pacs.problems")


class Problem(NamedTuple):
    """How a kind of error is answered."""

    status: int
    failure_reason: int
    """(0008,1197) in a Store Instances Response. PS3.18 Table I.2-2, PS3.4 B.2.3"""


_OUT_OF_RESOURCES: Final = 0xA700
_MISMATCH: Final = 0xA900
_CANNOT_UNDERSTAND: Final = 0xC000
_PROCESSING_FAILURE: Final = 0x0110
_DUPLICATE: Final = 0x0111
_SYNTAX_NOT_SUPPORTED: Final = 0xC122

PROBLEMS: Final[dict[type[PacsError], Problem]] = {
    errors.DicomError: Problem(400, _CANNOT_UNDERSTAND),
    errors.CodestreamError: Problem(406, _CANNOT_UNDERSTAND),
    errors.UidError: Problem(400, _MISMATCH),
    errors.StudyMismatchError: Problem(409, _MISMATCH),
    errors.ConflictError: Problem(409, _DUPLICATE),
    errors.PixelError: Problem(406, _CANNOT_UNDERSTAND),
    errors.UnsupportedTransferSyntaxError: Problem(406, _SYNTAX_NOT_SUPPORTED),
    errors.QueryError: Problem(400, _PROCESSING_FAILURE),
    errors.NotFoundError: Problem(404, _PROCESSING_FAILURE),
    errors.RequestError: Problem(400, _CANNOT_UNDERSTAND),
    errors.UnknownResourceError: Problem(404, _PROCESSING_FAILURE),
    errors.MethodError: Problem(405, _PROCESSING_FAILURE),
    errors.NotAcceptableError: Problem(406, _PROCESSING_FAILURE),
    errors.MediaTypeError: Problem(415, _CANNOT_UNDERSTAND),
    errors.TooLargeError: Problem(413, _OUT_OF_RESOURCES),
    errors.PartError: Problem(400, _CANNOT_UNDERSTAND),
    errors.HostError: Problem(421, _PROCESSING_FAILURE),
    errors.StalledError: Problem(408, _CANNOT_UNDERSTAND),
    errors.ChangedError: Problem(412, _PROCESSING_FAILURE),
    errors.ForbiddenError: Problem(403, _PROCESSING_FAILURE),
    errors.ViewerError: Problem(404, _PROCESSING_FAILURE),
    errors.BusyError: Problem(503, _OUT_OF_RESOURCES),
    errors.StorageError: Problem(503, _OUT_OF_RESOURCES),
    errors.ChecksumError: Problem(500, _PROCESSING_FAILURE),
    errors.IndexMismatchError: Problem(503, _PROCESSING_FAILURE),
    errors.ArchiveLockedError: Problem(503, _PROCESSING_FAILURE),
    errors.BackupError: Problem(500, _PROCESSING_FAILURE),
    errors.InternalError: Problem(500, _PROCESSING_FAILURE),
    PacsError: Problem(500, _PROCESSING_FAILURE),
}

RETRY_AFTER: Final = 30
"""Seconds a client is asked to wait after a 503."""


def problem(error: PacsError) -> Problem:
    """The row of the nearest class."""
    for kind in type(error).__mro__:
        found = PROBLEMS.get(kind)
        if found is not None:
            return found
    raise AssertionError("PacsError has a row")


def failure_reason(error: PacsError | None) -> int:
    """Why an instance was not stored, as DICOM says it."""
    return problem(error).failure_reason if error is not None else _PROCESSING_FAILURE


def body(code: str, message: str, **more: object) -> bytes:
    """The JSON of an error. A message may quote a header, whose bytes beyond ASCII aiohttp hands on as surrogates."""
    text = json.dumps({"code": code, "message": message, **more}, ensure_ascii=False)
    return text.encode(errors="replace") + b"\n"


def answer(error: Exception, where: str) -> Answer:
    """What the client gets for `error`; `where` is a path without identifiers, for the log.

    A checksum that fails is an alarm: bytes on the disk have changed. An exception of another kind than ours is a
    fault of this program, never shown to the client.
    """
    if not isinstance(error, PacsError):
        _log.error("internal error at %s", where, exc_info=error)
        error = errors.InternalError("an internal error; the server's log has it")
    status = problem(error).status
    if isinstance(error, errors.ChecksumError):
        _log.error("ALARM %s at %s: %s", error.code, where, error.message)
    elif status >= 500 and not isinstance(error, errors.InternalError):
        _log.warning("%s at %s: %s", error.code, where, error.message)
    headers: tuple[tuple[str, str], ...] = (("Cache-Control", "no-store"),)
    if status == 503:
        headers += (("Retry-After", str(RETRY_AFTER)),)
    more: dict[str, object] = {}
    if isinstance(error, errors.MethodError):
        headers += (("Allow", ", ".join(error.allowed)),)
    if isinstance(error, errors.NotAcceptableError):
        more["offered"] = list(error.offered)
    return Answer(status, "application/json", body(error.code, error.message, **more), headers)
