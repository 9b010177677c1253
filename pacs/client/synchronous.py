"""A DICOMweb server from a program without asyncio: `AsyncClient` on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from pacs.client.asynchronous import RUNGS, AsyncClient, Source
from pacs.client.frames import StoredFrame
from pacs.client.held import Samples
from pacs.client.index import SeriesIndex
from pacs.client.patience import Patience
from pacs.client.rungs import Rung
from pacs.client.search import Level, Value
from pacs.client.tally import Result, Tally
from pacs.client.views import FrameView

T = TypeVar("T")


class Client:
    """One DICOMweb server: `with Client("http://127.0.0.1:8080/dicomweb") as client`. See `AsyncClient`.

    May be used by several threads at once. What iterates asks for the next item when it is wanted, while the link
    goes on filling buffers.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, patience: Patience | None = None,
        connections: int = 6,
    ) -> None:  # fmt: skip
        self._client = AsyncClient(url, headers=headers, patience=patience, connections=connections)
        self._loop = asyncio.new_event_loop()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pacs client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread. Other threads that wait for an answer get a RuntimeError."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            closing = asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        closing.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._client.close()
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._closed:
                coroutine.close()
                raise RuntimeError("the client is closed")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError("the client was closed meanwhile") from None
        except BaseException:  # an interrupt from the keyboard above all
            future.cancel()
            raise

    def _each(self, items: AsyncGenerator[T]) -> Generator[T]:
        try:
            while True:
                try:
                    item = self._run(_next(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if not self._closed:
                self._run(items.aclose())

    @property
    def url(self) -> str:
        """The DICOMweb root."""
        return self._client.url

    def store(
        self, sources: Source | Iterable[Source], *, jobs: int = 4, per_request: int = 10,
        report: Callable[[Result], None] | None = None,
    ) -> Tally:  # fmt: skip
        """Upload files, folders of files, and bytes of Part 10 files: see `AsyncClient.store`."""
        return self._run(self._client.store(sources, jobs=jobs, per_request=per_request, report=report))

    def search(
        self, level: Level, match: Mapping[str, Value] | None = None, *, study: str | None = None,
        series: str | None = None, include: Sequence[str] = (), fuzzy: bool = False, limit: int | None = None,
        page: int = 500,
    ) -> Generator[dict[str, Any]]:  # fmt: skip
        """Studies, series or instances that match, as DICOM JSON: see `AsyncClient.search`."""
        return self._each(
            self._client.search(
                level, match, study=study, series=series, include=include, fuzzy=fuzzy, limit=limit, page=page
            )
        )

    def metadata(self, study: str, series: str | None = None, instance: str | None = None) -> list[dict[str, Any]]:
        """The Data Sets of a study, a series or an instance as DICOM JSON: see `AsyncClient.metadata`."""
        return self._run(self._client.metadata(study, series, instance))

    def frames(
        self, study: str, series: str, instance: str, numbers: Iterable[int] | None = None
    ) -> Generator[StoredFrame]:
        """Frames as the server stores them: see `AsyncClient.frames`."""
        return self._each(self._client.frames(study, series, instance, numbers))

    def arrays(
        self, study: str, series: str, instance: str, numbers: Iterable[int] | None = None
    ) -> Generator[Samples]:
        """Frames decoded: see `AsyncClient.arrays`."""
        return self._each(self._client.arrays(study, series, instance, numbers))

    def rendered(
        self, study: str, series: str, instance: str, frame: int = 1, *,
        viewport: tuple[int, int] | None = None, window: tuple[float, float] | None = None,
        quality: int | None = None, media_type: str = "image/jpeg",
    ) -> bytes:  # fmt: skip
        """A frame for the eye: see `AsyncClient.rendered`."""
        return self._run(
            self._client.rendered(
                study, series, instance, frame, viewport=viewport, window=window, quality=quality,
                media_type=media_type,
            )
        )  # fmt: skip

    def index(self, study: str, series: str) -> SeriesIndex:
        """The frames of a series in reading order: see `AsyncClient.index`."""
        return self._run(self._client.index(study, series))

    def series_stream(
        self, study: str, series: str, *, rungs: Sequence[str | Rung] = RUNGS, first: int | None = None,
        upscale: bool = False, pause: float = 0.25,
    ) -> Generator[FrameView]:  # fmt: skip
        """Images of all frames of a series that sharpen: see `AsyncClient.series_stream`."""
        return self._each(
            self._client.series_stream(study, series, rungs=rungs, first=first, upscale=upscale, pause=pause)
        )


async def _next(items: AsyncGenerator[T]) -> T:
    return await anext(items)
