"""The archive as one object with plain calls: store, find, read. It knows no HTTP and no event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from pacs import export, reading
from pacs.errors import IndexMismatchError, NotFoundError, StorageError
from pacs.measure import Observe
from pacs.reading import Committed, Frame
from pacs.renditions import Renditions
from pacs.storage.commit import Engine, room
from pacs.storage.commit.room import Room
from pacs.storage.files import records
from pacs.storage.files.kept_shards import KeptShards
from pacs.storage.index import ReadView
from pacs.storage.index.frame_rows import FrameRows
from pacs.storage.model import Buffer, Counters, InstanceEntry, SeriesEntry, StudyEntry
from pacs.storage.search import Page, Search, search, series_order
from pacs.storing import StoreResult, Storing

__all__ = ["Archive", "StoreResult"]


class Archive:
    """An open archive. Every method may be called from any thread; open it in the process that uses it.

    Raises NotFoundError, ArchiveLockedError, IndexMismatchError or FormatVersionError where it cannot be opened.
    """

    def __init__(self, root: Path, *, create: bool = False, threads: int = 0) -> None:
        self.root = root
        self._engine = Engine(root, create=create)
        self._storing = Storing(self._engine, threads)
        self._closed = False
        self._shards = KeptShards(root)
        self.find_chunk: Final = FrameRows(self._engine.index).find
        """Where the stored bytes of a frame lie, at the least cost: see `FrameRows.find`."""
        self.read_chunk_cached: Final = self._shards.read
        """Those bytes, without waiting for the disk: see `KeptShards.read`."""

    @classmethod
    def open(cls, path: Path | str, *, create: bool = False, threads: int = 0) -> Archive:
        return cls(Path(path), create=create, threads=threads)

    def close(self) -> None:
        """Finish what was submitted, then let go of the archive. Again: nothing."""
        if self._closed:
            return
        self._closed = True
        self._storing.close()
        self._engine.close()
        self._shards.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- watching over it

    def observe(self, observe: Observe) -> None:
        """Tell `observe` of every measure that is taken from here on."""
        self._storing.observe(observe)

    def when_index_lost(self, tell: Callable[[], None]) -> None:
        """Call `tell` once, from any thread, when this process can neither read nor store any more: LMDB could not
        write its meta page. Another process can open the archive, and finishes what was going on."""
        self._engine.when_index_lost(tell)

    def waiting(self) -> tuple[int, int]:
        """Instances submitted that no thread has taken up, instances proven that no commit has taken up."""
        return self._storing.waiting

    def room(self) -> Room:
        """Free disk and use of the index. Raises OSError."""
        return room.room(self.root, self._engine.index)

    def check_index(self) -> None:
        """Raises IndexMismatchError when the index was deleted or replaced, PacsError when it cannot be read."""
        if not self._engine.index.in_place:
            raise IndexMismatchError("the index was deleted or replaced under the running server")
        self.counters()

    def check_disk(self) -> None:
        """Write and sync something that leaves no trace. Raises StorageError when nothing can be stored."""
        if self._engine.refusal is not None:
            raise self._engine.refusal
        try:
            room.probe(self.root)
        except OSError as error:
            raise StorageError(f"the disk refuses: {error.strerror}") from None

    # --- store

    def submit(
        self, data: Buffer, *, study: str | None = None, release: Callable[[], None] | None = None
    ) -> Future[StoreResult]:
        """Store a Part 10 file; the result comes when it is durable or refused, and is never an exception.

        `data` must not change until then; `release` is called when it is no longer needed. `study` is the Study
        Instance UID that the file must have.
        """
        done: Future[StoreResult] = Future()
        done.set_running_or_notify_cancel()

        def finish(result: StoreResult) -> None:
            try:
                if release is not None:
                    release()
            finally:
                done.set_result(result)

        self.store_soon(data, finish, study=study)
        return done

    def store_soon(self, data: Buffer, finish: Callable[[StoreResult], None], *, study: str | None = None) -> None:
        """`submit` without a future: `finish` is called once, from another thread or before this returns."""
        self._storing.soon(data, finish, study)

    def store(self, data: Buffer, *, study: str | None = None) -> StoreResult:
        """Store a Part 10 file and wait until it is durable or refused."""
        return self.submit(data, study=study).result()

    def settle(self) -> None:
        """Bring shapes and shard indices of the Zarr arrays up to what is committed; else that waits for a pause."""
        self._engine.settle()

    # --- find

    def study(self, study: str) -> StudyEntry:
        """Raises NotFoundError."""
        with self._engine.index.read() as view:
            entry = view.study(study)
        if entry is None:
            raise NotFoundError(f"study {study} is not stored")
        return entry

    def series(self, study: str, series: str) -> SeriesEntry:
        """Raises NotFoundError."""
        with self._engine.index.read() as view:
            entry = view.series(study, series)
        if entry is None:
            raise NotFoundError(f"series {series} of study {study} is not stored")
        return entry

    def instance(self, study: str, series: str, instance: str) -> InstanceEntry:
        """Raises NotFoundError, also when the instance is stored in another study or series."""
        with self._engine.index.read() as view:
            return _member(view, study, series, instance)

    def series_of(self, study: str) -> list[SeriesEntry]:
        """By Series Number, then UID. Raises NotFoundError."""
        self.study(study)
        with self._engine.index.read() as view:
            return sorted(view.series_of(study), key=series_order)

    def instances_of(self, study: str, series: str) -> list[InstanceEntry]:
        """By Instance Number, then UID. Raises NotFoundError."""
        entry = self.series(study, series)
        with self._engine.index.read() as view:
            return list(view.instances_of(entry))

    def contents(self, study: str, series: str | None = None) -> tuple[int, list[InstanceEntry]]:
        """Sequence of the commit that changed a study, or a series of it, last, and its instances in the order of the
        two above: both as of one moment, so that the one names the other. Raises NotFoundError."""
        with self._engine.index.read() as view:
            if series is None:
                entry: StudyEntry | SeriesEntry | None = view.study(study)
                parts = sorted(view.series_of(study), key=series_order)
            else:
                entry = of_series = view.series(study, series)
                parts = [of_series] if of_series is not None else []
            if entry is None:
                raise NotFoundError(f"{f'series {series} of ' if series else ''}study {study} is not stored")
            return entry.sequence, [instance for part in parts for instance in view.instances_of(part)]

    def studies(self) -> Iterator[StudyEntry]:
        """All of them, newest first."""
        with self._engine.index.read() as view:
            yield from view.studies()

    def search(self, wanted: Search) -> Page:
        """PS3.18 10.6"""
        with self._engine.index.read() as view:
            return search(view, wanted)

    def counters(self) -> Counters:
        with self._engine.index.read() as view:
            return view.counters()

    def sequence(self) -> int:
        """Of the newest commit: what was read before is current as long as this stays."""
        return self.counters().sequence

    # --- read

    def metadata_json(self, entry: InstanceEntry) -> bytes:
        """The Data Set as DICOM JSON; `BulkDataURI`s read `bulkdata/<path>`, relative to the instance."""
        return bytes(records.read_part(self.root, entry, records.JSON))

    def metadata_jsons(self, entries: Iterable[InstanceEntry]) -> Iterator[bytes]:
        """`metadata_json` of many instances, cheapest when those of a series stand together."""
        return map(bytes, records.read_parts(self.root, entries, records.JSON))

    def frame(self, entry: InstanceEntry, number: int) -> Frame:
        """Locate frame `number`, counted from 1. Raises NotFoundError."""
        with self._engine.index.read() as view:
            return reading.locate_frame(view, entry, number)

    def located(self, study: str, series: str, instance: str, number: int) -> Frame:
        """`frame` of `instance`, looked up at once. Raises NotFoundError."""
        with self._engine.index.read() as view:
            return reading.locate_frame(view, _member(view, study, series, instance), number)

    def series_frames(self, study: str, series: str) -> Iterator[Frame]:
        """All frames of a series in reading order: by Instance Number, UID, frame number. Raises NotFoundError."""
        entry = self.series(study, series)
        with self._engine.index.read() as view:
            for instance in view.instances_of(entry):
                for number in range(1, reading.frame_count(instance) + 1):
                    yield reading.locate_frame(view, instance, number)

    def frame_count(self, entry: InstanceEntry) -> int:
        """Frames that `frame` can locate."""
        return reading.frame_count(entry)

    def read_frame(self, frame: Frame) -> bytes | memoryview:
        """The frame as stored, native ones in little endian. Raises ChecksumError."""
        return reading.stored_frame(self.root, frame)

    def read_frame_cached(self, frame: Frame) -> memoryview | None:
        """The same without waiting for the disk, or None where that takes a thread."""
        if len(frame.chunks) != 1 or reading.is_native(frame):
            return None
        return self._shards.read(frame.chunks[0])

    def let_go(self) -> None:
        """Close the files that the last two keep open: whoever calls them calls this about every second."""
        self._shards.let_go()

    def decode_frame(self, entry: InstanceEntry, number: int, levels_dropped: int = 0) -> npt.NDArray[np.generic]:
        """Samples of a frame, (rows, columns[, samples]), at full size or `levels_dropped` levels smaller."""
        return reading.samples(self.root, self.frame(entry, number), levels_dropped)

    def small_frame(self, frame: Frame, most_dropped: int) -> npt.NDArray[np.generic]:
        """Samples of a frame with up to `most_dropped` resolution levels left out, as far as it has any."""
        return reading.small_samples(self.root, frame, most_dropped)

    def native_frame(self, entry: InstanceEntry, number: int) -> bytes:
        """The frame as `application/octet-stream`: native, little endian. PS3.18 8.7.3.3.2"""
        return reading.native_frame(self.root, self.frame(entry, number), self._source(entry))

    def bulk(self, entry: InstanceEntry, path: str) -> Iterator[Buffer]:
        """The value that `bulkdata/<path>` names, little endian, in pieces. Raises NotFoundError."""
        return reading.bulk_value(self._source(entry), path)

    def part10(self, entry: InstanceEntry) -> Iterator[Buffer]:
        """The file as it was received, byte for byte, in pieces."""
        return export.rebuild(self._source(entry))

    def renditions(self, memory: int = 0, disk: int = 0) -> Renditions:
        """Frames and instances of this archive in other Transfer Syntaxes, with so many bytes of them kept."""
        return Renditions(self.root, self._engine.index, memory, disk)

    def _source(self, entry: InstanceEntry) -> Committed:
        return Committed(self.root, self._engine.index, entry)


def _member(view: ReadView, study: str, series: str, instance: str) -> InstanceEntry:
    """The instance, which has to be one of that series. Raises NotFoundError."""
    entry = view.instance(instance)
    if entry is None or entry.descriptor.study != study or entry.descriptor.series != series:
        raise NotFoundError(f"instance {instance} of series {series} of study {study} is not stored")
    return entry
