"""Fetching a study, a series, an instance or a frame into files, again and again until all of it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from pacs import uids
from pacs.client import description
from pacs.client.body import Body, CutError
from pacs.client.fetch_arrays import SeriesArrays
from pacs.client.parts import events
from pacs.client.patience import Attempts, Patience
from pacs.client.resource import Resource
from pacs.client.saving import PartialFile
from pacs.client.search import search
from pacs.client.series import read_index
from pacs.client.together import together
from pacs.client.transport import Transport
from pacs.dicomweb.multipart import PartStart
from pacs.errors import AnswerError, PacsError, RemoteChangedError, RemoteError, UnreachableError

Form: TypeAlias = Literal["dicom", "npy", "zarr"]
Until: TypeAlias = Literal["preview", "readable", "lossless"]
FAILURES_KEPT = 1000
_IN_PARTS_ONLY = frozenset((400, 406, 415))
"""Answers of servers that send instances in parts alone; Orthanc's is 400."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to fetch, and into what."""

    resource: Resource
    out: Path
    form: Form = "dicom"
    """`dicom`: the files that the server received. `npy`, `zarr`: decoded frames, one array for a series."""
    until: Until = "lossless"
    transfer_syntax: str = "*"
    """Of DICOM files; `*`: that of arrival, and with it the exact file."""
    jobs: int = 6
    """Requests at once."""
    headers: Mapping[str, str] = field(default_factory=dict)
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        if self.form == "dicom" and self.until != "lossless":
            raise ValueError(f"a DICOM file is whole or it is none: {self.until} images come as npy or zarr")
        if self.form == "dicom" and self.resource.frame is not None:
            raise ValueError("a frame is no DICOM file: fetch it as npy or zarr")
        if self.transfer_syntax != "*":
            if self.form != "dicom":
                raise ValueError("a Transfer Syntax is chosen for DICOM files")
            try:
                uids.check(self.transfer_syntax, "the Transfer Syntax")
            except PacsError as error:
                raise ValueError(error.message) from None


@dataclass(slots=True)
class Progress:
    """How far it is, and in the end what became of it."""

    items: int = 0
    """Files or frames that there are."""
    fetched: int = 0
    already: int = 0
    """Were there from an earlier run."""
    failed: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    """(what, why) of the first ones."""
    notes: list[str] = field(default_factory=list)
    received: int = 0
    """Bytes of bodies."""
    expected: int = 0
    """Bytes of what is known to come or to have come."""
    sized: int = 0
    """Files whose length is known; 0 when `expected` is that of everything."""

    def fail(self, what: str, error: PacsError) -> None:
        self.failed += 1
        if len(self.failures) < FAILURES_KEPT:
            self.failures.append((what, f"{error.message} [{error.code}]"))


async def fetch_all(options: Options, report: Callable[[Progress], None] | None = None) -> Progress:
    """Fetch everything that is not there yet. `report` hears of every step.

    What cannot be had is counted and named in the result. Raises UnreachableError when the server can no longer be
    reached, and RemoteError when it does not know the resource; what is here by then is gone on from next time.
    """
    progress = Progress()
    async with Transport(options.resource.root, options.headers, options.patience, options.jobs) as transport:

        def received(count: int) -> None:
            progress.received += count
            if report is not None:
                report(progress)

        transport.on_received = received
        if options.form == "dicom":
            await _fetch_files(transport, options, progress)
        else:
            await _fetch_arrays(transport, options, progress)
    return progress


# --- DICOM files ----------------------------------------------------------------------------------------------------


async def _fetch_files(transport: Transport, options: Options, progress: Progress) -> None:
    wanted = options.resource
    names: list[tuple[str, str]] = []
    if wanted.series is not None and wanted.instance is not None:
        names.append((wanted.series, wanted.instance))
    else:
        async with aclosing(search(transport, "instances", study=wanted.study, series=wanted.series)) as found:
            async for item in found:
                series = description.text(item, description.SERIES) or wanted.series or ""
                instance = description.text(item, description.INSTANCE)
                # They become names of files.
                names.append((uids.check(series, "Series Instance UID"), uids.check(instance, "SOP Instance UID")))
    if not names:
        raise RemoteError(transport.url("studies", wanted.study), 404, "there is no instance of it")
    progress.items = len(names)
    waiting = iter(names)

    async def work() -> None:
        for series, instance in waiting:
            # Only the exact file has the plain name.
            mark = "" if options.transfer_syntax == "*" else f".{options.transfer_syntax}"
            file = PartialFile(options.out / wanted.study / series / f"{instance}{mark}.dcm")
            if file.path.is_file():
                progress.already += 1
                continue
            url = transport.url("studies", wanted.study, "series", series, "instances", instance)
            try:
                await _fetch_file(transport, url, file, options.transfer_syntax, progress)
                progress.fetched += 1
            except UnreachableError:
                raise
            except PacsError as error:
                progress.fail(instance, error)
            finally:
                file.close()

    await together(work() for _ in range(min(options.jobs, len(names))))


async def _fetch_file(
    transport: Transport, url: str, file: PartialFile, transfer_syntax: str, progress: Progress
) -> None:
    attempts = Attempts(transport.patience)
    accept = f"application/dicom; transfer-syntax={transfer_syntax}"
    counted = False
    while True:
        start, etag = file.here()
        try:
            async with Body(
                transport, url, {"Accept": accept}, start=start, etag=etag, attempts=attempts
            ) as body:
                if not counted and body.length is not None:
                    progress.expected += body.length - start
                    progress.sized += 1
                    counted = True
                digest = body.headers.get("Repr-Digest", "")
                if start and body.content_type.startswith("multipart/"):
                    file.drop()  # positions in it are not positions in the file
                    continue
                length = None if body.content_type.startswith("multipart/") else body.length
                file.begin(start, body.etag)
                async for piece in _file_pieces(body):
                    file.write(piece)
            await asyncio.to_thread(file.finish, length, digest if length is not None else "")
            return
        except CutError as error:
            file.drop()
            await attempts.wait(error)
        except RemoteChangedError as error:
            file.drop()
            await attempts.wait(error)
        except RemoteError as error:
            if error.status == 416:
                file.drop()
                await attempts.wait(error)
            elif error.status in _IN_PARTS_ONLY and not accept.startswith("multipart/"):
                accept = f'multipart/related; type="application/dicom"; transfer-syntax={transfer_syntax}'
            else:
                raise


async def _file_pieces(body: Body) -> AsyncIterator[bytes]:
    """The bytes of the one file in an answer."""
    begun = 0
    if body.position and not body.content_type.startswith("multipart/"):
        async for chunk in body:
            yield chunk
        return
    async for event in events(body):
        if isinstance(event, bytes):
            yield event
        elif isinstance(event, PartStart):
            begun += 1
            if begun > 1:
                raise AnswerError(body.url, "several parts where one instance was asked for")
    if not begun:
        raise AnswerError(body.url, "no instance is in the answer")


# --- arrays ---------------------------------------------------------------------------------------------------------


async def _fetch_arrays(transport: Transport, options: Options, progress: Progress) -> None:
    wanted = options.resource
    series = [wanted.series] if wanted.series is not None else []
    if not series:
        async with aclosing(search(transport, "series", study=wanted.study)) as found:
            async for item in found:
                series.append(uids.check(description.text(item, description.SERIES), "Series Instance UID"))
    if not series:
        raise RemoteError(transport.url("studies", wanted.study), 404, "there is no series of it")
    for uid in series:
        index = await read_index(transport, wanted.study, uid)
        chosen = [
            frame for frame in index.frames
            if wanted.instance in (None, frame.instance) and wanted.frame in (None, frame.frame)
        ]  # fmt: skip
        if not chosen:
            if wanted.instance is not None:
                raise RemoteError(transport.url("studies", wanted.study), 404, "there is no such frame")
            progress.notes.append(f"series {uid} has no frames")
            continue
        if index.receiving:
            progress.notes.append(f"series {uid} may still be arriving: fetch it again later")
        stem = "frames" if wanted.instance is None else wanted.instance
        stem += f"-{wanted.frame}" if wanted.frame is not None else ""
        arrays = SeriesArrays(
            transport, index, chosen, options.out / wanted.study / uid, stem, form=options.form,
            until=options.until, jobs=options.jobs,
        )  # fmt: skip
        progress.items += len(chosen)
        await arrays.fetch(progress)
