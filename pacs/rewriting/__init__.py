"""A stored instance as a Part 10 file in another Transfer Syntax, with a Data Set that describes what it holds then.

pydicom reads and writes the Data Set; frames pass one by one, so that a long multi-frame never lies whole in memory.
PS3.5 Annex A, PS3.10 7, PS3.18 8.7.3.5.2
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset

from pacs import export, uids
from pacs.errors import PacsError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry
from pacs.reading import Committed, pixel_value
from pacs.rewriting import description, pixel_data, received
from pacs.storage.model import Buffer, Encoding
from pacs.transcode import Rendition

NATIVE: Final = (
    uids.EXPLICIT_VR_LITTLE_ENDIAN, uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
)  # fmt: skip
"""Transfer Syntaxes with native pixel data that files are rewritten in."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file that is made while it is read."""

    pieces: Iterator[Buffer]
    length: int | None
    """Of the file, where it is known before all frames are made."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of an instance in the form they are to be sent in."""

    rendition: Rendition
    count: int
    make: Callable[[int], Buffer]
    """Frame `number`, from 1."""
    lengths: Sequence[int] | None = None
    """Of all frames, where they are known before the frames."""
    mark: str = ""
    """Of lossy frames: differs when their samples may."""


def rewrite(source: Committed, transfer_syntax: str, frames: Frames | None) -> Rewritten:
    """The instance as a file in `transfer_syntax`.

    `frames` are those of Pixel Data that has to change its form; None where there is none, or where native pixel data
    stays native. Raises UnsupportedTransferSyntaxError or PixelError, before the first piece, when it cannot be done.
    """
    if frames is None and received.begins_properly(source, transfer_syntax):
        return Rewritten(export.rebuild(source), source.descriptor.file_size)
    if transfer_syntax in NATIVE:
        return _native(source, transfer_syntax, frames)
    if frames is None:
        name = uids.transfer_syntax(transfer_syntax).name
        raise UnsupportedTransferSyntaxError(f"{name} is for images, which this instance is none of")
    return _encapsulated(source, transfer_syntax, frames)


def _native(source: Committed, transfer_syntax: str, frames: Frames | None) -> Rewritten:
    descriptor = source.descriptor
    key, geometry = descriptor.array_key, descriptor.geometry
    length = 0
    value: Iterator[Buffer] = iter(())
    if frames is not None:
        geometry = frames.rendition.geometry
        length, value = _decoded(frames)
    elif key is not None and (
        key.encoding is Encoding.ENCAPSULATED or not uids.transfer_syntax(descriptor.transfer_syntax).known
    ):
        raise UnsupportedTransferSyntaxError(f"instance {descriptor.instance} has pixel data that cannot be decoded")
    elif key is not None:
        length, value = descriptor.value_length, pixel_value(source)

    def describe(data_set: Dataset) -> None:
        if frames is not None and geometry is not None:
            description.describe(data_set, geometry)
            description.drop_encapsulated_icon(data_set)
            description.mark_lossy_history(data_set, descriptor.transfer_syntax)

    implicit = transfer_syntax == uids.IMPLICIT_VR_LITTLE_ENDIAN
    meta, head, tail = _written(source, transfer_syntax, describe)
    if descriptor.pixel_tag:
        bits = geometry.bits_allocated if geometry is not None else 8
        head += pixel_data.native_head(descriptor.pixel_tag, length, bits, implicit=implicit)
        tail = bytes(length % 2) + tail
    pieces = itertools.chain((head,), value, (tail,))
    if transfer_syntax == uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return Rewritten(itertools.chain((meta,), _deflated(pieces)), None)
    return Rewritten(itertools.chain((meta,), pieces), len(meta) + len(head) + length + len(tail))


def _decoded(frames: Frames) -> tuple[int, Iterator[Buffer]]:
    """(length, native frames in order). The first is decoded now: what cannot be is known before anything is sent."""
    geometry: FrameGeometry | None = frames.rendition.geometry
    assert geometry is not None
    first = frames.make(1)
    others = (frames.make(number) for number in range(2, frames.count + 1))
    value = itertools.chain((first,), others)
    if geometry.bits_allocated != 1:
        return len(first) * frames.count, value
    return -(-geometry.frame_bits * frames.count // 8), pixel_data.continuous(value, geometry.frame_bits)


def _encapsulated(source: Committed, transfer_syntax: str, frames: Frames) -> Rewritten:
    descriptor, rendition = source.descriptor, frames.rendition
    first = frames.make(1)
    geometry = rendition.geometry
    assert geometry is not None
    raw = -(-geometry.frame_bits // 8)

    def describe(data_set: Dataset) -> None:
        description.check_overlays(data_set, transfer_syntax)
        description.describe(data_set, geometry)
        description.drop_encapsulated_icon(data_set)
        description.mark_lossy_history(data_set, descriptor.transfer_syntax)
        if not rendition.lossless:
            # The ratio stands before the frames, so that of the first one speaks for all: it is approximate anyway.
            ratio = raw / max(1, len(first))
            uid = description.derived_uid(descriptor, f"{transfer_syntax} {frames.mark}")
            description.mark_lossy(data_set, uid, transfer_syntax, rendition.lossy_method, ratio)

    meta, head, tail = _written(source, transfer_syntax, describe)
    table, length = pixel_data.encapsulated_head([len(first)] if frames.count == 1 else frames.lengths)

    def make(number: int) -> Buffer:
        return first if number == 1 else frames.make(number)

    pieces = itertools.chain((meta, head, table), pixel_data.fragments(frames.count, make), (tail,))
    return Rewritten(pieces, len(meta) + len(head) + length + len(tail) if length is not None else None)


def _written(
    source: Committed, transfer_syntax: str, describe: Callable[[Dataset], None]
) -> tuple[bytes, bytes, bytes]:
    """(File Meta Information, Data Elements before the pixel data, those behind it)."""
    implicit = transfer_syntax == uids.IMPLICIT_VR_LITTLE_ENDIAN
    try:
        data_set, after = received.read(source)
        describe(data_set)
        meta = received.beginning(data_set, transfer_syntax)
        head = received.written(data_set, implicit=implicit)
        return meta, head, received.written(after, implicit=implicit) if len(after) else b""
    except PacsError:
        raise
    except Exception as error:  # pydicom raises anything for a Data Set that it cannot rewrite
        raise received.unreadable(error, transfer_syntax) from error


def _deflated(pieces: Iterator[Buffer]) -> Iterator[Buffer]:
    """PS3.5 A.5; RFC 1951, padded to an even length."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    length = 0
    for piece in pieces:
        data = deflate.compress(piece)
        length += len(data)
        if data:
            yield data
    data = deflate.flush()
    yield data + bytes((length + len(data)) % 2)
