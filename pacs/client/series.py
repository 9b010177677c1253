"""What there is in a series: its metadata, and its frames in reading order."""

from __future__ import annotations

from typing import Any, Final

from pacs.client import body
from pacs.client import index as indexing
from pacs.client.index import SeriesIndex
from pacs.client.transport import Transport
from pacs.errors import RemoteError

NO_SUCH_RESOURCE: Final = frozenset((400, 404, 405, 406, 501))
"""Statuses by which servers say that they do not know a resource of ours."""


def segments(study: str, series: str) -> tuple[str, str, str, str]:
    """The path of a series below the root."""
    return ("studies", study, "series", series)


async def metadata(transport: Transport, *path: str) -> list[dict[str, Any]]:
    """The Data Sets of a study, a series or an instance in DICOM JSON, bulk data left out. PS3.18 10.4.1.1.2"""
    url = transport.url(*path, "metadata")
    return indexing.json(url, await body.read(transport, url, "application/dicom+json"))


async def read_index(transport: Transport, study: str, series: str) -> SeriesIndex:
    """The frames of a series in reading order, from the server's index or from its metadata.

    Raises RemoteError, UnreachableError, AnswerError.
    """
    path = segments(study, series)
    url = transport.url(*path, "progressive")
    try:
        document = await body.read(transport, url, "application/json")
    except RemoteError as error:
        if error.status not in NO_SUCH_RESOURCE:
            raise
    else:
        return indexing.read(url, document, study, series)
    return indexing.of_metadata(url, await metadata(transport, *path), study, series)
