"""The Data Set of a received file on both sides of its pixel data, read by pydicom and written again."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import pydicom
import pydicom.config
from pydicom.dataset import Dataset, FileMetaDataset, validate_file_meta
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info

from pacs import export, tags, uids
from pacs.dicom import part10
from pacs.dicom.byteorder import WORD_SIZES, swapped
from pacs.errors import DicomError, UnsupportedTransferSyntaxError
from pacs.storage.model import Descriptor, Encoding

# What was accepted is given back, odd values too: judging them again here would only lose data.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE

_PIXEL_TAGS = (tags.FLOAT_PIXEL_DATA, tags.DOUBLE_FLOAT_PIXEL_DATA, tags.PIXEL_DATA)
_OFFSET_TABLES = (0x7FE00001, 0x7FE00002, 0x7FE00003)
"""Of encapsulated Pixel Data alone. PS3.3 C.7.6.3"""
_SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"


_MOST_ITEMS = 1 << 14
_LONGEST = 16 << 20
"""Items, and bytes without pixel data, beyond which pydicom is not asked: it takes up to 0.3 ms an item."""
_LONGEST_META = 1 << 20


@dataclass(frozen=True, slots=True)
class Received:
    """The file on both sides of its pixel data; of a deflated one, inflated."""

    descriptor: Descriptor
    head: bytes | memoryview
    """What comes before the pixel value, with the head of its element."""
    tail: bytes | memoryview
    """What comes after the last byte of it that is a frame's."""
    begins: part10.Beginning

    @classmethod
    def of(cls, source: export.Source) -> Received:
        """Raises UnsupportedTransferSyntaxError for a File Meta Information that is out of all proportion."""
        head, tail = _inflated(source) if source.descriptor.whole_file else _around_pixel_data(source)
        begins = part10.beginning(head)
        if begins.data_set - begins.meta > _LONGEST_META:
            raise UnsupportedTransferSyntaxError("the File Meta Information is longer than 1 MiB")
        return cls(source.descriptor, head, tail, begins)

    @property
    def data_set(self) -> int:
        """Where in `head` the Data Set begins."""
        return self.begins.data_set

    @property
    def implicit(self) -> bool:
        """As the first Data Element shows, which may be against the Transfer Syntax."""
        first = bytes(self.head[self.data_set : self.data_set + 6])
        if len(first) < 6:
            return uids.transfer_syntax(self.descriptor.transfer_syntax).implicit
        return not (64 < first[4] < 91 and 64 < first[5] < 91)

    @property
    def encapsulated(self) -> bool:
        key = self.descriptor.array_key
        return key is not None and key.encoding is Encoding.ENCAPSULATED

    @property
    def dropped(self) -> tuple[int, ...]:
        """Elements that are made anew or have lost their meaning."""
        return (*_PIXEL_TAGS, *_OFFSET_TABLES) if self.encapsulated else _PIXEL_TAGS

    def tail_behind(self, offset: int, length: int | None) -> bytes | memoryview:
        """The Data Elements behind a pixel value at `offset` of that length, None: undefined. Raises DicomError."""
        if (length is None) is not self.encapsulated:
            raise DicomError("the pixel data is not in the form it has to be in", offset)
        if length is None:
            return self.tail[len(_SEQUENCE_DELIMITER) :] if self._delimited else self.tail
        if self.descriptor.whole_file:
            return self.tail
        if offset != len(self.head) or length < self.descriptor.value_length:
            raise DicomError("the pixel data is not where it has to be", offset)
        # The value may be longer than its frames, or of an odd length without a pad.
        return self.tail[length - self.descriptor.value_length :]

    @property
    def _delimited(self) -> bool:
        return bytes(self.tail[: len(_SEQUENCE_DELIMITER)]) == _SEQUENCE_DELIMITER

    def meta(self) -> FileMetaDataset:
        """The File Meta Information, empty where there is none."""
        data = self.head[self.begins.meta : self.data_set]
        return FileMetaDataset(read_dataset(BytesIO(data), False, True))

    def check_size(self) -> None:
        """UnsupportedTransferSyntaxError for what would keep pydicom busy for minutes."""
        item = b"\xff\xfe\xe0\0" if self.descriptor.big_endian else b"\xfe\xff\0\xe0"
        items = sum(bytes(part).count(item) for part in (self.head, self.tail))
        if items > _MOST_ITEMS or len(self.head) + len(self.tail) > _LONGEST:
            raise UnsupportedTransferSyntaxError(
                f"the Data Set is damaged or big endian, and too long to be rewritten so ({items} items)"
            )


def read(given: Received) -> tuple[Dataset, Dataset]:
    """The Data Set before the pixel data, with its File Meta Information, and what stands behind it.

    Neither has pixel data or its offset tables; binary values are little endian. Raises what pydicom raises.
    """
    descriptor = given.descriptor
    head, tail = bytes(given.head), bytes(given.tail)
    if descriptor.pixel_tag and not given.encapsulated and not descriptor.whole_file:
        # The value may be longer than its frames, or of an odd length without a pad.
        tail = tail[_stated_length(head, descriptor) - descriptor.value_length :]
    # Transfer Syntax and beginning are what ingest found, not what the file says: pydicom would believe the file.
    data_set = read_dataset(
        BytesIO(head[given.data_set :]), uids.transfer_syntax(descriptor.transfer_syntax).implicit,
        not descriptor.big_endian, stop_when=lambda tag, vr, length: tag in _PIXEL_TAGS,
    )  # fmt: skip
    data_set.file_meta = given.meta()
    after = _read_tail(tail, descriptor)
    for tag in given.dropped:
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


def _inflated(source: export.Source) -> tuple[memoryview, memoryview]:
    file = part10.scan(b"".join(export.rebuild(source)))
    end = len(file.data)
    if file.pixel is None or not source.descriptor.pixel_tag:
        return file.data, file.data[end:]
    return file.data[: file.pixel.offset], file.data[file.pixel.offset + file.pixel.length :]


def _around_pixel_data(source: export.Source) -> tuple[bytes, bytes]:
    """The received file before the pixel value (with the head of its element), and after it."""
    if not source.descriptor.pixel_tag:
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
