"""A DICOMweb server from a program that uses asyncio. `pacs.client.Client` has the same methods without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from pacs.client import body, description, files, frames, upload
from pacs.client import search as searching
from pacs.client import series as series_of
from pacs.client.ahead import in_order
from pacs.client.frames import StoredFrame
from pacs.client.held import Samples, samples
from pacs.client.index import SeriesIndex
from pacs.client.patience import Patience
from pacs.client.rungs import Rung, rung
from pacs.client.search import Level, Value
from pacs.client.stream import SeriesReader
from pacs.client.tally import Result, Tally
from pacs.client.transport import Transport
from pacs.client.views import FrameView
from pacs.errors import AnswerError

Source: TypeAlias = str | Path | bytes
"""A file or folder to upload, or the bytes of a Part 10 file."""

RUNGS = ("pixels:128", "lossless")


class AsyncClient:
    """One DICOMweb server: `async with AsyncClient("http://127.0.0.1:8080/dicomweb") as client`.

    Requests that fail for a while are tried again, transfers that break off go on where they stood; `patience` says
    for how long. Everything raises RemoteError for what the server refuses, UnreachableError when it cannot be
    reached, AnswerError for an answer that contradicts itself: all of them PacsError.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, patience: Patience | None = None,
        connections: int = 6,
    ) -> None:  # fmt: skip
        """`url`: the DICOMweb root. `headers` go with every request. `connections` at once."""
        self._transport = Transport(url, headers, patience, connections)
        self._connections = max(1, connections)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    @property
    def url(self) -> str:
        """The DICOMweb root."""
        return self._transport.root

    async def store(
        self, sources: Source | Iterable[Source], *, jobs: int = 4, per_request: int = 10,
        report: Callable[[Result], None] | None = None,
    ) -> Tally:  # fmt: skip
        """Upload files, folders of files, and bytes of Part 10 files (STOW-RS). PS3.18 10.5

        The tally counts what became of each; `report` hears of each one. Raises UploadError when there is no use in
        sending more. Storing something twice is success.
        """
        several = [sources] if isinstance(sources, str | Path | bytes) else sources
        target = upload.Target(self.url, jobs, per_request, self._transport.headers)
        return await upload.upload(files.of_sources(several), target, report)

    def search(
        self, level: Level, match: Mapping[str, Value] | None = None, *, study: str | None = None,
        series: str | None = None, include: Sequence[str] = (), fuzzy: bool = False, limit: int | None = None,
        page: int = 500,
    ) -> AsyncGenerator[dict[str, Any]]:  # fmt: skip
        """Studies, series or instances that match, as DICOM JSON, in the server's order (QIDO-RS). PS3.18 10.6

        `match`: attributes by keyword or tag, with wildcards and ranges as in PS3.4 C.2.2.2; a sequence of texts is a
        list of UIDs. `study`, `series`: search only there. `include`: attributes to return beside the usual ones.
        Pages of `page` are asked for as they are needed, `limit` results at most.
        """
        return searching.search(
            self._transport, level, match, study=study, series=series, include=include, fuzzy=fuzzy, limit=limit,
            page=page,
        )  # fmt: skip

    async def metadata(
        self, study: str, series: str | None = None, instance: str | None = None
    ) -> list[dict[str, Any]]:
        """The Data Sets of a study, a series or an instance as DICOM JSON, without bulk data. PS3.18 10.4.1.1.2"""
        return await series_of.metadata(self._transport, *_path(study, series, instance))

    async def frames(
        self, study: str, series: str, instance: str, numbers: Iterable[int] | None = None
    ) -> AsyncGenerator[StoredFrame]:
        """Frames as the server stores them, all or those of `numbers` (from 1) in that order. PS3.18 10.4.1.1.4"""
        if numbers is None:
            numbers = await searching.frame_numbers(self._transport, study, series, instance)
        path = (*_path(study, series, instance), "frames")
        calls = (
            partial(frames.stored, self._transport, self._transport.url(*path, str(number)), number)
            for number in numbers
        )
        async for found in in_order(calls, self._connections):
            yield found

    async def arrays(
        self, study: str, series: str, instance: str, numbers: Iterable[int] | None = None
    ) -> AsyncGenerator[Samples]:
        """Frames decoded: (rows, columns[, samples]), the values of pydicom's `pixel_array(raw=True)`.

        Raises PixelError for a frame that cannot be decoded too, UnsupportedTransferSyntaxError for one that no
        decoder here knows.
        """
        described = await self.metadata(study, series, instance)
        if not described:
            raise AnswerError(self._transport.url(*_path(study, series, instance)), "there is no metadata of it")
        geometry, floating = description.geometry(described[0]), description.floating(described[0])
        chosen = range(1, description.frame_count(described[0]) + 1) if numbers is None else numbers
        async with aclosing(self.frames(study, series, instance, chosen)) as found:
            async for frame in found:
                yield await asyncio.to_thread(
                    samples, frame.data, frame.transfer_syntax, geometry, floating=floating
                )

    async def rendered(
        self, study: str, series: str, instance: str, frame: int = 1, *,
        viewport: tuple[int, int] | None = None, window: tuple[float, float] | None = None,
        quality: int | None = None, media_type: str = "image/jpeg",
    ) -> bytes:  # fmt: skip
        """A frame for the eye, JPEG or PNG. PS3.18 10.4.1.1.3

        `viewport`: columns and rows that it shall fit into. `window`: center and width, instead of those of the file.
        """
        query = {}
        if viewport is not None:
            query["viewport"] = f"{viewport[0]},{viewport[1]}"
        if window is not None:
            query["window"] = f"{window[0]:g},{window[1]:g},linear"
        if quality is not None:
            query["quality"] = str(quality)
        url = self._transport.url(*_path(study, series, instance), "frames", str(frame), "rendered", query=query)
        return (await body.read(self._transport, url, media_type, packed=False)).data

    async def index(self, study: str, series: str) -> SeriesIndex:
        """The frames of a series in reading order, with the ends of their resolution levels where the server knows."""
        return await series_of.read_index(self._transport, study, series)

    def series_stream(
        self, study: str, series: str, *, rungs: Sequence[str | Rung] = RUNGS, first: int | None = None,
        upscale: bool = False, pause: float = 0.25,
    ) -> AsyncGenerator[FrameView]:  # fmt: skip
        """Images of all frames of a series that sharpen, the most useful first.

        `rungs`: how sharp, from the first to the last: `pixels:128` (the smallest resolution level whose longer side
        has as many), `level:2`, `quality:45` (full size, lossy, PSNR in dB), `lossless`. Every frame is shown at a
        rung before any is at the next. `first`: the position, from 1, from which frames are read outwards; the middle
        if None. `upscale`: all arrays have the size of the whole frame. A frame that takes long is shown again,
        sharper, when `pause` seconds have gone since. From a server without rungs each frame comes once, whole.
        """
        chosen = [wanted if isinstance(wanted, Rung) else rung(wanted) for wanted in rungs]
        if not chosen:
            raise ValueError("no rung is wanted")
        reader = SeriesReader(
            self._transport, study, series, chosen, first, upscale=upscale, pause=pause, ahead=self._connections
        )
        return reader.views()


def _path(study: str, series: str | None, instance: str | None) -> tuple[str, ...]:
    if series is None and instance is not None:
        raise ValueError("an instance is named by its study, series and instance")
    path: tuple[str, ...] = ("studies", study)
    if series is not None:
        path += ("series", series)
    if instance is not None:
        path += ("instances", instance)
    return path
