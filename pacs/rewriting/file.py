"""The pieces of a rewritten file: File Meta Information, Data Elements, pixel data. PS3.10 7, PS3.5 Annex A"""

from __future__ import annotations

import contextlib
import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from pacs import uids
from pacs.errors import DicomError, PacsError, UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry
from pacs.reading import Committed, pixel_value
from pacs.rewriting import Frames, Rewritten, description, pixel_data, received, recoded
from pacs.storage.model import Buffer, Encoding


def native(source: Committed, transfer_syntax: str, frames: Frames | None) -> Rewritten:
    """The file in one of `NATIVE`. Raises as `rewriting.rewrite`."""
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

    file = _written(source, transfer_syntax, describe)
    if descriptor.pixel_tag:
        bits = geometry.bits_allocated if geometry is not None else 8
        implicit = transfer_syntax == uids.IMPLICIT_VR_LITTLE_ENDIAN
        file.head.append(pixel_data.native_head(descriptor.pixel_tag, length, bits, implicit=implicit))
        file.tail.insert(0, bytes(length % 2))
    pieces = itertools.chain(file.head, value, file.tail)
    if transfer_syntax == uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return Rewritten(itertools.chain((file.meta,), _deflated(pieces)), None)
    return Rewritten(itertools.chain((file.meta,), pieces), file.length + length)


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


def encapsulated(source: Committed, transfer_syntax: str, frames: Frames) -> Rewritten:
    """The file with compressed frames. Raises as `rewriting.rewrite`."""
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

    file = _written(source, transfer_syntax, describe)
    table, length = pixel_data.encapsulated_head([len(first)] if frames.count == 1 else frames.lengths)

    def make(number: int) -> Buffer:
        return first if number == 1 else frames.make(number)

    pieces = itertools.chain((file.meta, *file.head, table), pixel_data.fragments(frames.count, make), file.tail)
    return Rewritten(pieces, file.length + length if length is not None else None)


@dataclass(slots=True)
class _Written:
    """A file without its pixel data."""

    meta: bytes
    head: list[Buffer]
    """Data Elements before the pixel data."""
    tail: list[Buffer]

    @property
    def length(self) -> int:
        return len(self.meta) + sum(map(len, self.head)) + sum(map(len, self.tail))


def _written(source: Committed, transfer_syntax: str, describe: Callable[[Dataset], None]) -> _Written:
    try:
        given = received.Received.of(source)
        if not source.descriptor.big_endian:
            with contextlib.suppress(DicomError):
                return _recoded(given, transfer_syntax, describe)
        given.check_size()
        implicit = transfer_syntax == uids.IMPLICIT_VR_LITTLE_ENDIAN
        data_set, after = received.read(given)
        describe(data_set)
        meta = received.beginning(data_set, transfer_syntax)
        head = received.written(data_set, implicit=implicit)
        return _Written(meta, [head], [received.written(after, implicit=implicit) if len(after) else b""])
    except PacsError:
        raise
    except Exception as error:  # pydicom raises anything for a Data Set that it cannot rewrite
        raise received.unreadable(error, transfer_syntax) from error


def _recoded(given: received.Received, transfer_syntax: str, describe: Callable[[Dataset], None]) -> _Written:
    """The same without pydicom for all but the elements to describe. Raises DicomError where that is not certain."""
    data_set = recoded.Recoded(given, implicit=transfer_syntax == uids.IMPLICIT_VR_LITTLE_ENDIAN)
    context = data_set.context()
    describe(context)
    data_set.change(context)
    context.file_meta = given.meta()
    meta = received.beginning(context, transfer_syntax)
    return _Written(meta, *data_set.pieces())


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
