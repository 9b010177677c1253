"""What every handler works with: the archive, the settings, threads, caches and budgets of one worker."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

import numpy as np
from aiohttp.web import BaseRequest

from pacs import renditions, transcode, uids
from pacs.archive import Archive
from pacs.dicomweb.askers import Shared
from pacs.dicomweb.metrics import Metrics
from pacs.dicomweb.negotiation import Choice, choices, preferred
from pacs.dicomweb.observe import Observer
from pacs.dicomweb.offload import ByteCache, ByteSemaphore, Offload, Once
from pacs.dicomweb.outgoing import Outgoing
from pacs.dicomweb.plans import Plans
from pacs.dicomweb.priority import RightOfWay
from pacs.dicomweb.spool import Budget, Collected
from pacs.reading import Frame, is_native
from pacs.renditions import Made, available
from pacs.settings import Settings
from pacs.transcode import Rendition

_READ_IN_LOOP: Final = 1 << 20
"""Bytes: to copy more from the page cache would hold up the event loop."""


class Service:
    """Made inside the worker that uses it, closed by it. The archive is its opener's to close."""

    def __init__(self, archive: Archive, settings: Settings) -> None:
        self.archive = archive
        self.settings = settings
        self.right_of_way = RightOfWay()
        self.offload = Offload(settings.codec_threads, self.right_of_way.give_way)
        self.ingest_memory = ByteSemaphore(settings.ingest_memory)
        self.outgoing = Outgoing(settings.outgoing_memory)
        self.metadata_cache = ByteCache(settings.metadata_cache)
        self.remembering = 0
        """Bytes of metadata that are kept until their last reader has all, for the cache."""
        transcode.MEMORY.resize(settings.decode_memory)
        self.renditions = archive.renditions(settings.frame_cache, settings.rendition_cache)
        self.once: Once[bytes] = Once()
        self._shared_made: Shared[Made] = Shared(self.offload)
        self.shared_pictures: Shared[bytes] = Shared(self.offload)
        self.plans = Plans(archive, self.renditions, self.offload)
        self._reading = Budget(max(settings.spool_threshold, settings.ingest_memory // 4))
        self._unpacked: WeakValueDictionary[str, np.ndarray[Any, Any]] = WeakValueDictionary()
        self._once_unpacked: Once[np.ndarray[Any, Any]] = Once()
        self._frames_waited_for = self.frames_at_once = 0
        """Frames that the page cache had."""
        self._counted: dict[tuple[str, str], int] = {}
        self.observer = Observer(settings, self._every_second)
        archive.observe(self.observer.measured)

    def collect(self) -> Collected:
        """Where the next uploaded part is gathered."""
        settings = self.settings
        return Collected(
            self.archive.root, settings.spool_threshold, settings.max_part_bytes, self._reading, settings.least_free
        )

    async def read_frame(self, frame: Frame) -> bytes | memoryview:
        """The frame as stored: at once where the page cache has it, else from a thread. Raises ChecksumError."""
        data = self.cached(frame)
        if data is not None:
            return data
        self._frames_waited_for += 1
        if frame.length > _READ_IN_LOOP and is_native(frame):
            return await self._unpacked_frame(frame)
        return await self.offload.read(self.archive.read_frame, frame)

    async def _unpacked_frame(self, frame: Frame) -> memoryview:
        """A frame that is no stretch of a file: all who are reading it at the moment share one copy."""
        key = f"{frame.entry.descriptor.sha256.hex()} {frame.number}"
        found = self._unpacked.get(key)
        if found is None:

            def unpack() -> np.ndarray[Any, Any]:
                return np.frombuffer(self.archive.read_frame(frame), np.uint8)

            found = await self._once_unpacked(key, lambda: self.offload.read(unpack))
            self._unpacked[key] = found
        return found.data

    def cached(self, frame: Frame) -> memoryview | None:
        """The frame as stored where the page cache has it, else None. Raises ChecksumError."""
        data = self.archive.read_frame_cached(frame) if frame.length <= _READ_IN_LOOP else None
        self.frames_at_once += data is not None
        return data

    async def made(
        self, frame: Frame, rendition: Rendition, quality: float | None = None, *, asker: BaseRequest | None
    ) -> Made:
        """The frame in another form, made once for all who ask and kept for a while: readers of one examination look
        at the same frames. Raises as `Renditions.frame` and `askers.Shared`."""
        found = self.renditions.recent(frame, rendition, quality)
        if found is not None:
            return found
        seconds = available.seconds(frame.entry, rendition.transfer_syntax)
        call = partial(self.renditions.frame, frame, rendition, quality)
        key = renditions.key_of(frame, rendition, quality)
        return await self._shared_made(key, seconds, call, asker)

    async def layered(self, frame: Frame, *, asker: BaseRequest | None) -> Made:
        """The same with quality layers: see `Renditions.layered`."""
        found = self.renditions.recent_layers(frame)
        if found is not None:
            return found
        seconds = available.seconds(frame.entry, uids.JPEG_2000_LOSSLESS)
        call = partial(self.renditions.layered, frame)
        return await self._shared_made(renditions.layers_key(frame), seconds, call, asker)

    def choices(self, request: BaseRequest) -> tuple[Choice, ...]:
        """What the client takes, best first: by the query parameter `accept`, then by the header. PS3.18 8.7.8.1"""
        accept = _accept(request)
        named = _named(request)
        return preferred(named, accept) if named else choices(accept)

    def accept(self, request: BaseRequest) -> str:
        """The same as text, of the first that says something."""
        return _named(request) or _accept(request)

    def _every_second(self, metrics: Metrics) -> None:
        self.archive.let_go()
        self.outgoing.look(time.monotonic())
        self._tell_levels(metrics)

    def _tell_levels(self, metrics: Metrics) -> None:
        """Set the metrics that are kept here: what waits, and what caches had."""
        ingest, commit = self.archive.waiting()
        depths = {"ingest": ingest, "commit": commit, "memory": self.ingest_memory.waiting}
        depths |= {"outgoing": self.outgoing.waiting, **self.offload.depths()}
        for queue, depth in depths.items():
            metrics.queue.labels(queue).set(depth)
        metrics.ingest_memory.set(self.ingest_memory.taken)
        renditions = self.renditions
        for cache, hits, misses in (
            ("page", self.frames_at_once, self._frames_waited_for),
            ("metadata", self.metadata_cache.hits, self.metadata_cache.misses),
            ("plans", self.plans.hits, self.plans.misses),
            ("frames", renditions.memory_hits, renditions.memory_misses),
            ("renditions", renditions.disk_hits, renditions.disk_misses),
        ):
            for outcome, count in (("hit", hits), ("miss", misses)):
                fresh = count - self._counted.get((cache, outcome), 0)
                if fresh:
                    metrics.cache.labels(cache, outcome).inc(fresh)
                    self._counted[cache, outcome] = count

    def close(self) -> None:
        self.observer.close()
        self.offload.close()


def _accept(request: BaseRequest) -> str:
    return ",".join(request.headers.getall("Accept", ()))


def _named(request: BaseRequest) -> str:
    """By the query. PS3.18 8.3.3.1"""
    return ",".join(filter(None, request.query.getall("accept", ()))) if "accept=" in request.raw_path else ""
