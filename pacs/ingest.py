"""From the bytes of a Part 10 file to an instance ready to be committed, proven to rebuild those bytes.

Everything here works on what a stranger sent. Bad input is refused with a PacsError; pixel data that cannot be
encoded and proven is kept as received.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import overload

import msgspec

from pacs import encoding, proof, tags, uids
from pacs.dicom import attributes, fragments, part10
from pacs.dicom.fragments import Frames
from pacs.dicom.part10 import Part10
from pacs.encoding import PixelStore, Stage
from pacs.errors import CodestreamError, DicomError, PixelError, StudyMismatchError, UidError
from pacs.geometry import FrameGeometry
from pacs.measure import Measure, Observe, nobody, timed
from pacs.storage import packing
from pacs.storage.model import Buffer, Descriptor, NewInstance, Part, Span, UnusedBits

_INDEX_TAGS = frozenset((*tags.STUDY_TAGS, *tags.SERIES_TAGS, *tags.INSTANCE_TAGS))
_READ_TAGS = tuple(sorted({*_INDEX_TAGS, *attributes.UID_TAGS, *tags.GEOMETRY_TAGS}))

_log = logging.getLogger(__name__)

_MOST_PACKED = 32 << 20
"""Bytes of packed bulk values of an instance; once they are more, the rest is stored as it is too."""


_LARGEST_GAP = 16 << 20
"""Bytes of a file that belong to no value; usually a few thousand, all of them if its Data Set cannot be read."""
_PADDING = 16
"""Bits that may follow the last frame for no more reason than that lengths are even."""


_NO_FRAMES = Frames((), ())


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an instance says it is, before anything is encoded. UIDs are "" where they are missing, and unchecked."""

    file: Part10
    sha256: bytes
    study: str
    series: str
    instance: str
    sop_class: str
    geometry: FrameGeometry | None
    """With the number of frames that are there, where that is known better than Number of Frames does."""
    frames: Frames
    """Of encapsulated pixel data, else none."""
    warnings: tuple[str, ...]
    attributes: dict[int, bytes]
    """DICOM JSON of the elements that the index keeps."""


def identify(data: Buffer) -> Identity:
    """Scan a file and read who it says it is. Raises DicomError."""
    file = part10.scan(data)
    read = attributes.select(file.json, _READ_TAGS)
    found = attributes.uids_in(read)
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
    geometry, frames, doubts = _frames(file, attributes.geometry_in(read))
    sha256 = hashlib.sha256(data).digest()
    return Identity(
        file, sha256, found.study, found.series, found.instance, found.sop_class, geometry, frames,
        (*warnings, *doubts), {tag: text for tag, text in read.items() if tag in _INDEX_TAGS},
    )  # fmt: skip


def _frames(
    file: Part10, geometry: FrameGeometry | None
) -> tuple[FrameGeometry | None, Frames, Sequence[str]]:
    """The description of the frames, their fragments if they have any, and what is wrong with either."""
    pixel = file.pixel
    if pixel is None:
        return geometry, _NO_FRAMES, ()
    syntax = uids.transfer_syntax(file.transfer_syntax)
    if not pixel.encapsulated and syntax.known and syntax.encapsulated:  # a codestream without its item
        pixel = dataclasses.replace(pixel, fragments=((pixel.offset, pixel.length),))
    if pixel.fragments or pixel.encapsulated:
        layout = fragments.layout(
            file.data, pixel, geometry.frames if geometry is not None else 1, file.transfer_syntax
        )
        if geometry is not None and layout.apart and geometry.frames != len(layout.frames):
            geometry = msgspec.structs.replace(geometry, frames=len(layout.frames))
        return geometry, layout.frames, layout.warnings
    if geometry is not None and geometry.frame_bits:
        missing = geometry.frames * geometry.frame_bits - 8 * pixel.length
        if missing > 0 or -missing >= max(geometry.frame_bits, _PADDING):
            there = 8 * pixel.length // geometry.frame_bits
            return geometry, _NO_FRAMES, (f"Number of Frames says {geometry.frames}, the pixel data has {there}",)
    return geometry, _NO_FRAMES, ()


def check(identity: Identity, study: str | None = None) -> None:
    """Raises UidError where a UID is missing or malformed: none is ever invented.

    `study` is the one named in the target URL: StudyMismatchError when the file belongs to another. PS3.18 10.5.1
    """
    for uid, name in (
        (identity.study, "Study Instance UID"), (identity.series, "Series Instance UID"),
        (identity.instance, "SOP Instance UID"),
    ):  # fmt: skip
        if not uid and identity.file.warnings:
            raise UidError(f"{name} is missing ({identity.file.warnings[0]})")
        uids.check(uid, name)
    if study is not None and study != identity.study:
        raise StudyMismatchError(f"the instance belongs to study {identity.study}, not to {study}")


def prepare(data: Buffer, identity: Identity, stage: Stage, observe: Observe = nobody) -> NewInstance:
    """Encode, pack and prove one identified instance."""
    file, received = identity.file, memoryview(data).cast("B")
    geometry = identity.geometry
    plans: list[Callable[[], PixelStore]] = []
    if file.pixel is not None and (identity.frames or file.pixel.encapsulated):
        plans.append(partial(encoding.encapsulated, file, geometry, identity.frames, stage))
    elif file.pixel is not None:
        if geometry is not None and encoding.encodable(file, geometry):
            plans.append(partial(encoding.encoded, file, geometry, stage))
        plans.append(partial(encoding.as_received, file, stage))
    for plan in plans:
        store = None
        try:
            with timed(observe, Measure.ENCODE):
                store = plan()
                new = _assemble(data, identity, store)
            with timed(observe, Measure.PROVE):
                proven = proof.rebuilds(new, received, file)
            if proven:
                return new
        except (PixelError, CodestreamError) as error:
            # Usually the image contradicts its own description: the next plan keeps it as received.
            _log.info("pixel data is kept as received: %s", error.message)
        except BaseException:
            if store is not None:
                store.discard()
            raise
        if store is not None:
            store.discard()
    new = _assemble(data, identity, None)
    if not proof.rebuilds(new, received, file):
        raise DicomError("the stored form does not rebuild the received file")
    return new


# --- the stored form ------------------------------------------------------------------------------------------


def _assemble(data: Buffer, identity: Identity, store: PixelStore | None) -> NewInstance:
    file, geometry = identity.file, identity.geometry
    view = memoryview(data).cast("B")
    named, bulk = _bulk(file)
    spans: Sequence[Span] = Spans(named, store.stretches) if store is not None else named
    if not file.deflated and len(view) > _LARGEST_GAP:
        spans = _without_gaps(view, spans, bulk)
    skeleton = packing.pack(view if file.deflated else b"".join(_between(view, spans)))
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
        word_swapped=encoding.word_swapped(file, geometry),
        overlay_in_samples=(
            geometry is not None
            and geometry.bits_stored < geometry.bits_allocated
            and attributes.overlay_in_samples(file.json)
        ),
    )
    return NewInstance(
        descriptor=descriptor,
        json=packing.pack(file.json),
        skeleton=skeleton,
        residual=packing.pack(residual) if residual else None,
        bulk=bulk,
        spans=spans,
        chunks=store.chunks if store is not None else (),
        staged=store.staged if store is not None else None,
        attributes=identity.attributes,
    )


def _bulk(file: Part10) -> tuple[list[Span], list[Part]]:
    spans: list[Span] = []
    parts: list[Part] = []
    packed = 0
    for value in file.bulk:
        spans.append(Span(value.offset, value.length, len(parts), value.path, value.vr))
        data = file.data[value.offset : value.offset + value.length]
        part = packing.pack(data) if packed <= _MOST_PACKED else Part(data, len(data), False)
        packed += len(part.data) if part.zstd else 0
        parts.append(part)
    return spans, parts


class Spans(Sequence[Span]):
    """Spans of bulk values, and those of pixel data among them without an object for each of many fragments."""

    def __init__(self, bulk: list[Span], pixels: Sequence[tuple[int, int]]) -> None:
        self._bulk = bulk
        self._pixels = pixels
        self._before = bisect.bisect_left(bulk, pixels[0][0], key=lambda span: span.offset) if pixels else 0

    def __len__(self) -> int:
        return len(self._bulk) + len(self._pixels)

    def __iter__(self) -> Iterator[Span]:
        yield from self._bulk[: self._before]
        for offset, length in self._pixels:
            yield Span(offset, length, -1)
        yield from self._bulk[self._before :]

    @overload
    def __getitem__(self, index: int) -> Span: ...
    @overload
    def __getitem__(self, index: slice) -> list[Span]: ...
    def __getitem__(self, index: int | slice) -> Span | list[Span]:
        if isinstance(index, slice):
            return list(self)[index]
        number = range(len(self))[index] - self._before
        if 0 <= number < len(self._pixels):
            return Span(*self._pixels[number], -1)
        return self._bulk[number + self._before - (len(self._pixels) if number >= 0 else 0)]


def _without_gaps(view: memoryview, spans: Sequence[Span], bulk: list[Part]) -> Sequence[Span]:
    """The spans, and one without a path for each long stretch between them: what could not be read of a file.

    The skeleton is put together in memory; a bulk value of that length is written from where it lies.
    """
    gaps: list[Span] = []
    position = 0
    for span in itertools.chain(spans, (Span(len(view), 0, -1),)):
        if span.offset - position > _LARGEST_GAP:
            gaps.append(Span(position, span.offset - position, len(bulk)))
            bulk.append(packing.pack(view[position : span.offset]))
        position = span.offset + span.length
    return sorted((*spans, *gaps), key=lambda span: span.offset) if gaps else spans


def _between(view: memoryview, spans: Sequence[Span]) -> Iterator[memoryview]:
    position = 0
    for span in spans:
        if span.offset < position:
            raise DicomError("values overlap", span.offset)
        yield view[position : span.offset]
        position = span.offset + span.length
    yield view[position:]
