"""Images of the frames of a series, each shown again only when it has become sharper."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from pacs.client import index as indexing
from pacs.client import series as series_of
from pacs.client.frames import StoredFrame
from pacs.client.held import HeldFrame, Image, Samples, decode, samples, upscaled
from pacs.client.index import IndexedFrame, SeriesIndex
from pacs.client.rungs import Rung
from pacs.client.transport import Transport
from pacs.errors import AnswerError, PacsError, PixelError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry

_UNDECODABLE = (PixelError, UnsupportedTransferSyntaxError, AnswerError)


@dataclass(frozen=True, slots=True)
class FrameView:
    """One frame of a series, as sharp as the bytes that are here make it."""

    position: int
    """From 1, in reading order. It may grow when instances arrive while the series is read."""
    count: int
    """Frames of the series."""
    instance: str
    """SOP Instance UID."""
    frame: int
    """From 1, in its instance."""
    rung: str
    """What the array shows: `level=2` (a resolution level, 0 the coarsest), `quality=45` (full size, PSNR in dB),
    `lossless` (the frame as it is stored)."""
    array: Samples
    """(rows, columns[, samples]) of that rung, or of the whole frame with `upscale`; the Data Set's own type."""
    final: bool
    """Whether it is the whole frame, proven complete: nothing sharper will come."""
    rows: int
    """Of the whole frame."""
    columns: int


class Views:
    """What is here of each frame of a series, and what of it was shown."""

    def __init__(self, transport: Transport, study: str, series: str, *, upscale: bool) -> None:
        self._transport = transport
        self._path = series_of.segments(study, series)
        self._upscale = upscale
        self.index = SeriesIndex(study, series, ())
        self.failed: dict[int, PacsError] = {}
        """Why the frame at a position, from 0, cannot be shown."""
        self._held: dict[int, HeldFrame] = {}
        self._shown: dict[tuple[str, int], int] = {}
        """The finest level shown of (instance, frame)."""
        self._descriptions: asyncio.Task[Mapping[str, tuple[FrameGeometry, bool]]] | None = None

    async def close(self) -> None:
        if self._descriptions is not None:
            self._descriptions.cancel()
            with suppress(asyncio.CancelledError, PacsError):
                await self._descriptions
            self._descriptions = None

    async def take(self, index: SeriesIndex) -> None:
        """Go on with another index: frames that are in both keep what is here of them."""
        before = {held.frame.key: held for held in self._held.values()}
        gone = before.keys() - {frame.key for frame in index.frames}
        for key in gone:
            self._shown.pop(key[:2], None)
        self.index = index
        self.failed.clear()
        positions = {frame.key: position for position, frame in enumerate(index.frames)}
        self._held = {positions[key]: held for key, held in before.items() if key not in gone}
        await self.close()
        if any(frame.geometry is None for frame in index.frames):
            self._descriptions = asyncio.create_task(self._describe())

    def hold(self, position: int) -> HeldFrame:
        """The bytes of a frame, counted from 0 in reading order."""
        held = self._held.get(position)
        if held is None:
            held = self._held[position] = HeldFrame(self.index.frames[position])
        return held

    def lacks(self, position: int, wanted: Rung) -> bool:
        """Whether a frame has not been shown at a rung yet, and may be."""
        if position in self.failed:
            return False
        frame = self.index.frames[position]
        shown = self._shown.get((frame.instance, frame.frame), -1)
        return shown < wanted.level(frame.sizes or ((frame.rows, frame.columns),))

    async def sharper(self, position: int) -> FrameView | None:
        """The image that the bytes held of a frame are, if it is sharper than what was shown."""
        held = self.hold(position)
        frame = held.frame
        found = held.snapshot()
        if found is None or found[0] <= self._shown.get((frame.instance, frame.frame), -1):
            return None
        level, data = found
        try:
            geometry, floating = await self._described(frame)
            image = await asyncio.to_thread(self._decode, frame, level, data, geometry, floating)
        except _UNDECODABLE as error:
            if level == len(frame.ends) - 1:
                self.failed[position] = error
                held.forget()
            return None
        if image.final:
            held.forget(finished=True)
        return self._show(position, level, image)

    async def alone(self, position: int, found: StoredFrame, rung: Rung | None) -> FrameView | None:
        """The image of a codestream of its own: a lossy rung, or with None the whole frame."""
        frame = self.index.frames[position]
        if found.transfer_syntax == frame.transfer_syntax and len(found.data) == frame.length:
            # No such rendition of this frame exists: it came as it is stored.
            self.hold(position).add(0, found.data)
            return await self.sharper(position)
        try:
            geometry, floating = await self._described(frame)
            array = await asyncio.to_thread(self._samples, frame, found, geometry, floating)
        except _UNDECODABLE as error:
            if rung is None:
                self.failed[position] = error
            return None
        image = Image(rung.name if rung is not None else "lossless", array, rung is None)
        return self._show(position, 0 if rung is None else -1, image)

    def _decode(
        self, frame: IndexedFrame, level: int, data: bytes, geometry: FrameGeometry, floating: bool
    ) -> Image:
        image = decode(frame, level, data, geometry, floating=floating)
        return Image(image.rung, self._sized(frame, image.array), image.final)

    def _samples(self, frame: IndexedFrame, found: StoredFrame, geometry: FrameGeometry, floating: bool) -> Samples:
        return self._sized(frame, samples(found.data, found.transfer_syntax, geometry, floating=floating))

    def _sized(self, frame: IndexedFrame, array: Samples) -> Samples:
        return upscaled(array, frame.rows, frame.columns) if self._upscale else array

    def _show(self, position: int, level: int, image: Image) -> FrameView:
        frame = self.index.frames[position]
        key = (frame.instance, frame.frame)
        self._shown[key] = max(level, self._shown.get(key, -1))
        return FrameView(
            position + 1, len(self.index.frames), frame.instance, frame.frame, image.rung, image.array, image.final,
            frame.rows, frame.columns,
        )  # fmt: skip

    async def _describe(self) -> Mapping[str, tuple[FrameGeometry, bool]]:
        return indexing.described(await series_of.metadata(self._transport, *self._path))

    async def _described(self, frame: IndexedFrame) -> tuple[FrameGeometry, bool]:
        if frame.geometry is not None:
            return frame.geometry, frame.floating
        assert self._descriptions is not None
        found = (await asyncio.shield(self._descriptions)).get(frame.instance)
        if found is None:
            raise AnswerError(self._transport.url(*self._path), f"no metadata of instance {frame.instance}")
        return found
