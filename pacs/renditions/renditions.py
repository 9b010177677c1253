"""Frames and files in another form than the stored one: each is made once for all who ask meanwhile, and kept.

`available` says which there are. They are kept in memory, and on disk for all workers (`storage.disposable`). A key
names the received file by its SHA-256, so that nothing of another instance, or of other content under the same UID,
can ever be found by it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import Final

from pacs import codestream, progression, reading, rewriting, transcode, uids
from pacs.errors import CodestreamError, UnsupportedTransferSyntaxError
from pacs.reading import Committed, Frame
from pacs.renditions import available
from pacs.renditions.made import Made, Recent
from pacs.rewriting import Rewritten
from pacs.storage import layout
from pacs.storage.checksum import crc32c
from pacs.storage.disposable import DisposableFiles
from pacs.storage.index import Index
from pacs.storage.model import Buffer, Encoding, InstanceEntry
from pacs.transcode import Rendition

_REVISION: Final = 7
"""To be raised when this program makes other bytes of the same frame than before."""

_WORTH_KEEPING: Final = 0.05
"""Seconds of decoding."""


@lru_cache(maxsize=1)
def made_by() -> str:
    """Tells results of different versions of the codecs apart: validators and keys contain it."""
    named = f"{_REVISION} {metadata.version('imagecodecs')} {metadata.version('pydicom')}"
    return hashlib.blake2b(named.encode(), digest_size=3).hexdigest()


class Renditions:
    """Makes frames in other forms. Every method may be called from any thread; `memory` and `disk` are in bytes."""

    def __init__(self, root: Path, index: Index, memory: int = 0, disk: int = 0) -> None:
        self._root = root
        self._index = index
        self._memory = Recent(memory)
        self._disk = DisposableFiles(str(root / layout.RENDITIONS), disk)
        self._running: dict[str, Future[Made]] = {}
        self._lock = threading.Lock()
        self.made = 0
        """Frames that were computed, not found."""
        self.memory_hits = self.memory_misses = self.disk_hits = self.disk_misses = 0
        """For metrics: two threads that count at once may lose one."""

    def direct(self, frame: Frame, rendition: Rendition) -> bool:
        """Whether the bytes to send are those on disk: no need to make or keep anything.

        JPEG 2000 as it came is looked at first: it may have to be re-ordered to stream.
        """
        as_stored = rendition.kind in ("stored", "relabelled")
        return as_stored and (bool(frame.level_ends) or frame.transfer_syntax not in available.J2K)

    def recent(self, frame: Frame, rendition: Rendition, quality: float | None = None) -> Made | None:
        """The frame if it is in memory."""
        return self._recent(key_of(frame, rendition, quality))

    def recent_layers(self, frame: Frame) -> Made | None:
        """The frame with quality layers if it is in memory."""
        return self._recent(layers_key(frame))

    def _recent(self, key: str) -> Made | None:
        found = self._memory.get(key)
        self.memory_hits += found is not None
        return found

    def frame(
        self, frame: Frame, rendition: Rendition, quality: float | None = None, *, remember: bool = True
    ) -> Made:
        """The frame in the form `rendition`: from memory, from disk, or made now, once for all who ask meanwhile.

        `remember` False leaves the memory to others: a download passes each frame once. Raises PixelError,
        UnsupportedTransferSyntaxError, ChecksumError.
        """
        # Decoding most frames anew costs about what reading the larger result does.
        busy = available.seconds(frame.entry, rendition.transfer_syntax)
        kept = rendition.kind == "encoded" or (rendition.kind == "native" and busy > _WORTH_KEEPING)
        make = partial(self._make, frame, rendition, quality)
        return self._shared(frame, key_of(frame, rendition, quality), make, kept, remember)

    def layered(self, frame: Frame) -> Made:
        """The frame as JPEG 2000 Part 1 with quality layers, the last one lossless; `level_ends` are the layers'.

        Raises as `frame`.
        """

        def make() -> Made:
            layers = reading.layered_frame(self._root, frame)
            return Made(layers.codestream, layers.layer_ends, crc32c(layers.codestream))

        return self._shared(frame, layers_key(frame), make, kept=True, remember=True)

    def _shared(self, frame: Frame, key: str, make: Callable[[], Made], kept: bool, remember: bool) -> Made:
        found = self._memory.get(key)
        if found is not None:
            return found
        with self._lock:
            running = self._running.get(key)
            found = self._memory.get(key)
            if found is not None:
                return found
            if running is None:
                mine: Future[Made] = Future()
                self._running[key] = mine
        if running is not None:
            return running.result()
        try:
            made = self._found_or_made(frame.entry.descriptor.sha256, key, make, kept)
            if remember:
                self._memory.put(key, made)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(made)
            return made
        finally:
            with self._lock:
                del self._running[key]

    def _found_or_made(self, group: bytes, key: str, make: Callable[[], Made], kept: bool) -> Made:
        self.memory_misses += 1
        packed = self._disk.get(group, key) if kept else None
        if packed is not None:
            self.disk_hits += 1
            return Made.unpacked(packed)
        self.disk_misses += kept
        if not kept:
            self.made += 1
            return make()
        # Another worker may be at it.
        with self._disk.alone(group, key):
            packed = self._disk.get(group, key)
            if packed is not None:
                return Made.unpacked(packed)
            made = make()
            self.made += 1
            self._disk.put(group, key, made.packed())
            return made

    def _make(self, frame: Frame, rendition: Rendition, quality: float | None) -> Made:
        if rendition.kind == "native":
            data: Buffer = reading.native_frame(self._root, frame, Committed(self._root, self._index, frame.entry))
            return Made(data, (), crc32c(data))
        if rendition.kind == "encoded":
            if (frame.transfer_syntax, rendition.transfer_syntax) == (uids.HTJ2K_LOSSLESS, uids.HTJ2K_LOSSLESS_RPCL):
                moved = rendition.geometry and transcode.as_rpcl(
                    reading.stored_frame(self._root, frame), rendition.geometry
                )
                if moved:
                    return _made(moved)
            return _made(reading.encoded_frame(self._root, frame, rendition, quality))
        return _made(bytes(_streamed(reading.stored_frame(self._root, frame))))

    def instance(self, entry: InstanceEntry, transfer_syntax: str, quality: float | None = None) -> Rewritten:
        """The instance as a file in one of the Transfer Syntaxes of `available.of_instance`.

        Explicit VR little endian is the received file where that is so already; for the file as it was received in
        any other Transfer Syntax there is `export`. Raises UnsupportedTransferSyntaxError or PixelError, before the
        first piece, when it cannot be made.
        """
        source = Committed(self._root, self._index, entry)
        return rewriting.rewrite(source, transfer_syntax, self._frames(entry, transfer_syntax, quality))

    def _frames(self, entry: InstanceEntry, transfer_syntax: str, quality: float | None) -> rewriting.Frames | None:
        descriptor = entry.descriptor
        key, geometry = descriptor.array_key, descriptor.geometry
        if available.refers_elsewhere(descriptor.transfer_syntax):
            raise UnsupportedTransferSyntaxError(f"the pixel data of instance {descriptor.instance} is elsewhere")
        native = transfer_syntax in rewriting.NATIVE
        if key is None or (native and key.encoding is not Encoding.ENCAPSULATED):
            return None
        if geometry is None:
            raise UnsupportedTransferSyntaxError(f"instance {descriptor.instance} does not describe its pixel data")
        count = max(1, geometry.frames)
        if reading.frame_count(entry) != count:
            raise UnsupportedTransferSyntaxError(
                f"the {geometry.frames} frames of instance {descriptor.instance} cannot be told apart in its "
                f"{entry.chunks} fragments"
            )
        wanted = uids.EXPLICIT_VR_LITTLE_ENDIAN if native else transfer_syntax
        stored = available.stored(entry)
        rendition = None if quality is None else available.irreversible(stored, wanted)
        if rendition is None:
            rendition = next((one for one in available.of_frames(stored) if one.transfer_syntax == wanted), None)
        if rendition is None:
            name = uids.transfer_syntax(transfer_syntax).name
            raise UnsupportedTransferSyntaxError(f"instance {descriptor.instance} cannot be sent in {name}")
        as_stored = rendition.kind in ("stored", "relabelled")

        def make(number: int) -> Buffer:
            with self._index.read() as view:
                frame = reading.locate_frame(view, entry, number)
            if as_stored:
                return reading.stored_frame(self._root, frame)
            return self.frame(frame, rendition, quality, remember=False).data

        lengths = reading.chunk_lengths(self._index, entry) if as_stored else None
        mark = f"{'' if quality is None else f'{quality:g}'} {made_by()}"
        return rewriting.Frames(rendition, count, make, lengths, mark)

    def forget(self, entry: InstanceEntry) -> None:
        """Drop what was made of an instance: it is to be deleted."""
        self._memory.forget(entry.descriptor.sha256.hex())
        self._disk.forget(entry.descriptor.sha256)


def key_of(frame: Frame, rendition: Rendition, quality: float | None) -> str:
    """Names what is made of a frame, and of no other frame. It begins with the SHA-256 of the received file."""
    chosen = "" if rendition.lossless or quality is None else f" {quality:g}"
    return (
        f"{frame.entry.descriptor.sha256.hex()} {frame.number} {frame.etag} {rendition.kind} "
        f"{rendition.transfer_syntax}{chosen} {made_by()}"
    )


def layers_key(frame: Frame) -> str:
    """The same of the frame with quality layers."""
    return f"{frame.entry.descriptor.sha256.hex()} {frame.number} {frame.etag} layers {made_by()}"


def _made(data: Buffer) -> Made:
    return Made(data, _level_ends(data), crc32c(data))


def _level_ends(data: Buffer) -> tuple[int, ...]:
    if bytes(data[:2]) != b"\xff\x4f":
        return ()
    try:
        return codestream.parse(data).level_ends
    except CodestreamError:
        return ()


def _streamed(data: Buffer) -> Buffer:
    """A JPEG 2000 frame that came from elsewhere, with each resolution level a prefix of it.

    One whose packets cannot be followed goes out as it is: a decoder may know better.
    """
    try:
        if bytes(data[:2]) == b"\xff\x4f" and codestream.parse(data).level_ends:
            return data
        return progression.reorder(data)
    except CodestreamError:
        return data
