"""A Data Set that may be stored, and its Part 10 file in any Transfer Syntax."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pacs.geometry import FrameGeometry

PREAMBLE = bytes(128)
DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"


@dataclass(frozen=True)
class Built:
    """A Part 10 file and what is known of it without reading it."""

    name: str
    file: bytes = field(repr=False)
    transfer_syntax: str
    frames: tuple[bytes, ...] | None = field(default=None, repr=False)
    """Each frame as it should be addressed: its fragments joined, or its native bytes, little endian, the first bit in
    bit 0. None where nothing is to be served as frames."""
    bulk: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Values behind `bulkdata/<path>`, little endian."""
    warns: str = ""
    """Part of a sentence that the archive has to say about it; "" for a file without fault."""


def uid(*names: object) -> str:
    """The same UID for the same names, at every run. PS3.5 B.2"""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def data_set(name: str, sop_class: str, modality: str) -> Dataset:
    """The attributes that every composite instance needs. `name` decides the UIDs: equal names, equal instances."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = uid(name, "instance")
    ds.StudyInstanceUID = uid(name, "study")
    ds.SeriesInstanceUID = uid(name, "series")
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20250102", "030405", "A1", "1"
    ds.ContentDate, ds.ContentTime = "20250102", "030405"
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = modality, 1, 1
    ds.Manufacturer = "Nobody"
    ds.PatientName, ds.PatientID = "Objects^Built=構築", "BUILT"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "O"
    return ds


def meta(ds: Dataset, transfer_syntax: str) -> bytes:
    """Preamble, prefix and File Meta Information. PS3.10 7.1"""
    info = FileMetaDataset()
    info.FileMetaInformationVersion = b"\0\1"
    info.MediaStorageSOPClassUID = ds.SOPClassUID
    info.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    info.TransferSyntaxUID = UID(transfer_syntax)
    info.ImplementationClassUID = UID("1.2.826.0.1.3680043.8.498.1")
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_dataset(out, info)
    body = out.getvalue()
    return PREAMBLE + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body


def encode(ds: Dataset, *, implicit: bool = False, big_endian: bool = False) -> bytes:
    """The Data Elements alone."""
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = not big_endian, implicit
    write_dataset(out, ds)
    return out.getvalue()


DEFLATED = (DeflatedExplicitVRLittleEndian, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")


def write(ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian, *, tail: bytes = b"") -> bytes:
    """A Part 10 file; `tail` are Data Elements that are already encoded, such as encapsulated Pixel Data."""
    body = encode(
        ds,
        implicit=transfer_syntax == ImplicitVRLittleEndian,
        big_endian=transfer_syntax == ExplicitVRBigEndian,
    ) + tail  # fmt: skip
    if transfer_syntax in DEFLATED:
        deflater = zlib.compressobj(6, wbits=-zlib.MAX_WBITS)
        body = deflater.compress(body) + deflater.flush()
        body += b"\0" * (len(body) % 2)
    return meta(ds, transfer_syntax) + body


def item(value: bytes, *, length: int | None = None) -> bytes:
    """A fragment or table with its item header; `length` is stated instead of the true one. PS3.5 A.4"""
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(value) if length is None else length) + value


def offsets(frames: Sequence[Sequence[bytes]], *, first: int = 0) -> list[int]:
    """Where each frame's first item begins, counted from the first fragment's item. PS3.5 A.4"""
    found, at = [], first
    for frame in frames:
        found.append(at)
        at += sum(8 + len(fragment) for fragment in frame)
    return found


def pixel_element(value: bytes, vr: bytes = b"OB") -> bytes:
    """Encapsulated Pixel Data around items that are already there."""
    return b"\xe0\x7f\x10\x00" + vr + b"\0\0\xff\xff\xff\xff" + value + DELIMITER


def encapsulated(
    frames: Sequence[Sequence[bytes]], *, table: Sequence[int] | None = (), extended: bool = False
) -> bytes:
    """Pixel Data with its fragments. `table`: the Basic Offset Table, None for the true one, () for an empty one.

    `extended` puts true Extended Offset Tables (7FE0,0001) and (7FE0,0002) before it. PS3.5 A.4, PS3.3 C.7.6.3.1.8
    """
    starts = offsets(frames) if table is None else table
    before = b""
    if extended:
        for tag, numbers in (
            (b"\x01\0", offsets(frames)), (b"\x02\0", [sum(map(len, frame)) for frame in frames])
        ):  # fmt: skip
            value = struct.pack(f"<{len(numbers)}Q", *numbers)
            before += b"\xe0\x7f" + tag + b"OV\0\0" + struct.pack("<I", len(value)) + value
    fragments = b"".join(item(fragment) for frame in frames for fragment in frame)
    return before + pixel_element(item(struct.pack(f"<{len(starts)}I", *starts)) + fragments)


def even(value: bytes) -> bytes:
    """Padded as a fragment has to be. PS3.5 A.4"""
    return value + b"\0" * (len(value) % 2)


def cut_even(frame: bytes, fragments: int) -> list[bytes]:
    """A frame in pieces of even length, as equal as that allows."""
    step = -(-len(frame) // fragments)
    step += step % 2
    return [frame[start : start + step] for start in range(0, len(frame), step)]


def read(file: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(file), force=True)


def described(ds: Dataset) -> FrameGeometry:
    """The Image Pixel description of a Data Set. Raises what pydicom raises where parts are missing."""
    return FrameGeometry(
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation,
        int(ds.get("PlanarConfiguration") or 0), str(ds.PhotometricInterpretation), int(ds.get("NumberOfFrames") or 1),
    )  # fmt: skip
