"""The frames of a series into arrays on disk, and what is needed to go on with them in another run.

Beside `frames.npy` lies `frames.npy.json`, which says which frame is which; `frames-2.npy` holds frames of another
shape. While some are still missing all names end in `.partial`, and the JSON is a log with a line for each frame that
is on disk. When all have been asked for and some cannot be had, the names are `frames.incomplete.npy`, …: nobody shall
take the place of a missing frame for an image.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from pacs.client import frames, held, previews
from pacs.client import index as indexing
from pacs.client import series as series_of
from pacs.client.ahead import in_order
from pacs.client.fetch_log import Log, logged, plan_of
from pacs.client.held import HeldCodestream
from pacs.client.index import IndexedFrame, SeriesIndex
from pacs.client.rungs import LOSSLESS, Rung
from pacs.client.saving import PARTIAL, open_alone
from pacs.client.transport import Transport
from pacs.client.volumes import NpyVolume, Volume, ZarrVolume, remove
from pacs.errors import (
    AnswerError,
    PacsError,
    RemoteChangedError,
    RemoteError,
    UnreachableError,
)
from pacs.geometry import FrameGeometry

_READABLE: Final = Rung("quality", 45)
_INCOMPLETE: Final = ".incomplete"
_FORMS: Final[Mapping[str, type[NpyVolume] | type[ZarrVolume]]] = {"npy": NpyVolume, "zarr": ZarrVolume}


class Image(NamedTuple):
    """A frame as it is written."""

    rung: str
    array: held.Samples


class Counts(Protocol):
    """What is told about progress."""

    fetched: int
    already: int
    expected: int
    notes: list[str]

    def fail(self, what: str, error: PacsError) -> None: ...


class SeriesArrays:
    """Frames of one series on their way into arrays: one for all those of one shape and type."""

    def __init__(
        self, transport: Transport, index: SeriesIndex, chosen: Sequence[IndexedFrame], folder: Path, stem: str, *,
        form: str, until: str, jobs: int,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._index = index
        self._frames = chosen
        self._folder = folder
        self._kind = _FORMS[form]
        self._jobs = jobs
        self._base = transport.url(*series_of.segments(index.study, index.series)) + "/"
        self._until = until
        self._rung = _READABLE if until == "readable" and index.progressive else LOSSLESS
        """What is wanted of frames that can be had so; for previews it is chosen by what they cost."""
        self._stem = stem + ("" if until == "lossless" else f".{until}")
        self._descriptions: Mapping[str, tuple[FrameGeometry, bool]] = {}
        self._places: list[tuple[int, int]] = []
        """(array, number in it) of each frame."""
        self._shapes: list[tuple[tuple[int, ...], np.dtype[Any]]] = []
        """Of one frame of each array."""
        self._counts: list[int] = []
        """Frames of each array."""
        self._rungs: dict[int, str] = {}
        """What the frames on disk are, by position in `_frames`."""
        self._errors: dict[int, str] = {}
        """Why others cannot be had."""

    async def fetch(self, progress: Counts) -> None:
        """Bring all frames to disk. What fails is told to `progress`; what it has already is not asked for again."""
        if self._until == "preview" and self._index.progressive:
            self._rung = await previews.cheapest(self._transport, self._base, self._frames)
        elif self._rung is LOSSLESS and self._until != "lossless":
            progress.notes.append("the server knows no rungs: every frame was fetched whole")
        if any(frame.geometry is None for frame in self._frames):
            path = series_of.segments(self._index.study, self._index.series)
            self._descriptions = indexing.described(await series_of.metadata(self._transport, *path))
        known = [position for position in range(len(self._frames)) if self._place(position, progress)]
        if not known:
            return
        plan = self._digest()
        final, paths = self._names()
        if plan_of(final) == plan and all(path.exists() for path in paths):
            progress.already += len(known)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        log = final.with_name(final.name + PARTIAL)
        with open_alone(log):
            await self._go_on(progress, plan, log, paths)

    async def _go_on(self, progress: Counts, plan: str, log: Path, paths: list[Path]) -> None:
        """Bring what is missing, alone at these files."""
        self._take_up(log, plan, paths)
        resume = plan_of(log) == plan and all(self._kind.there(path) for path in paths)
        self._rungs = logged(log) if resume else {}
        progress.already += len(self._rungs)
        volumes = self._open(paths, resume=resume)
        try:
            with Log(log, plan, volumes, resume=resume) as written:
                await self._receive(progress, volumes, written)
                written.sync()
            if self._rungs:
                self._finish(log, plan, volumes)
        finally:
            for volume in volumes:
                volume.close()

    def _place(self, position: int, progress: Counts) -> bool:
        """Give a frame its place in an array; False when nothing says what it looks like."""
        frame = self._frames[position]
        found = self._describe(frame)
        if found is None:
            return self._unplaced(position, progress, "no metadata describes it")
        geometry, floating = found
        level = self._wanted(frame).level(frame.sizes)
        bits = max(8, geometry.bits_allocated)
        kind = "float" if floating else "int" if geometry.signed else "uint"
        try:
            dtype: np.dtype[Any] = np.dtype(f"{kind}{bits}")
        except TypeError:
            return self._unplaced(position, progress, f"samples of {bits} bits")
        several = (geometry.samples_per_pixel,) if geometry.samples_per_pixel > 1 else ()
        shape = ((*frame.sizes[level], *several), dtype)
        if shape not in self._shapes:
            self._shapes.append(shape)
            self._counts.append(0)
        array = self._shapes.index(shape)
        self._places.append((array, self._counts[array]))
        self._counts[array] += 1
        return True

    def _unplaced(self, position: int, progress: Counts, why: str) -> bool:
        self._places.append((-1, -1))
        self._fail(position, progress, AnswerError(self._base, why))
        return False

    def _fail(self, position: int, progress: Counts, error: PacsError) -> None:
        self._errors[position] = f"{error.message} [{error.code}]"
        name, (array, number) = _name(self._frames[position]), self._places[position]
        if array >= 0:
            name += f" (index {number} of {self._names(complete=False)[1][array].name})"
        progress.fail(name, error)

    def _describe(self, frame: IndexedFrame) -> tuple[FrameGeometry, bool] | None:
        if frame.geometry is not None:
            return frame.geometry, frame.floating
        return self._descriptions.get(frame.instance)

    def _digest(self) -> str:
        """Names the frames, their bytes and their places: another run goes on only with the same."""
        digest = hashlib.blake2b(f"{self._kind.suffix} {self._rung.name}".encode(), digest_size=16)
        for frame, place in zip(self._frames, self._places, strict=True):
            digest.update(json.dumps([*frame.key, *place]).encode())
        return digest.hexdigest()

    def _names(self, *, complete: bool = True) -> tuple[Path, list[Path]]:
        """Of the description, and of each array."""
        suffix = ("" if complete else _INCOMPLETE) + self._kind.suffix
        numbered = ("" if number == 0 else f"-{number + 1}" for number in range(len(self._shapes)))
        description = self._folder / f"{self._stem}{suffix}.json"
        return description, [self._folder / f"{self._stem}{text}{suffix}" for text in numbered]

    def _take_up(self, log: Path, plan: str, paths: list[Path]) -> None:
        """Go on with arrays that an earlier run finished without some of their frames."""
        description, incomplete = self._names(complete=False)
        if plan_of(description) != plan or not all(path.exists() for path in incomplete):
            return
        there = json.loads(description.read_text(encoding="utf-8"))["frames"]
        for path, source in zip(paths, incomplete, strict=True):
            self._kind.take_up(path, source)
        # The log last: without it everything is fetched again.
        lines = [{"plan": plan}, *([n, entry["rung"]] for n, entry in enumerate(there) if entry["rung"])]
        log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        description.unlink()

    def _open(self, paths: list[Path], *, resume: bool) -> list[Volume]:
        volumes: list[Volume] = []
        for path, count, (shape, dtype) in zip(paths, self._counts, self._shapes, strict=True):
            volumes.append(self._kind(path, (count, *shape), dtype, resume=resume))
        return volumes

    async def _receive(self, progress: Counts, volumes: list[Volume], log: Log) -> None:
        missing = [
            position for position, place in enumerate(self._places) if place[0] >= 0 and position not in self._rungs
        ]
        progress.expected += sum(self._bytes(self._frames[position]) for position in missing)
        calls: list[Callable[[], Any]] = [partial(self._one, position) for position in missing]
        async for position, found in in_order(calls, self._jobs):
            array, number = self._places[position]
            if not isinstance(found, PacsError) and (found.array.shape, found.array.dtype) != self._shapes[array]:
                found = AnswerError(self._base, f"it is {found.array.dtype}{found.array.shape}")
            if isinstance(found, PacsError):
                self._fail(position, progress, found)
                continue
            await asyncio.to_thread(volumes[array].write, number, found.array)
            self._rungs[position] = found.rung
            progress.fetched += 1
            await asyncio.to_thread(log.add, position, found.rung)

    def _bytes(self, frame: IndexedFrame) -> int:
        return frame.ends[self._wanted(frame).level(frame.sizes)] if frame.ends else 0

    async def _one(self, position: int) -> tuple[int, Image | PacsError]:
        """A frame, or why it cannot be had. Raises UnreachableError. A damaged one is asked for twice."""
        for attempt in range(2):
            try:
                return position, await self._image(self._frames[position])
            except UnreachableError:
                raise
            except (AnswerError, RemoteChangedError) as error:
                if attempt:
                    return position, error
            except PacsError as error:
                return position, error
        raise AssertionError("unreachable")

    async def _image(self, frame: IndexedFrame) -> Image:
        described = self._describe(frame)
        assert described is not None
        lossy = None
        wanted = self._wanted(frame)
        if wanted.kind == "quality":
            try:
                found = await frames.alone(self._transport, self._base, frame, wanted)
                same = found.transfer_syntax == frame.transfer_syntax and len(found.data) == frame.length
                lossy = None if same else wanted
            except RemoteError as error:
                if error.status not in series_of.NO_SUCH_RESOURCE:
                    raise
                found = await frames.whole(self._transport, self._base, frame)
        elif frame.length is None:
            found = await frames.whole(self._transport, self._base, frame)
        else:
            holding = HeldCodestream(frame, frame.transfer_syntax, frame.length)
            level = wanted.level(frame.sizes)
            await frames.prefix(self._transport, self._base, holding, frame.ends[level])
            return await asyncio.to_thread(_decoded, holding, *described)
        holding = HeldCodestream(frame, found.transfer_syntax, len(found.data), lossy)
        holding.add(0, found.data)
        return await asyncio.to_thread(_decoded, holding, *described)

    def _wanted(self, frame: IndexedFrame) -> Rung:
        """What is asked for of a frame."""
        if self._rung == previews.SMALL and not previews.has_levels(frame):
            return previews.FULL_SIZE
        return self._rung

    def _finish(self, log: Path, plan: str, volumes: list[Volume]) -> None:
        """Give everything its name, the description last: while it is not there nothing is finished."""
        complete = len(self._rungs) == len(self._frames)
        final, paths = self._names(complete=complete)
        final.unlink(missing_ok=True)
        entries = [self._entry(position, paths) for position in range(len(self._frames))]
        for volume, path in zip(volumes, paths, strict=True):
            own = [entry for entry in entries if entry["array"] == path.name]
            missing = [entry["index"] for entry in own if not entry["rung"]]
            for number in missing:
                volume.blank(number)
            volume.finish(
                path,
                {
                    "study": self._index.study,
                    "series": self._index.series,
                    "sop-instance-uids": [entry["instance"] for entry in own],
                    "frame-numbers": [entry["frame"] for entry in own],
                    "rungs": sorted({str(entry["rung"]) for entry in own if entry["rung"]}),
                }
                | ({"missing": missing} if missing else {}),
            )
        about = {
            "study": self._index.study, "series": self._index.series, "plan": plan, "complete": complete,
            "frames": entries,
        }  # fmt: skip
        whole = final.with_name(final.name + ".new")
        whole.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        whole.replace(final)
        log.unlink(missing_ok=True)
        if complete:
            # Those of a series that has changed since.
            description, arrays = self._names(complete=False)
            for path in (description, *arrays):
                remove(path)

    def _entry(self, position: int, paths: list[Path]) -> dict[str, Any]:
        """What the description says of a frame."""
        frame, (array, number), rung = self._frames[position], self._places[position], self._rungs.get(position)
        entry = {
            "instance": frame.instance, "frame": frame.frame, "array": paths[array].name if array >= 0 else None,
            "index": number if array >= 0 else None, "rung": rung,
        }  # fmt: skip
        return entry if rung else {**entry, "error": self._errors.get(position, "it was not asked for")}


def _decoded(holding: HeldCodestream, geometry: FrameGeometry, floating: bool) -> Image:
    step = holding.sharpest()
    if step is None:
        raise AnswerError(holding.frame.path, f"{holding.received} bytes of it are no image")
    return Image(step.rung, held.decode(holding, step, holding.snapshot(step), geometry, floating=floating))


def _name(frame: IndexedFrame) -> str:
    return f"{frame.instance}, frame {frame.frame}"
