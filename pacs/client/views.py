"""Images of the frames of a series, each shown again only when it has become sharper."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from pacs.client import index as indexing
from pacs.client import series as series_of
from pacs.client.frames import StoredFrame
from pacs.client.held import HeldCodestream, Samples, Step, decode, provisional_geometry
from pacs.client.index import IndexedFrame, SeriesIndex
from pacs.client.rungs import FINAL, Rank, Rung
from pacs.client.transport import Transport
from pacs.client.upscaling import upscaled
from pacs.errors import AnswerError, PacsError, PixelError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry

_UNDECODABLE = (PixelError, UnsupportedTransferSyntaxError, AnswerError)
_NOTHING: Rank = (-1, 0)


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
    """What the array shows: `level=2` (a resolution level, 0 the coarsest), `layer=3` (full size, so many quality
    layers), `quality=45` (full size, PSNR in dB), `lossless`."""
    array: Samples
    """(rows, columns[, samples]) of that rung, or of the whole frame with `upscale`. Its type is the Data Set's, until
    metadata has come and the frame is not final the codestream's: they differ only where the two contradict."""
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
        self._held: dict[int, dict[tuple[str, int], HeldCodestream]] = {}
        """By position, then by Transfer Syntax and length."""
        self._shown: dict[tuple[str, int], Rank] = {}
        """The sharpest image shown of (instance, frame)."""
        self._descriptions: asyncio.Task[Mapping[str, tuple[FrameGeometry, bool]]] | None = None

    async def close(self) -> None:
        if self._descriptions is not None:
            self._descriptions.cancel()
            with suppress(asyncio.CancelledError, PacsError):
                await self._descriptions
            self._descriptions = None

    async def take(self, index: SeriesIndex) -> None:
        """Go on with another index: frames that are in both keep what is here of them."""
        positions = {frame.key: position for position, frame in enumerate(index.frames)}
        before, self._held = self._held, {}
        for position, frame in enumerate(self.index.frames):
            now = positions.get(frame.key)
            if now is None:
                self._shown.pop((frame.instance, frame.frame), None)
            elif position in before:
                self._held[now] = before[position]
        self.index = index
        self.failed.clear()
        await self.close()
        if any(frame.geometry is None for frame in index.frames):
            self._descriptions = asyncio.create_task(self._describe())

    def hold(
        self, position: int, transfer_syntax: str, length: int, lossy: Rung | None = None
    ) -> HeldCodestream:
        """The bytes of a codestream of a frame, which is counted from 0 in reading order."""
        of_frame = self._held.setdefault(position, {})
        held = of_frame.get((transfer_syntax, length))
        if held is None:
            held = HeldCodestream(self.index.frames[position], transfer_syntax, length, lossy)
            of_frame[transfer_syntax, length] = held
        return held

    def drop(self, position: int, held: HeldCodestream) -> None:
        """Forget the bytes of a codestream that others do not fit to; what was shown of them stays."""
        held.data = bytearray()
        self._held.get(position, {}).pop((held.transfer_syntax, held.length), None)

    def lacks(self, position: int, wanted: Rung, *, last: bool) -> bool:
        """Whether a frame has not been shown at a rung, and may be; `last`: nothing but this rung will show it."""
        frame = self.index.frames[position]
        shown = self._shown.get((frame.instance, frame.frame), _NOTHING)
        if position in self.failed:
            return False
        if wanted.kind in ("level", "pixels") and len(frame.sizes) == 1:
            return last and shown == _NOTHING
        return shown < wanted.rank(frame.sizes)

    def done(self, position: int) -> bool:
        """Whether a frame was shown as it is."""
        frame = self.index.frames[position]
        return self._shown.get((frame.instance, frame.frame)) == FINAL

    async def sharper(self, position: int, held: HeldCodestream) -> FrameView | None:
        """The image that the bytes held of a frame are, if it is sharper than what was shown."""
        frame = held.frame
        key = (frame.instance, frame.frame)
        step = held.sharpest()
        if step is None or step.rank <= self._shown.get(key, _NOTHING):
            self._forget(position, held, step)
            return None
        data = held.snapshot(step)
        try:
            geometry, floating = await self._described(frame, None if step.final else (data, held.transfer_syntax))
            array = await asyncio.to_thread(self._decode, held, step, data, geometry, floating)
        except _UNDECODABLE as error:
            if step.final:
                self.failed[position] = error
                held.data = bytearray()
            return None
        self._shown[key] = step.rank
        self._forget(position, held, step)
        return FrameView(
            position + 1, len(self.index.frames), frame.instance, frame.frame, step.rung, array, step.final,
            frame.rows, frame.columns,
        )  # fmt: skip

    async def complete(self, position: int, found: StoredFrame, lossy: Rung | None) -> FrameView | None:
        """The image of a whole codestream: a `lossy` rung, or the frame itself."""
        held = HeldCodestream(self.index.frames[position], found.transfer_syntax, len(found.data), lossy)
        held.add(0, found.data)
        return await self.sharper(position, held)

    def _decode(
        self, held: HeldCodestream, step: Step, data: bytes, geometry: FrameGeometry, floating: bool
    ) -> Samples:
        array = decode(held, step, data, geometry, floating=floating)
        return upscaled(array, held.frame.rows, held.frame.columns) if self._upscale else array

    def _forget(self, position: int, held: HeldCodestream, step: Step | None) -> None:
        """Drop bytes that nothing will be continued from."""
        frame = held.frame
        if self._shown.get((frame.instance, frame.frame)) == FINAL:
            self._held.pop(position, None)
        elif step is not None and step.end == held.length:
            self._held.get(position, {}).pop((held.transfer_syntax, held.length), None)

    async def _describe(self) -> Mapping[str, tuple[FrameGeometry, bool]]:
        return indexing.described(await series_of.metadata(self._transport, *self._path))

    async def _described(
        self, frame: IndexedFrame, provisional: tuple[bytes, str] | None
    ) -> tuple[FrameGeometry, bool]:
        """Image Pixel description, and whether the pixels are floating. A `provisional` image (its bytes and Transfer
        Syntax) does not wait for metadata."""
        if frame.geometry is not None:
            return frame.geometry, frame.floating
        assert self._descriptions is not None
        if provisional is not None and not self._descriptions.done():
            geometry = provisional_geometry(*provisional)
            if geometry is not None:
                return geometry, False
        found = (await asyncio.shield(self._descriptions)).get(frame.instance)
        if found is None:
            raise AnswerError(self._transport.url(*self._path), f"no metadata of instance {frame.instance}")
        return found
