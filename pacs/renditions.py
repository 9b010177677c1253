"""Frames in another form than the stored one: which there are, and making each once for all who ask.

What was made is kept in memory, and on disk for all workers (`storage.disposable`). A key names the received file by
its SHA-256, so that nothing of another instance, or of other content under the same UID, can ever be found by it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

from pacs import codestream, progression, reading, rewriting, tags, transcode, uids
from pacs.errors import CodestreamError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry
from pacs.made import Made, Recent
from pacs.reading import Committed, Frame
from pacs.rewriting import Rewritten
from pacs.storage import layout
from pacs.storage.checksum import crc32c
from pacs.storage.disposable import DisposableFiles
from pacs.storage.index import Index
from pacs.storage.model import Buffer, Encoding, InstanceEntry
from pacs.transcode import Rendition

_REVISION: Final = 7
"""To be raised when this program makes other bytes of the same frame than before."""

J2K: Final = frozenset(
    uid for uid, row in uids.TRANSFER_SYNTAXES.items() if row.media_type in ("image/jp2", "image/jpx", "image/jphc")
)

_DECODING: Final = {"image/jp2": 105.0, "image/jpx": 105.0, "image/jphc": 6.0, "image/jxl": 60.0, "image/jls": 18.0}
_ENCODING: Final = {"image/jp2": 250.0, "image/jphc": 10.0, "image/jxl": 200.0, "image/jls": 20.0}
_WORTH_KEEPING: Final = 0.05
"""Seconds of decoding."""
_OTHERS: Final = 8.0
"""Nanoseconds that a sample takes, by the media type of the Transfer Syntax: what matters is which lane to choose."""


def made_by() -> str:
    """Tells results of different versions of the codecs apart: validators and keys contain it."""
    return _made_by()


@lru_cache(maxsize=1)
def _made_by() -> str:
    named = f"{_REVISION} {metadata.version('imagecodecs')} {metadata.version('pydicom')}"
    return hashlib.blake2b(named.encode(), digest_size=3).hexdigest()


# --- what there is ------------------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """What decides on the forms that the frames of an instance can take: many instances share it."""

    transfer_syntax: str
    """Of the stored frames; explicit VR little endian of native ones."""
    geometry: FrameGeometry | None
    floating: bool
    """Float or Double Float Pixel Data."""
    received: bool
    """Whether the frames are as they came, in the words of `transcode.plan`."""
    exact: bool = False
    """Whether the samples are labels or measurements, of which nothing lossy is made."""


_EXACT: Final = tuple(
    f'"1.2.840.10008.5.1.4.1.1.{end}"'.encode()
    for end in (
        "66.4",  # Segmentation
        "66.7",  # Label Map Segmentation
        "66.8",  # Height Map Segmentation
        "30",  # Parametric Map
        "481.2",  # RT Dose
    )
)
"""SOP Classes whose samples are no picture: a label that is one off names another organ. PS3.3 A.51, A.75, A.18"""


@lru_cache(maxsize=256)
def _exact(sop_class: bytes) -> bool:
    return any(uid in sop_class for uid in _EXACT)


def stored(entry: InstanceEntry) -> Stored:
    """How the frames of the instance are stored."""
    descriptor = entry.descriptor
    key = descriptor.array_key
    syntax, received = descriptor.transfer_syntax, True
    if key is None or (key.encoding is Encoding.NATIVE and uids.transfer_syntax(syntax).known):
        syntax = uids.EXPLICIT_VR_LITTLE_ENDIAN
    elif key.encoding is Encoding.HTJ2K:
        syntax, received = uids.HTJ2K_LOSSLESS_RPCL, False
    exact = _exact(entry.attributes.get(tags.SOP_CLASS_UID, b""))
    return Stored(syntax, descriptor.geometry, descriptor.pixel_tag != tags.PIXEL_DATA, received, exact)


@lru_cache(maxsize=1024)
def of_frames(of: Stored) -> tuple[Rendition, ...]:
    """Everything that such a frame can be sent as, the stored form first, lossless before lossy."""
    return transcode.renditions(
        of.transfer_syntax, of.geometry, floating=of.floating, received=of.received, exact=of.exact
    )


@lru_cache(maxsize=1024)
def irreversible(of: Stored, transfer_syntax: str) -> Rendition | None:
    """What such a frame becomes where a quality is asked for; None for a Transfer Syntax of lossless frames alone."""
    planned = transcode.plan(
        of.transfer_syntax, of.geometry, transfer_syntax, floating=of.floating, received=of.received, lossy=True,
        exact=of.exact,
    )  # fmt: skip
    return planned if planned is not None and not planned.lossless else None


@lru_cache(maxsize=1024)
def layers(of: Stored) -> bool:
    """Whether such a frame can be had with quality layers, of which all but the last are lossy."""
    lossless = any(one.transfer_syntax == uids.JPEG_2000_LOSSLESS for one in of_frames(of))
    return lossless and irreversible(of, uids.JPEG_2000) is not None


def of_instance(entry: InstanceEntry) -> tuple[str, ...]:
    """The Transfer Syntaxes that the instance can be sent in as a file: that of arrival first. (0008,3002)"""
    descriptor = entry.descriptor
    geometry = descriptor.geometry
    apart = geometry is not None and reading.frame_count(entry) == max(1, geometry.frames)
    found = _of_instance(descriptor.transfer_syntax, stored(entry), apart, bool(descriptor.pixel_tag))
    if descriptor.overlay_in_samples:
        return tuple(uid for uid in found if uid == descriptor.transfer_syntax or uid in rewriting.NATIVE)
    return found


@lru_cache(maxsize=1024)
def _of_instance(arrival: str, of: Stored, apart: bool, pixels: bool) -> tuple[str, ...]:
    found = {arrival: None}
    if _elsewhere(arrival):
        return (arrival,)
    planned = of_frames(of) if apart else ()
    native = not pixels or not uids.transfer_syntax(of.transfer_syntax).encapsulated
    if native or not of.received or any(one.kind == "native" for one in planned):
        found.update(dict.fromkeys(rewriting.NATIVE))
    if pixels and not of.floating:
        syntaxes = (one.transfer_syntax for one in planned)
        found.update((syntax, None) for syntax in syntaxes if uids.transfer_syntax(syntax).encapsulated)
    return tuple(found)


def _elsewhere(arrival: str) -> bool:
    """Whether files in this Transfer Syntax refer to pixel data that they do not hold (JPIP, real-time video)."""
    row = uids.transfer_syntax(arrival)
    plain = (*rewriting.NATIVE, uids.EXPLICIT_VR_BIG_ENDIAN)
    return row.known and not row.encapsulated and arrival not in plain and not row.implicit


def seconds(entry: InstanceEntry, transfer_syntax: str) -> float:
    """About how long a core is busy with one frame of the instance until it is in `transfer_syntax`."""
    geometry = entry.descriptor.geometry
    source = stored(entry).transfer_syntax
    if geometry is None or source == transfer_syntax:
        return 0.0
    samples = geometry.rows * geometry.columns * geometry.samples_per_pixel
    decoding = _DECODING.get(uids.transfer_syntax(source).media_type, _OTHERS)
    encoding = _ENCODING.get(uids.transfer_syntax(transfer_syntax).media_type, _OTHERS)
    return samples * (decoding + encoding) * 1e-9


# --- making and keeping -------------------------------------------------------------------------------------------


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
        return as_stored and (bool(frame.level_ends) or frame.transfer_syntax not in J2K)

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
        busy = seconds(frame.entry, rendition.transfer_syntax)
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
        """The instance as a file in one of the Transfer Syntaxes of `of_instance`.

        Explicit VR little endian is the received file where that is so already; for the file as it was received in
        any other Transfer Syntax there is `export`. Raises UnsupportedTransferSyntaxError or PixelError, before the
        first piece, when it cannot be made.
        """
        source = Committed(self._root, self._index, entry)
        return rewriting.rewrite(source, transfer_syntax, self._frames(entry, transfer_syntax, quality))

    def _frames(self, entry: InstanceEntry, transfer_syntax: str, quality: float | None) -> rewriting.Frames | None:
        descriptor = entry.descriptor
        key, geometry = descriptor.array_key, descriptor.geometry
        if _elsewhere(descriptor.transfer_syntax):
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
        rendition = None if quality is None else irreversible(stored(entry), wanted)
        if rendition is None:
            rendition = next((one for one in of_frames(stored(entry)) if one.transfer_syntax == wanted), None)
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
