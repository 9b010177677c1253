"""The frames of a series in reading order, and where the resolution levels of each end.

Servers of this project say so at `…/series/{series}/progressive`. For others the metadata of the series gives the
frames, and each of them is known as a whole only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec

from pacs import uids
from pacs.client import description
from pacs.client.body import Document
from pacs.client.description import DataSet
from pacs.errors import AnswerError, PacsError
from pacs.geometry import FrameGeometry

MOST_FRAMES = 10_000_000
_MEDIA_TYPE = re.compile(r"(?:[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class IndexedFrame:
    """One frame as a server says that it is stored."""

    instance: str
    frame: int
    """From 1, in its instance."""
    path: str
    """Its URL, relative to that of the series and a slash."""
    rows: int
    columns: int
    etag: str = ""
    """Opaque; another one means other bytes."""
    length: int | None = None
    """In bytes; None: only an answer tells."""
    transfer_syntax: str = ""
    media_type: str = ""
    ends: tuple[int, ...] = ()
    """Bytes up to the end of each resolution level, coarsest first; the last is `length`. () when that is unknown."""
    sizes: tuple[tuple[int, int], ...] = ()
    """(rows, columns) of each resolution level; that of the whole alone when no others are known."""
    crc32c: int | None = None
    """Of its bytes."""
    geometry: FrameGeometry | None = None
    floating: bool = False

    @property
    def key(self) -> tuple[str, int, str, int | None]:
        """Equal for equal frames of two indexes."""
        return (self.instance, self.frame, self.etag, self.length)


@dataclass(frozen=True, slots=True)
class SeriesIndex:
    """A series as it was when it was asked for."""

    study: str
    series: str
    frames: tuple[IndexedFrame, ...]
    """In reading order."""
    state: str = ""
    """Names this state of the series; "" when the server does not say."""
    receiving: bool = False
    """Whether more instances of it may still arrive."""
    progressive: bool = False
    """Whether the server knows rungs."""


class _Shape(msgspec.Struct):
    rows: int
    columns: int
    levels: list[tuple[int, int]] = []
    samples_per_pixel: int | None = msgspec.field(default=None, name="samplesPerPixel")
    bits_allocated: int | None = msgspec.field(default=None, name="bitsAllocated")
    bits_stored: int | None = msgspec.field(default=None, name="bitsStored")
    high_bit: int | None = msgspec.field(default=None, name="highBit")
    pixel_representation: int | None = msgspec.field(default=None, name="pixelRepresentation")
    planar_configuration: int | None = msgspec.field(default=None, name="planarConfiguration")
    photometric_interpretation: str | None = msgspec.field(default=None, name="photometricInterpretation")
    floating: bool = False

    def geometry(self) -> FrameGeometry | None:
        """The Image Pixel description when the server gives it."""
        samples, allocated, stored = self.samples_per_pixel, self.bits_allocated, self.bits_stored
        representation, photometric = self.pixel_representation, self.photometric_interpretation
        if samples is None or allocated is None or stored is None or representation is None or photometric is None:
            return None
        high = self.high_bit if self.high_bit is not None else stored - 1
        planar = self.planar_configuration or 0
        return FrameGeometry(
            self.rows, self.columns, samples, allocated, stored, high, representation, planar, photometric, 1
        )


class _Frame(msgspec.Struct):
    instance: str
    frame: int
    url: str
    shape: int
    length: int | None = None
    ends: list[int] = []
    etag: str = ""
    transfer_syntax: str = msgspec.field(default="", name="transferSyntax")
    media_type: str = msgspec.field(default="", name="mediaType")
    crc32c: str = ""


class _Index(msgspec.Struct):
    shapes: list[_Shape]
    frames: list[_Frame]
    receiving: bool = False
    state: str = ""


def read(url: str, document: Document, study: str, series: str) -> SeriesIndex:
    """The index in a server's answer. Raises AnswerError for one that contradicts itself."""
    try:
        found = msgspec.json.decode(document.data, type=_Index)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(url, f"this is no index of a series: {error}") from None
    geometries = [shape.geometry() for shape in found.shapes]
    frames = tuple(_frame(url, frame, found.shapes, geometries) for frame in found.frames)
    return SeriesIndex(study, series, frames, found.state, found.receiving, progressive=True)


def _frame(
    url: str, frame: _Frame, shapes: Sequence[_Shape], geometries: Sequence[FrameGeometry | None]
) -> IndexedFrame:
    try:
        uids.check(frame.instance, "SOP Instance UID")
        if frame.frame < 1 or not 0 <= frame.shape < len(shapes):
            raise AnswerError(url, f"frame {frame.frame} of shape {frame.shape}")
        shape = shapes[frame.shape]
        ends = tuple(frame.ends) or (() if frame.length is None else (frame.length,))
        sizes = tuple(shape.levels) if len(ends) > 1 else ((shape.rows, shape.columns),)
        rising = all(a < b for a, b in pairwise((0, *ends))) or ends == (0,)  # an empty frame costs itself alone
        fitting = not ends or (ends[-1] == frame.length and len(sizes) == len(ends))
        if not rising or not fitting:
            raise AnswerError(url, f"the levels of frame {frame.frame} of {frame.instance} contradict each other")
        crc = int(frame.crc32c, 16) if frame.crc32c else None
        if frame.transfer_syntax:  # both become part of a header
            uids.check(frame.transfer_syntax, "Transfer Syntax")
        if not _MEDIA_TYPE.fullmatch(frame.media_type):
            raise AnswerError(url, f"the media type {frame.media_type[:40]!r}")
    except (AnswerError, PacsError, ValueError) as error:
        if isinstance(error, AnswerError):
            raise
        raise AnswerError(url, str(error)) from None
    return IndexedFrame(
        frame.instance, frame.frame, frame.url, shape.rows, shape.columns, frame.etag, frame.length,
        frame.transfer_syntax, frame.media_type, ends, sizes, crc, geometries[frame.shape], shape.floating,
    )  # fmt: skip


def of_metadata(url: str, data_sets: Sequence[DataSet], study: str, series: str) -> SeriesIndex:
    """The frames of a series whose server has no index, instances in the order of their number and UID."""
    ordered = sorted(
        data_sets,
        key=lambda data: (
            description.number(data, description.INSTANCE_NUMBER), description.text(data, description.INSTANCE),
        ),
    )  # fmt: skip
    frames: list[IndexedFrame] = []
    for data in ordered:
        frames += _frames_of(url, data)
        if len(frames) > MOST_FRAMES:
            raise AnswerError(url, f"a series of more than {MOST_FRAMES} frames")
    return SeriesIndex(study, series, tuple(frames))


def _frames_of(url: str, data: DataSet) -> list[IndexedFrame]:
    count = description.frame_count(data)
    if not count:
        return []
    if count > MOST_FRAMES:
        raise AnswerError(url, f"an instance of {count} frames")
    try:
        instance = uids.check(description.text(data, description.INSTANCE), "SOP Instance UID")
        geometry = description.geometry(data)
    except PacsError as error:
        raise AnswerError(url, error.message) from None
    rows, columns, floating = geometry.rows, geometry.columns, description.floating(data)
    return [
        IndexedFrame(
            instance, number, f"instances/{instance}/frames/{number}", rows, columns, sizes=((rows, columns),),
            geometry=geometry, floating=floating,
        )
        for number in range(1, count + 1)
    ]  # fmt: skip


def described(data_sets: Sequence[DataSet]) -> Mapping[str, tuple[FrameGeometry, bool]]:
    """Image Pixel description, and whether pixels are floating, of each instance that has one."""
    found: dict[str, tuple[FrameGeometry, bool]] = {}
    for data in data_sets:
        try:
            found[description.text(data, description.INSTANCE)] = (
                description.geometry(data), description.floating(data),
            )  # fmt: skip
        except PacsError:
            continue
    return found


def json(url: str, document: Document) -> list[dict[str, Any]]:
    """The Data Sets of an answer in DICOM JSON. Raises AnswerError."""
    if document.status == 204 or not document.data.strip():
        return []
    try:
        found = msgspec.json.decode(document.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(url, f"this is not JSON: {error}") from None
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise AnswerError(url, "this is not DICOM JSON")
    return found
