"""A stored instance as explicit VR little endian with decoded frames: PS3.18's default for `application/dicom`.

pydicom writes the Data Set; frames pass one by one, so that a long multi-frame never lies whole in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
import pydicom.config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset

from pacs import export, part10, tags, uids
from pacs.byteorder import WORD_SIZES, swapped
from pacs.errors import UnsupportedTransferSyntaxError
from pacs.reading import Committed, locate_frame, native_frame, pixel_value
from pacs.storage.index import Index
from pacs.storage.model import Buffer, Descriptor, Encoding, InstanceEntry

# What was accepted is given back, odd values too: judging them again here would only lose data.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE

_PIXEL_TAGS = (tags.FLOAT_PIXEL_DATA, tags.DOUBLE_FLOAT_PIXEL_DATA, tags.PIXEL_DATA)
_ELEMENT_NAMES = {
    tags.PIXEL_DATA: b"\xe0\x7f\x10\x00",
    tags.FLOAT_PIXEL_DATA: b"\xe0\x7f\x08\x00OF",
    tags.DOUBLE_FLOAT_PIXEL_DATA: b"\xe0\x7f\x09\x00OD",
}
_SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"
_LONGEST_VALUE = 0xFFFFFFFE
_OFFSET_TABLES = (0x7FE00001, 0x7FE00002, 0x7FE00003)
"""Of encapsulated Pixel Data alone. PS3.3 C.7.6.3"""


def convert(root: Path, index: Index, entry: InstanceEntry) -> Iterator[Buffer]:
    """The instance as an explicit VR little endian Part 10 file, in pieces.

    Raises UnsupportedTransferSyntaxError or PixelError, before the first piece, when it cannot be written so.
    """
    source, descriptor = Committed(root, index, entry), entry.descriptor
    if _as_arrived(source):
        return export.rebuild(source)
    key, geometry = descriptor.array_key, descriptor.geometry
    if key is None:
        return _rewrite(source, 0, iter(()))
    if key.encoding is not Encoding.ENCAPSULATED:
        return _rewrite(source, descriptor.value_length, pixel_value(source))
    if geometry is None:
        raise UnsupportedTransferSyntaxError(f"instance {descriptor.instance} does not describe its pixel data")
    if entry.chunks != geometry.frames:
        raise UnsupportedTransferSyntaxError(
            f"the {geometry.frames} frames of instance {descriptor.instance} cannot be told apart in its "
            f"{entry.chunks} fragments"
        )

    def decoded() -> Iterator[Buffer]:
        for number in range(1, geometry.frames + 1):
            with index.read() as view:
                frame = locate_frame(view, entry, number)
            yield native_frame(root, frame, source)

    frames = decoded()
    first = next(frames, b"")
    value: Iterator[Buffer] = itertools.chain((first,), frames)
    if geometry.bits_allocated != 1:
        return _rewrite(source, len(first) * geometry.frames, value)
    return _rewrite(source, -(-geometry.frame_bits * geometry.frames // 8), _continuous(value, geometry.frame_bits))


def _as_arrived(source: Committed) -> bool:
    """Whether the received file already is explicit VR little endian, and says so in a File Meta Information."""
    if source.descriptor.transfer_syntax != uids.EXPLICIT_VR_LITTLE_ENDIAN or source.descriptor.whole_file:
        return False
    begins = part10.beginning(source.skeleton())
    return begins.proper and begins.transfer_syntax == uids.EXPLICIT_VR_LITTLE_ENDIAN


def _continuous(frames: Iterator[Buffer], frame_bits: int) -> Iterator[Buffer]:
    """Frames of 1 bit allocated without the pad of each: the next one begins in the byte where one ends. PS3.5 8.1.1"""
    rest = np.empty(0, np.uint8)
    for frame in frames:
        if frame_bits % 8 == 0:
            yield frame
            continue
        bits = np.concatenate((rest, np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")[:frame_bits]))
        whole = len(bits) // 8 * 8
        yield np.packbits(bits[:whole], bitorder="little").tobytes()
        rest = bits[whole:]
    yield np.packbits(rest, bitorder="little").tobytes()


def _rewrite(source: Committed, value_length: int, value: Iterator[Buffer]) -> Iterator[Buffer]:
    pixel_tag = source.descriptor.pixel_tag
    if value_length > _LONGEST_VALUE:
        raise UnsupportedTransferSyntaxError("native pixel data above 4 GiB has no explicit VR little endian form")
    head, tail = _around_pixel_data(source, pixel_tag)
    encoding = source.descriptor.array_key.encoding if source.descriptor.array_key is not None else None
    if pixel_tag and encoding is not Encoding.ENCAPSULATED and not source.descriptor.whole_file:
        # The value may be longer than its frames, or of an odd length without a pad.
        tail = tail[_stated_length(head, source.descriptor) - source.descriptor.value_length :]
    try:
        data_set = _read_head(head, source.descriptor)
        after = _read_tail(tail, source.descriptor)
        for tag in (*_PIXEL_TAGS, *(_OFFSET_TABLES if encoding is Encoding.ENCAPSULATED else ())):
            for part in (data_set, after):
                if tag in part:
                    del part[tag]
        for tag in [tag for tag in list(data_set.keys()) if pixel_tag and tag > pixel_tag]:
            after[tag] = data_set.get_item(tag)
            del data_set[tag]
        _describe_decoded(data_set, source.descriptor)
        if source.descriptor.big_endian:
            _swap_words(data_set)
            _swap_words(after)
        written = _written(data_set)
        written_tail = _written(after, file=False) if len(after) else b""
    except Exception as error:  # pydicom raises anything for a Data Set that it cannot rewrite
        raise UnsupportedTransferSyntaxError(
            f"the Data Set cannot be rewritten as explicit VR little endian: {error}"
        ) from error
    return _file(written, pixel_tag, source.descriptor, value_length, value, written_tail)


def _file(
    head: bytes, pixel_tag: int, descriptor: Descriptor, length: int, value: Iterator[Buffer], tail: bytes
) -> Iterator[Buffer]:
    yield head
    if pixel_tag:
        name = _ELEMENT_NAMES[pixel_tag]
        if pixel_tag == tags.PIXEL_DATA:
            wide = descriptor.geometry is not None and descriptor.geometry.bits_allocated > 8
            name += b"OW" if wide else b"OB"
        yield name + b"\0\0" + (length + length % 2).to_bytes(4, "little")
        yield from value
        if length % 2:
            yield b"\0"
    yield tail


def _around_pixel_data(source: export.Source, pixel_tag: int) -> tuple[bytes, bytes]:
    """The received file before the pixel value (with the head of its element), and after it."""
    if source.descriptor.whole_file or not pixel_tag:
        return b"".join(export.rebuild(source)), b""
    skeleton = bytes(source.skeleton())
    head, tail, into = bytearray(), bytearray(), None
    position = taken = 0
    for span in source.spans():
        into = tail if into is tail else head
        into += skeleton[taken : taken + span.offset - position]
        taken += span.offset - position
        if span.bulk >= 0:
            into += source.bulk(span.bulk)
        else:
            into = tail
            tail.clear()  # what lay between fragments is item headers
        position = span.offset + span.length
    tail += skeleton[taken:]
    return bytes(head), bytes(tail)


def _stated_length(head: bytes, descriptor: Descriptor) -> int:
    """The length that the element of native pixel data states; `head` ends with it. PS3.5 7.1"""
    order: Literal["big", "little"] = "big" if descriptor.big_endian else "little"
    tag = b"".join(half.to_bytes(2, order) for half in divmod(descriptor.pixel_tag, 1 << 16))
    short = head[-8:-4] == tag and head[-4:-2].isalpha() and head[-12:-8] != tag
    return int.from_bytes(head[-2:] if short else head[-4:], order)


def _read_head(head: bytes, descriptor: Descriptor) -> Dataset:
    if descriptor.whole_file:
        return pydicom.dcmread(BytesIO(head), force=True)
    # Transfer Syntax and beginning are what ingest found, not what the file says: pydicom would believe the file.
    begins = part10.beginning(head)
    data_set = read_dataset(
        BytesIO(head[begins.data_set :]), descriptor.transfer_syntax == uids.IMPLICIT_VR_LITTLE_ENDIAN,
        not descriptor.big_endian, stop_when=lambda tag, vr, length: tag in _PIXEL_TAGS,
    )  # fmt: skip
    data_set.file_meta = FileMetaDataset(read_dataset(BytesIO(head[begins.meta : begins.data_set]), False, True))
    return data_set


def _read_tail(tail: bytes, descriptor: Descriptor) -> Dataset:
    if tail.startswith(_SEQUENCE_DELIMITER):
        tail = tail[len(_SEQUENCE_DELIMITER) :]
    implicit = descriptor.transfer_syntax == uids.IMPLICIT_VR_LITTLE_ENDIAN
    if len(tail) < 8:
        return Dataset()
    return read_dataset(BytesIO(tail), implicit, not descriptor.big_endian)


def _describe_decoded(data_set: Dataset, descriptor: Descriptor) -> None:
    """Attributes that decoding changed."""
    meta: Any = data_set.file_meta
    meta.TransferSyntaxUID = uids.EXPLICIT_VR_LITTLE_ENDIAN
    encoding = descriptor.array_key.encoding if descriptor.array_key is not None else None
    if encoding is Encoding.ENCAPSULATED:
        photometric = data_set.get("PhotometricInterpretation", "")
        if photometric in ("YBR_RCT", "YBR_ICT"):
            data_set.PhotometricInterpretation = "RGB"
        elif photometric == "YBR_FULL_422":
            data_set.PhotometricInterpretation = "YBR_FULL"


def _swap_words(data_set: Dataset) -> None:
    """Binary values of words, which pydicom leaves in the byte order it read, as little endian."""
    for element in data_set.iterall():
        size = WORD_SIZES.get(element.VR)
        if size and isinstance(element.value, bytes):
            element.value = swapped(element.value, size)


def _written(data_set: Dataset, *, file: bool = True) -> bytes:
    out = BytesIO()
    if file:
        pydicom.dcmwrite(out, data_set, implicit_vr=False, little_endian=True, enforce_file_format=True)
    else:
        pydicom.dcmwrite(out, data_set, implicit_vr=False, little_endian=True, force_encoding=True)
    return out.getvalue()
