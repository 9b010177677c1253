"""What a Data Set says of its pixel data, made true of what the pixel data becomes (PS3.3 C.7.6.3, C.7.6.1.1.5)."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs import uids
from pacs.errors import UnsupportedTransferSyntaxError
from pacs.geometry import FrameGeometry
from pacs.storage.model import Descriptor

LOSSY_JPEG: Final = (
    uids.JPEG_BASELINE, uids.JPEG_EXTENDED, *(f"1.2.840.10008.1.2.4.{number}" for number in range(52, 57))
)  # fmt: skip
"""The DCT processes: what was stored so has lost something, whether its Data Set says so or not. T.81"""

_OVERLAYS: Final = range(0x6000, 0x6020, 2)
_RANGE_TAGS: Final = (0x00280106, 0x00280107, 0x00280108, 0x00280109)
"""Smallest and largest pixel values, which lossy compression moves."""
_SIGNATURES: Final = (0x4FFE0001, 0xFFFAFFFA)


def describe(data_set: Dataset, geometry: FrameGeometry) -> None:
    """Image Pixel attributes as `geometry` has them. Palettes, padding values and windows stay as they are."""
    data_set.PhotometricInterpretation = geometry.photometric_interpretation
    if geometry.samples_per_pixel > 1:
        data_set.PlanarConfiguration = geometry.planar_configuration
    elif "PlanarConfiguration" in data_set:
        del data_set.PlanarConfiguration
    data_set.BitsAllocated = geometry.bits_allocated
    data_set.BitsStored = geometry.bits_stored
    data_set.HighBit = geometry.high_bit
    data_set.PixelRepresentation = geometry.pixel_representation
    # Number of Frames may have said something else than there is.
    if geometry.frames != 1 or "NumberOfFrames" in data_set:
        data_set.NumberOfFrames = geometry.frames


def check_overlays(data_set: Dataset, transfer_syntax: str) -> None:
    """UnsupportedTransferSyntaxError when an overlay lies in the unused bits of the samples: a codestream has none.

    `dicom.attributes.overlay_in_samples` tells the same of its JSON. PS3.5 8.1.2, PS3.3 C.9.2
    """
    if data_set.get("BitsStored") == data_set.get("BitsAllocated"):
        return
    for group in _OVERLAYS:
        if (group, 0x0010) in data_set and (group, 0x3000) not in data_set:
            name = uids.transfer_syntax(transfer_syntax).name
            raise UnsupportedTransferSyntaxError(f"{name} has no place for overlays in unused bits of samples")


def drop_encapsulated_icon(data_set: Dataset) -> None:
    """Leave out an Icon Image that is compressed: it may be so only in the Transfer Syntax it came in. PS3.5 A.4"""
    for item in data_set.get("IconImageSequence") or ():
        if "PixelData" in item and item["PixelData"].is_undefined_length:
            del data_set.IconImageSequence
            return


def mark_lossy_history(data_set: Dataset, stored: str) -> None:
    """Say that what is sent was once lossy, where the stored form proves it and the Data Set forgot. C.7.6.1.1.5"""
    if stored in LOSSY_JPEG and not data_set.get("LossyImageCompression"):
        data_set.LossyImageCompression = "01"
        if not data_set.get("LossyImageCompressionMethod"):
            data_set.LossyImageCompressionMethod = "ISO_10918_1"


def mark_lossy(data_set: Dataset, uid: str, transfer_syntax: str, method: str, ratio: float) -> None:
    """Make the Data Set that of a lossy copy: a derived image with a SOP Instance UID of its own. C.7.6.1.1.5, C.12.4

    A compressed version of a DICOM image receives a new UID: otherwise two archives could hold different pixels
    under one name.
    """
    item: Any = Dataset()
    item.ReferencedSOPClassUID = data_set.get("SOPClassUID")
    item.ReferencedSOPInstanceUID = data_set.get("SOPInstanceUID")
    item.PurposeOfReferenceCodeSequence = Sequence([_code("121320", "Uncompressed predecessor")])
    data_set.SourceImageSequence = Sequence([*(data_set.get("SourceImageSequence") or ()), item])
    data_set.SOPInstanceUID = uid
    data_set.ImageType = ["DERIVED", *_values(data_set, "ImageType")[1:]] if _values(data_set, "ImageType") else [
        "DERIVED", "SECONDARY"
    ]  # fmt: skip
    rounded = f"{ratio:.3g}" if ratio < 1000 else f"{ratio:.0f}"
    said = str(data_set.get("DerivationDescription") or "")
    text = f"Lossy compression with {uids.transfer_syntax(transfer_syntax).name}, ratio {rounded}:1"
    data_set.DerivationDescription = f"{said}; {text}"[-1024:] if said else text
    codes = list(data_set.get("DerivationCodeSequence") or ())
    data_set.DerivationCodeSequence = Sequence([*codes, _code("113040", "Lossy Compression")])
    ratios, methods = _values(data_set, "LossyImageCompressionRatio"), _values(data_set, "LossyImageCompressionMethod")
    steps = max(len(ratios), len(methods))
    data_set.LossyImageCompression = "01"
    # Values of both belong together by their position, and a step whose ratio nobody told has an empty one.
    data_set.LossyImageCompressionRatio = [*ratios, *[""] * (steps - len(ratios)), rounded]
    data_set.LossyImageCompressionMethod = [*methods, *[""] * (steps - len(methods)), method]
    for tag in (*_RANGE_TAGS, *_SIGNATURES):
        if tag in data_set:
            del data_set[tag]


def derived_uid(descriptor: Descriptor, made: str) -> str:
    """The SOP Instance UID of a copy of an instance that is made like this, the same for whoever asks. PS3.5 B.2"""
    digest = hashlib.sha256(descriptor.sha256 + made.encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def _code(value: str, meaning: str) -> Dataset:
    code: Any = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code  # type: ignore[no-any-return]


def _values(data_set: Dataset, keyword: str) -> list[Any]:
    value = data_set.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
