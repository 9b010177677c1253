"""Images: native ones of every bit depth and Transfer Syntax, and one for each compression."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from tests.objects.base import Built, cut_even, data_set, encapsulated, even, uid, write

Samples: TypeAlias = npt.NDArray[Any]

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MULTI_FRAME = {1: "1.2.840.10008.5.1.4.1.1.7.1", 8: "1.2.840.10008.5.1.4.1.1.7.2", 16: "1.2.840.10008.5.1.4.1.1.7.3"}
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
NATIVE = (
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian,
)  # fmt: skip

JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"


def pattern(rows: int, columns: int, bits: int, *, samples: int = 1, number: int = 0, signed: bool = False) -> Samples:
    """A smooth image with a few sharp edges, another one for each `number`; (rows, columns[, 3])."""
    y, x, z = np.mgrid[0:rows, 0:columns, 0:samples].astype(np.int64)
    top = (1 << min(bits, 24)) - 1
    values = (x * top // max(1, columns - 1) + y * top // max(1, rows - 1)) // 2 + z * (top // 4) + number * 7
    values[rows // 4 : rows // 2, columns // 4 : columns // 2] += top // 3
    values %= top + 1
    if signed:
        values -= (top + 1) // 2
    width = 8 if bits <= 8 else 16 if bits <= 16 else 32
    return (values if samples > 1 else values[..., 0]).astype(f"{'i' if signed else 'u'}{width // 8}")


def describe(
    ds: Dataset, shape: tuple[int, ...], *, allocated: int, stored: int = 0, signed: bool = False, frames: int = 1,
    photometric: str = "", planar: int = 0,
) -> Dataset:  # fmt: skip
    """Image Pixel attributes. PS3.3 C.7.6.3"""
    ds.Rows, ds.Columns = shape[:2]
    ds.SamplesPerPixel = shape[2] if len(shape) > 2 else 1
    ds.PhotometricInterpretation = photometric or ("RGB" if ds.SamplesPerPixel == 3 else "MONOCHROME2")
    ds.BitsAllocated = allocated
    ds.BitsStored = stored or allocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(signed)
    if ds.SamplesPerPixel > 1:
        ds.PlanarConfiguration = planar
    if frames > 1:
        ds.NumberOfFrames = frames
    return ds


def image(
    name: str, shape: tuple[int, ...], *, allocated: int, stored: int = 0, signed: bool = False, frames: int = 1,
    photometric: str = "", planar: int = 0,
) -> Dataset:  # fmt: skip
    """An image without its pixel data."""
    sop_class = SECONDARY_CAPTURE if frames == 1 else MULTI_FRAME.get(allocated, MULTI_FRAME[16])
    ds = data_set(name, sop_class, "OT")
    ds.ConversionType = "SYN"
    return describe(
        ds, shape, allocated=allocated, stored=stored, signed=signed, frames=frames, photometric=photometric,
        planar=planar,
    )  # fmt: skip


# --- native ---------------------------------------------------------------------------------------------------


def native(
    name: str, frames: Sequence[Samples], transfer_syntax: str = ExplicitVRLittleEndian, *, stored: int = 0,
    planar: int = 0, vr: str = "OW", allocated: int = 0, photometric: str = "", number_of_frames: int | None = None,
    there: int | None = None, warns: str = "",
) -> Built:  # fmt: skip
    """Any native image. `vr` OW with samples of 8 bits in big endian are words, two by two the wrong way round.

    `number_of_frames` is stated instead of the true number, 0 leaves it out; `there` are then those to be served.
    """
    first = frames[0]
    signed, floating = first.dtype.kind == "i", first.dtype.kind == "f"
    bits = allocated or 8 * first.dtype.itemsize
    ds = image(
        name, first.shape, allocated=bits, stored=stored, signed=signed, frames=len(frames), planar=planar,
        photometric=photometric,
    )  # fmt: skip
    big = transfer_syntax == ExplicitVRBigEndian
    if bits == 1:
        packed = np.packbits(np.concatenate([frame.reshape(-1) for frame in frames]), bitorder="little").tobytes()
        served = tuple(np.packbits(frame.reshape(-1), bitorder="little").tobytes() for frame in frames)
        value = even(packed)
        if big and vr == "OW":
            value = np.frombuffer(value, "u2").byteswap().tobytes()
    else:
        laid_out = [np.moveaxis(frame, -1, 0) if planar and frame.ndim == 3 else frame for frame in frames]
        served = tuple(frame.astype(frame.dtype.newbyteorder("<")).tobytes() for frame in laid_out)
        value = even(b"".join(served))
        unit = max(2 if vr == "OW" else 1, bits // 8)
        if big and unit > 1:
            value = np.frombuffer(value, f"u{unit}").byteswap().tobytes()
    if floating:
        ds.SOPClassUID = PARAMETRIC_MAP
        del ds.BitsStored, ds.HighBit, ds.PixelRepresentation
        tag, vr = ("FloatPixelData", "OF") if bits == 32 else ("DoubleFloatPixelData", "OD")
        setattr(ds, tag, value)
        ds[tag].VR = vr
    else:
        ds.PixelData = value
        ds["PixelData"].VR = vr
    state(ds, number_of_frames)
    return Built(name, write(ds, transfer_syntax), transfer_syntax, served[:there], warns=warns)


def state(ds: Dataset, number_of_frames: int | None) -> None:
    """Another Number of Frames than the true one, or none for 0."""
    if number_of_frames:
        ds.NumberOfFrames = number_of_frames
    elif number_of_frames == 0:
        ds.pop("NumberOfFrames", None)


def natives() -> Iterator[Built]:
    """Each bit depth and sign in each native Transfer Syntax."""
    kinds: dict[str, tuple[Callable[[int], Samples], dict[str, Any]]] = {
        "1 bit": (lambda n: pattern(9, 7, 1, number=n), {"allocated": 1, "vr": "OB"}),
        "1 bit in words": (lambda n: pattern(9, 7, 1, number=n), {"allocated": 1, "vr": "OW"}),
        "8 bits": (lambda n: pattern(9, 11, 8, number=n), {"vr": "OB"}),
        "8 bits in words": (lambda n: pattern(9, 11, 8, number=n), {"vr": "OW"}),
        "12 of 16 bits": (lambda n: pattern(17, 19, 12, number=n), {"stored": 12}),
        "signed 12 of 16 bits": (lambda n: pattern(17, 19, 12, number=n, signed=True), {"stored": 12}),
        "16 bits": (lambda n: pattern(17, 19, 16, number=n), {}),
        "32 bits": (lambda n: pattern(9, 11, 32, number=n), {}),
        "signed 32 bits": (lambda n: pattern(9, 11, 32, number=n, signed=True), {}),
        "float": (lambda n: pattern(9, 11, 16, number=n).astype("f4") / 3, {}),
        "double": (lambda n: pattern(9, 11, 16, number=n).astype("f8") / 3, {}),
        "colour by pixel": (lambda n: pattern(9, 11, 8, samples=3, number=n), {"vr": "OB"}),
        "colour by plane": (lambda n: pattern(9, 11, 8, samples=3, number=n), {"vr": "OB", "planar": 1}),
        "colour by plane in words": (lambda n: pattern(9, 11, 8, samples=3, number=n), {"vr": "OW", "planar": 1}),
        "colour of 16 bits": (lambda n: pattern(9, 11, 16, samples=3, number=n), {}),
    }
    for kind, (make, details) in kinds.items():
        for syntax in NATIVE:
            for count in (1, 3):
                name = f"native {kind}, {count} frames, {syntax.name}"
                yield native(name, [make(number) for number in range(count)], syntax, **details)


# --- compressed -----------------------------------------------------------------------------------------------


def _rle(samples: Samples) -> bytes:
    """A segment for each byte of a sample, the highest first. PS3.5 G"""
    count = samples.dtype.itemsize * (samples.shape[2] if samples.ndim == 3 else 1)
    planes = np.frombuffer(samples.astype(samples.dtype.newbyteorder(">")).tobytes(), np.uint8).reshape(-1, count)
    header, at, segments = [count], 64, []
    for plane in planes.T:
        segments.append(even(imagecodecs.packbits_encode(np.ascontiguousarray(plane).reshape(samples.shape[:2]))))
        header.append(at)
        at += len(segments[-1])
    return np.array(header + [0] * (16 - len(header)), "<u4").tobytes() + b"".join(segments)


def _progressive(samples: Samples) -> bytes:
    out = BytesIO()
    Image.fromarray(samples).save(out, "JPEG", quality=90, progressive=True)
    return out.getvalue()


def _deflated(samples: Samples) -> bytes:
    deflater = zlib.compressobj(6, wbits=-zlib.MAX_WBITS)
    return deflater.compress(samples.astype(samples.dtype.newbyteorder("<")).tobytes()) + deflater.flush()


def _recompressed(samples: Samples) -> bytes:
    return bytes(imagecodecs.jpegxl_encode_jpeg(imagecodecs.jpeg_encode(samples, level=90), usecontainer=False))


_RETIRED = {f"1.2.840.10008.1.2.4.{number}" for number in (52, 53, 54, 55, 56, *range(58, 67))}

Encoder: TypeAlias = tuple[int, Callable[[Samples], bytes]]
"""(bits stored, encoder)"""

ENCODERS: dict[str, Encoder] = {
    "1.2.840.10008.1.2.1.98": (16, lambda a: a.astype("<u2").tobytes()),
    "1.2.840.10008.1.2.8.1": (16, _deflated),
    JPEG_BASELINE: (8, lambda a: imagecodecs.jpeg_encode(a, level=90)),
    JPEG_EXTENDED: (12, lambda a: imagecodecs.jpeg_encode(a, level=90, bitspersample=12)),
    # What the retired processes have in common is that no decoder here has to know them.
    **dict.fromkeys(sorted(_RETIRED), (8, _progressive)),
    "1.2.840.10008.1.2.4.57": (12, lambda a: imagecodecs.jpeg_encode(a, lossless=True, bitspersample=12, predictor=4)),
    "1.2.840.10008.1.2.4.70": (16, lambda a: imagecodecs.jpeg_encode(a, lossless=True, bitspersample=16, predictor=1)),
    "1.2.840.10008.1.2.4.80": (12, lambda a: imagecodecs.jpegls_encode(a)),
    "1.2.840.10008.1.2.4.81": (8, lambda a: imagecodecs.jpegls_encode(a, level=2)),
    **dict.fromkeys(
        ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.92"),
        (12, lambda a: imagecodecs.jpeg2k_encode(a, codecformat="j2k", reversible=True, bitspersample=12)),
    ),
    **dict.fromkeys(
        ("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.93"),
        (8, lambda a: imagecodecs.jpeg2k_encode(a, codecformat="j2k", level=45, reversible=False)),
    ),
    "1.2.840.10008.1.2.4.110": (8, lambda a: imagecodecs.jpegxl_encode(a, lossless=True)),
    "1.2.840.10008.1.2.4.111": (8, _recompressed),
    "1.2.840.10008.1.2.4.112": (8, lambda a: imagecodecs.jpegxl_encode(a, distance=1.0)),
    "1.2.840.10008.1.2.4.201": (16, lambda a: imagecodecs.htj2k_encode(a, reversible=True)),
    "1.2.840.10008.1.2.4.202": (
        16,
        lambda a: imagecodecs.htj2k_encode(
            a, reversible=True, resolutions=5, tlm=True, tilepart=imagecodecs.HTJ2K.TILEPART.RESOLUTIONS
        ),
    ),
    "1.2.840.10008.1.2.4.203": (8, lambda a: imagecodecs.htj2k_encode(a, reversible=False)),
    "1.2.840.10008.1.2.5": (16, _rle),
}


def compressed(
    transfer_syntax: str, frames: int = 1, *, fragments: int = 1, rows: int = 40, columns: int = 56,
    table: Sequence[int] | None = (), extended: bool = False, number_of_frames: int | None = None, tail: bytes = b"",
    name: str = "",
) -> Built:  # fmt: skip
    """Grey frames in a compressed Transfer Syntax, each cut into `fragments`.

    `number_of_frames` is stated instead of the true number; 0 leaves the attribute out.
    """
    bits, encode = ENCODERS[transfer_syntax]
    pictures = [pattern(rows, columns, bits, number=number) for number in range(frames)]
    encoded = [even(bytes(encode(picture))) for picture in pictures]
    name = name or f"compressed {transfer_syntax}, {frames} frames of {fragments} fragments, {table} {extended}"
    ds = image(name, (rows, columns), allocated=8 * pictures[0].dtype.itemsize, stored=bits, frames=frames)
    state(ds, number_of_frames)
    pixels = encapsulated([cut_even(frame, fragments) for frame in encoded], table=table, extended=extended)
    return Built(name, write(ds, transfer_syntax, tail=pixels + tail), transfer_syntax, tuple(encoded))


def compressions() -> Iterator[Built]:
    """One frame and several in each compressed Transfer Syntax."""
    for syntax in ENCODERS:
        yield compressed(syntax)
        yield compressed(syntax, 3)


# --- long multi-frames ----------------------------------------------------------------------------------------


def long_multi_frame(frames: int, *, transfer_syntax: str = JPEG_BASELINE, length: int = 8) -> Built:
    """So many frames of `length` bytes that whoever walks them is seen. They are no images that decode."""
    name = f"{frames} frames, {transfer_syntax}"
    ds = image(name, (1, length), allocated=8, frames=frames)
    values = [number.to_bytes(length, "little") for number in range(frames)]
    if transfer_syntax in ENCODERS:
        file = write(ds, transfer_syntax, tail=encapsulated([[value] for value in values]))
    else:
        ds.PixelData = b"".join(values)
        ds["PixelData"].VR = "OB"
        file = write(ds, transfer_syntax)
    return Built(name, file, transfer_syntax, tuple(values))


def slide(tiles_across: int = 5, tiles_down: int = 3, *, side: int = 32) -> Built:
    """A level of a whole-slide image: a frame for each tile. PS3.3 A.32.8"""
    name = f"slide of {tiles_across} by {tiles_down} tiles"
    frames = tiles_across * tiles_down
    ds = image(name, (side, side, 3), allocated=8, frames=frames, photometric="YBR_FULL_422")
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.77.1.6", "SM"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.TotalPixelMatrixColumns, ds.TotalPixelMatrixRows = tiles_across * side - 5, tiles_down * side - 9
    ds.DimensionOrganizationType = "TILED_FULL"
    ds.LossyImageCompression, ds.LossyImageCompressionRatio, ds.LossyImageCompressionMethod = "01", 9, "ISO_10918_1"
    ds.NumberOfOpticalPaths, ds.TotalPixelMatrixFocalPlanes, ds.FrameOfReferenceUID = 1, 1, uid(name, "space")
    encoded = [
        even(imagecodecs.jpeg_encode(pattern(side, side, 8, samples=3, number=number), level=80, subsampling="422"))
        for number in range(frames)
    ]
    tail = encapsulated([[frame] for frame in encoded], extended=True)
    return Built(name, write(ds, JPEG_BASELINE, tail=tail), JPEG_BASELINE, tuple(encoded))
