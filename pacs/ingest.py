"""From the bytes of a Part 10 file to an instance ready to be committed, proven to rebuild those bytes.

Everything here works on what a stranger sent. Bad input is refused with a PacsError; pixel data that cannot be
encoded and proven is kept as received.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import zstandard

from pacs import export, fragments, part10, pixels, tags, transcode, uids
from pacs.errors import CodestreamError, DicomError, PixelError, StudyMismatchError
from pacs.geometry import FrameGeometry
from pacs.part10 import Part10
from pacs.storage.checksum import crc32c
from pacs.storage.model import ArrayKey, Buffer, Chunk, Descriptor, Encoding, NewInstance, Part, Span, UnusedBits

_INDEX_TAGS = frozenset((*tags.STUDY_TAGS, *tags.SERIES_TAGS, *tags.INSTANCE_TAGS))

_ZSTD_LEVEL = 3
_KEEP_RAW_ABOVE = 16 << 20
"""A longer bulk value is stored as it is, straight from the spool file, so that it never has to be in memory."""

LARGEST_ENCODED_FRAME = 64 << 20
"""Raw bytes. A larger frame is kept as received: encoding takes five times that in memory."""

_SMALLEST_PIECE, _LARGEST_PIECE = 4 << 10, 1 << 20


class Staged(Protocol):
    """An array of its own that is written before the commit (storage.frames.StagedArray)."""

    def append(self, chunk: Chunk) -> None: ...
    def seal(self) -> None: ...
    def read(self, index: int) -> bytes: ...
    def discard(self) -> None: ...
    @property
    def count(self) -> int: ...


Stage = Callable[[str, str, ArrayKey, int], Staged]
"""(study, series, key, levels) -> an empty array of its own."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an instance says it is, before anything is encoded. UIDs are "" where they are missing, and unchecked."""

    file: Part10
    sha256: bytes
    study: str
    series: str
    instance: str
    sop_class: str
    warnings: tuple[str, ...]


def identify(data: Buffer) -> Identity:
    """Scan a file and read who it says it is. Raises DicomError."""
    file = part10.scan(data)
    found = part10.uids(file.json)
    warnings = list(file.warnings)
    for name, uid in (
        ("Study Instance UID", found.study),
        ("Series Instance UID", found.series),
        ("SOP Instance UID", found.instance),
    ):
        if uids.has_leading_zero(uid):
            warnings.append(f"{name} {uid[:64]} has a component with a leading zero")
    if file.media_storage_sop_instance_uid not in ("", found.instance):
        warnings.append(
            f"the File Meta Information names SOP Instance UID {file.media_storage_sop_instance_uid[:64]!r}; "
            f"the Data Set's is kept"
        )
    sha256 = hashlib.sha256(data).digest()
    return Identity(file, sha256, found.study, found.series, found.instance, found.sop_class, tuple(warnings))


def check(identity: Identity, study: str | None = None) -> None:
    """Raises UidError where a UID is missing or malformed: none is ever invented.

    `study` is the one named in the target URL: StudyMismatchError when the file belongs to another. PS3.18 10.5.1
    """
    uids.check(identity.study, "Study Instance UID")
    uids.check(identity.series, "Series Instance UID")
    uids.check(identity.instance, "SOP Instance UID")
    if study is not None and study != identity.study:
        raise StudyMismatchError(f"the instance belongs to study {identity.study}, not to {study}")


def prepare(data: Buffer, identity: Identity, stage: Stage) -> NewInstance:
    """Encode, pack and prove one identified instance."""
    file = identity.file
    geometry = part10.geometry(file.json)
    plans: list[Callable[[], _PixelStore]] = []
    if file.pixel is not None:
        if file.pixel.encapsulated:
            plans.append(lambda: _encapsulated(identity, geometry, stage))
        else:
            if geometry is not None and _encodable(file, geometry):
                plans.append(lambda: _encoded(identity, geometry, stage))
            plans.append(lambda: _as_received(identity, geometry, stage))
    for plan in plans:
        store = None
        try:
            store = plan()
            new = _assemble(data, identity, geometry, store)
            if _proven(new, identity):
                return new
        except (PixelError, CodestreamError):
            pass  # this image contradicts its own description: the next plan keeps it as received
        except BaseException:
            if store is not None:
                store.discard()
            raise
        if store is not None:
            store.discard()
    new = _assemble(data, identity, geometry, None)
    if not _proven(new, identity):
        raise DicomError("the stored form does not rebuild the received file")
    return new


# --- pixel data -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _PixelStore:
    """Where the chunks of an instance are: in memory, or in an array of their own once they fill a shard."""

    identity: Identity
    key: ArrayKey
    stage: Stage
    expected: int
    """Number of chunks that will come."""
    value_length: int = 0
    spans: list[Span] = field(default_factory=list)
    unused_bits: UnusedBits = UnusedBits.ZERO
    residual: list[bytes] = field(default_factory=list)
    fragments: tuple[int, ...] = ()
    chunks: list[Chunk] = field(default_factory=list)
    staged: Staged | None = None
    levels: int | None = None

    def fill(self, encoded: Iterable[tuple[Buffer, tuple[int, ...]]]) -> None:
        """Take all the chunks. An instance that fills a shard goes to disk chunk by chunk."""
        try:
            for data, level_ends in encoded:
                if self.levels is None:
                    self.levels = len(level_ends)
                    if self.expected >= self.key.capacity:
                        self.staged = self.stage(self.identity.study, self.identity.series, self.key, self.levels)
                elif self.levels != len(level_ends):
                    raise PixelError("frames of one instance differ in their resolution levels")
                chunk = Chunk(data, crc32c(data), level_ends)
                if self.staged is not None:
                    self.staged.append(chunk)
                else:
                    self.chunks.append(chunk)
            if self.staged is not None:
                self.staged.seal()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        if self.staged is not None:
            self.staged.discard()
            self.staged = None


def _encodable(file: Part10, geometry: FrameGeometry) -> bool:
    pixel = file.pixel
    assert pixel is not None
    frame_bytes = geometry.frame_bits // 8
    return (
        pixel.tag == tags.PIXEL_DATA
        and geometry.bits_allocated in (8, 16)
        and not _word_swapped(file, geometry)
        and 1 <= geometry.bits_stored <= geometry.bits_allocated
        and geometry.samples_per_pixel in (1, 3)
        and geometry.photometric_interpretation != "YBR_FULL_422"
        and 0 < frame_bytes <= LARGEST_ENCODED_FRAME
        and geometry.frames > 0
        and geometry.frames * frame_bytes <= pixel.length
    )


def _word_swapped(file: Part10, geometry: FrameGeometry | None) -> bool:
    return (
        file.big_endian
        and file.pixel is not None
        and file.pixel.vr == "OW"
        and geometry is not None
        and geometry.bits_allocated == 8
    )


def _encoded(identity: Identity, geometry: FrameGeometry | None, stage: Stage) -> _PixelStore:
    """Every frame as HTJ2K: a pixel array."""
    assert geometry is not None and identity.file.pixel is not None
    start, frame_bytes = identity.file.pixel.offset, geometry.frame_bits // 8
    key = ArrayKey(
        Encoding.HTJ2K, geometry.rows, geometry.columns, geometry.samples_per_pixel,
        np.dtype(pixels.dtype(geometry)).name, "", frame_bytes,
    )  # fmt: skip
    value_length = geometry.frames * frame_bytes
    store = _PixelStore(identity, key, stage, geometry.frames, value_length, [Span(start, value_length, -1)])
    kinds: set[UnusedBits] = set()

    def encode() -> Iterator[tuple[Buffer, tuple[int, ...]]]:
        for number in range(geometry.frames):
            raw = identity.file.data[start + number * frame_bytes : start + (number + 1) * frame_bytes]
            samples, kind, residual = pixels.split(raw, geometry, big_endian=identity.file.big_endian)
            kinds.add(UnusedBits(kind))
            if residual:
                store.residual.append(residual)
            yield transcode.encode_frame(samples, geometry)

    store.fill(encode())
    # A frame without negative samples looks the same with zeros and with sign extension: one rule for all frames,
    # and the proof tells whether it holds.
    store.unused_bits = next(
        rule for rule in (UnusedBits.RESIDUAL, UnusedBits.SIGN, UnusedBits.ZERO) if rule in kinds
    )
    return store


def _as_received(identity: Identity, geometry: FrameGeometry | None, stage: Stage) -> _PixelStore:
    """The whole native value, cut into pieces that are each one zstd frame."""
    del geometry
    pixel = identity.file.pixel
    assert pixel is not None
    value = identity.file.data[pixel.offset : pixel.offset + pixel.length]
    piece = _SMALLEST_PIECE
    while piece < min(pixel.length, _LARGEST_PIECE):
        piece *= 2
    key = ArrayKey(Encoding.NATIVE, 0, 0, 0, "uint8", "", piece)
    count = -(-pixel.length // piece)
    spans = [Span(pixel.offset, pixel.length, -1)] if pixel.length else []
    store = _PixelStore(identity, key, stage, count, pixel.length, spans)
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)

    def compress() -> Iterator[tuple[Buffer, tuple[int, ...]]]:
        for start in range(0, pixel.length, piece):
            data = bytes(value[start : start + piece])
            yield compressor.compress(data.ljust(piece, b"\0")), ()

    store.fill(compress())
    return store


def _encapsulated(identity: Identity, geometry: FrameGeometry | None, stage: Stage) -> _PixelStore:
    """The fragments of each frame joined, in the Transfer Syntax they came in."""
    file = identity.file
    assert file.pixel is not None
    frames = fragments.by_frame(file.data, file.pixel, geometry.frames if geometry is not None else 1)
    longest = max((sum(length for _, length in frame) for frame in frames), default=0)
    known = geometry is not None and longest <= LARGEST_ENCODED_FRAME
    key = ArrayKey(
        Encoding.ENCAPSULATED,
        geometry.rows if geometry else 0,
        geometry.columns if geometry else 0,
        geometry.samples_per_pixel if geometry else 0,
        "",
        file.transfer_syntax,
        max(1, geometry.frame_bits // 8) if known and geometry else LARGEST_ENCODED_FRAME,
    )
    spans = [Span(offset, length, -1) for frame in frames for offset, length in frame if length]
    store = _PixelStore(identity, key, stage, len(frames), sum(span.length for span in spans), spans)
    if any(len(frame) != 1 for frame in frames):
        store.fragments = tuple(len(frame) for frame in frames)
    store.fill((_join(file.data, frame), ()) for frame in frames)
    return store


def _join(data: memoryview, frame: Sequence[tuple[int, int]]) -> Buffer:
    if len(frame) == 1:
        offset, length = frame[0]
        return data[offset : offset + length]
    return b"".join(data[offset : offset + length] for offset, length in frame)


# --- everything else ------------------------------------------------------------------------------------------


def _assemble(
    data: Buffer, identity: Identity, geometry: FrameGeometry | None, store: _PixelStore | None
) -> NewInstance:
    file = identity.file
    spans, bulk = _bulk(file)
    if store is not None:
        spans = sorted([*spans, *store.spans], key=lambda span: span.offset)
    view = memoryview(data).cast("B")
    skeleton = _pack(view if file.deflated else b"".join(_between(view, spans)))
    residual = b"".join(store.residual) if store is not None else b""
    descriptor = Descriptor(
        study=identity.study,
        series=identity.series,
        instance=identity.instance,
        transfer_syntax=file.transfer_syntax,
        sha256=identity.sha256,
        file_size=len(view),
        received=time.time_ns() // 1_000_000,
        whole_file=file.deflated,
        geometry=geometry,
        array_key=store.key if store is not None else None,
        pixel_tag=file.pixel.tag if file.pixel is not None and store is not None else 0,
        value_length=store.value_length if store is not None else 0,
        big_endian=file.big_endian,
        unused_bits=store.unused_bits if store is not None else UnusedBits.ZERO,
        fragments=store.fragments if store is not None else (),
        word_swapped=_word_swapped(file, geometry),
    )
    return NewInstance(
        descriptor=descriptor,
        json=_pack(file.json),
        skeleton=skeleton,
        residual=_pack(residual) if residual else None,
        bulk=bulk,
        spans=spans,
        chunks=store.chunks if store is not None else (),
        staged=store.staged if store is not None else None,
        attributes=part10.index_fragments(file.json, _INDEX_TAGS),
    )


def _bulk(file: Part10) -> tuple[list[Span], list[Part]]:
    spans: list[Span] = []
    parts: list[Part] = []
    for value in file.bulk:
        spans.append(Span(value.offset, value.length, len(parts), value.path, value.vr))
        parts.append(_pack(file.data[value.offset : value.offset + value.length]))
    return spans, parts


def _between(view: memoryview, spans: Sequence[Span]) -> Iterator[memoryview]:
    position = 0
    for span in spans:
        if span.offset < position:
            raise DicomError("values overlap", span.offset)
        yield view[position : span.offset]
        position = span.offset + span.length
    yield view[position:]


def _pack(data: Buffer) -> Part:
    """`data` as one zstd frame, or as it is when that is no shorter or it should not pass through memory."""
    length = len(data)
    if length <= _KEEP_RAW_ABOVE:
        packed = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data)
        if len(packed) < length:
            return Part(packed, length, True)
    return Part(data, length, False)


# --- the proof ------------------------------------------------------------------------------------------------


class _Uncommitted:
    """A NewInstance as a Source: reads exactly the bytes that the commit will write."""

    def __init__(self, new: NewInstance) -> None:
        self._new = new
        self.descriptor = new.descriptor
        self._staged: Staged | None = new.staged  # type: ignore[assignment]
        self.chunk_count = self._staged.count if self._staged is not None else len(new.chunks)

    def spans(self) -> Sequence[Span]:
        return self._new.spans

    def skeleton(self) -> Buffer:
        return export.unpack(self._new.skeleton)

    def residual(self) -> Buffer:
        return export.unpack(self._new.residual) if self._new.residual is not None else b""

    def bulk(self, index: int) -> Buffer:
        return export.unpack(self._new.bulk[index])

    def chunk(self, index: int) -> Buffer:
        return self._staged.read(index) if self._staged is not None else self._new.chunks[index].data


def _proven(new: NewInstance, identity: Identity) -> bool:
    """Whether the export code rebuilds the received file from what is about to be committed."""
    digest = hashlib.sha256()
    for piece in export.rebuild(_Uncommitted(new)):
        digest.update(piece)
    return digest.digest() == identity.sha256
