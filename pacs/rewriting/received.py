"""The Data Set of a received file on both sides of its pixel data, read by pydicom and written again."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Literal

import pydicom
import pydicom.config
from pydicom.dataset import Dataset, FileMetaDataset, validate_file_meta
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info

from pacs import export, part10, tags, uids
from pacs.byteorder import WORD_SIZES, swapped
from pacs.errors import UnsupportedTransferSyntaxError
from pacs.storage.model import Descriptor, Encoding

# What was accepted is given back, odd values too: judging them again here would only lose data.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE

_PIXEL_TAGS = (tags.FLOAT_PIXEL_DATA, tags.DOUBLE_FLOAT_PIXEL_DATA, tags.PIXEL_DATA)
_OFFSET_TABLES = (0x7FE00001, 0x7FE00002, 0x7FE00003)
"""Of encapsulated Pixel Data alone. PS3.3 C.7.6.3"""
_SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"


def read(source: export.Source) -> tuple[Dataset, Dataset]:
    """The Data Set before the pixel data, with its File Meta Information, and what stands behind it.

    Neither has pixel data or its offset tables; binary values are little endian. Raises what pydicom raises.
    """
    descriptor = source.descriptor
    head, tail = _around_pixel_data(source)
    encoding = descriptor.array_key.encoding if descriptor.array_key is not None else None
    if descriptor.pixel_tag and encoding is not Encoding.ENCAPSULATED and not descriptor.whole_file:
        # The value may be longer than its frames, or of an odd length without a pad.
        tail = tail[_stated_length(head, descriptor) - descriptor.value_length :]
    data_set = _read_head(head, descriptor)
    after = _read_tail(tail, descriptor)
    for tag in (*_PIXEL_TAGS, *(_OFFSET_TABLES if encoding is Encoding.ENCAPSULATED else ())):
        for part in (data_set, after):
            if tag in part:
                del part[tag]
    for tag in [tag for tag in list(data_set.keys()) if descriptor.pixel_tag and tag > descriptor.pixel_tag]:
        after[tag] = data_set.get_item(tag)
        del data_set[tag]
    if descriptor.big_endian:
        _swap_words(data_set)
        _swap_words(after)
    return data_set, after


def beginning(data_set: Dataset, transfer_syntax: str) -> bytes:
    """Preamble, prefix and File Meta Information of a file in `transfer_syntax`. PS3.10 7.1"""
    meta: Any = data_set.file_meta
    meta.TransferSyntaxUID = transfer_syntax
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        stated = data_set.get(keyword)
        if stated or f"MediaStorage{keyword}" not in meta:
            setattr(meta, f"MediaStorage{keyword}", stated)
    validate_file_meta(meta, enforce_standard=True)
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = False, True
    out.write(bytes(128) + b"DICM")
    write_file_meta_info(out, meta, enforce_standard=True)
    return out.getvalue()


def written(data_set: Dataset, *, implicit: bool) -> bytes:
    """The Data Elements, little endian, without File Meta Information."""
    out = BytesIO()
    meta, data_set.file_meta = getattr(data_set, "file_meta", FileMetaDataset()), FileMetaDataset()
    data_set.preamble = None
    pydicom.dcmwrite(out, data_set, implicit_vr=implicit, little_endian=True, force_encoding=True)
    data_set.file_meta = meta
    return out.getvalue()


def _around_pixel_data(source: export.Source) -> tuple[bytes, bytes]:
    """The received file before the pixel value (with the head of its element), and after it."""
    if source.descriptor.whole_file or not source.descriptor.pixel_tag:
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
        BytesIO(head[begins.data_set :]), uids.transfer_syntax(descriptor.transfer_syntax).implicit,
        not descriptor.big_endian, stop_when=lambda tag, vr, length: tag in _PIXEL_TAGS,
    )  # fmt: skip
    data_set.file_meta = FileMetaDataset(read_dataset(BytesIO(head[begins.meta : begins.data_set]), False, True))
    return data_set


def _read_tail(tail: bytes, descriptor: Descriptor) -> Dataset:
    if tail.startswith(_SEQUENCE_DELIMITER):
        tail = tail[len(_SEQUENCE_DELIMITER) :]
    implicit = uids.transfer_syntax(descriptor.transfer_syntax).implicit
    if len(tail) < 8:
        return Dataset()
    return read_dataset(BytesIO(tail), implicit, not descriptor.big_endian)


def _swap_words(data_set: Dataset) -> None:
    """Binary values of words, which pydicom leaves in the byte order it read, as little endian."""
    for element in data_set.iterall():
        size = WORD_SIZES.get(element.VR)
        if size and isinstance(element.value, bytes):
            element.value = swapped(element.value, size)


def unreadable(error: Exception, transfer_syntax: str) -> UnsupportedTransferSyntaxError:
    """What to raise for anything that pydicom raised."""
    name = uids.transfer_syntax(transfer_syntax).name
    said = str(error).partition("\n")[0][:200]  # pydicom's own messages end in a traceback
    return UnsupportedTransferSyntaxError(f"the Data Set cannot be rewritten as {name}: {said}")
