"""What `pacs check` says of an archive, and how a part of it that cannot be looked at is said of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import lmdb

from pacs.errors import PacsError
from pacs.storage import layout


class Severity(StrEnum):
    ERROR = "error"
    """Something stored is damaged, missing or contradictory."""
    NOTE = "note"
    """Something left over that harms nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    path: str
    """Relative to the archive."""
    text: str


def error(path: str, text: str) -> Finding:
    return Finding(Severity.ERROR, path, text)


def note(path: str, text: str) -> Finding:
    return Finding(Severity.NOTE, path, text)


def index_error(text: str) -> Finding:
    return error(layout.INDEX, f"{text}: run `pacs reindex`")


def guarded(root: layout.Root, what: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """`findings`; what ends them is one more. Damaged rows of the index end decoders in every way there is."""
    try:
        yield from findings
    except OSError as failure:
        path = str(failure.filename or what).removeprefix(f"{root}/")
        yield error(path, f"cannot be looked at: {failure.strerror or failure}")
    except lmdb.Error as failure:
        yield index_error(f"{what}: cannot be read ({failure})")
    except PacsError as failure:
        yield error(what, failure.message)
    except Exception as failure:  # noqa: BLE001
        yield index_error(f"{what}: holds what cannot be read ({type(failure).__name__}: {failure})")
