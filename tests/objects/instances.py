"""What is no ordinary image: documents, reports, waveforms, spectra, segmentations, plans, video, references."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.objects.base import Built, cut_even, data_set, encapsulated, even, uid, write
from tests.objects.images import describe, pattern

_CLASS = "1.2.840.10008.5.1.4.1.1."


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return Sequence([ds])


def _noise(length: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(length)


# --- documents and models -------------------------------------------------------------------------------------

DOCUMENTS = {
    "pdf": ("104.1", "DOC", "application/pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + _noise(3001, 1) + b"\n%%EOF\n"),
    "cda": ("104.2", "DOC", "text/XML", b'<?xml version="1.0"?><ClinicalDocument/>' + b"<!-- \xc3\xa9 -->" * 200),
    "stl": ("104.3", "M3D", "model/stl", bytes(80) + (60).to_bytes(4, "little") + _noise(60 * 50, 2)),
    "obj": ("104.4", "M3D", "model/obj", b"".join(b"v %d 0 1\n" % n for n in range(500))),
    "mtl": ("104.5", "M3D", "model/mtl", b"newmtl a\nKd 1 1 1\n"),
}


def document(kind: str, transfer_syntax: str = ExplicitVRLittleEndian) -> Built:
    """An encapsulated document or 3D model. PS3.3 A.45, A.85"""
    sop_class, modality, media_type, value = DOCUMENTS[kind]
    name = f"document {kind}, {transfer_syntax}"
    ds = data_set(name, _CLASS + sop_class, modality)
    ds.DocumentTitle, ds.BurnedInAnnotation, ds.MIMETypeOfEncapsulatedDocument = "Title", "NO", media_type
    ds.EncapsulatedDocument = even(value)
    ds.EncapsulatedDocumentLength = len(value)
    bulk = {"00420011": even(value)} if len(value) > 1024 else {}
    return Built(name, write(ds, transfer_syntax), transfer_syntax, bulk=bulk)


# --- reports and states ---------------------------------------------------------------------------------------


def report(depth: int = 12) -> Built:
    """A structured report: containers in containers, with text, a number, a reference and a code. PS3.3 A.35"""
    ds = data_set("report", _CLASS + "88.33", "SR")
    ds.CompletionFlag, ds.VerificationFlag, ds.ValueType = "COMPLETE", "UNVERIFIED", "CONTAINER"
    ds.ContinuityOfContent = "SEPARATE"
    ds.ConceptNameCodeSequence = _code("126000", "DCM", "Imaging Measurement Report")
    level = ds
    for number in range(depth):
        text, measured, inner = Dataset(), Dataset(), Dataset()
        text.RelationshipType, text.ValueType = "CONTAINS", "TEXT"
        text.ConceptNameCodeSequence = _code("121071", "DCM", "Finding")
        text.TextValue = f"Befund {number}: Größe \"5\" mm\r\nline\\two\tend"
        measured.RelationshipType, measured.ValueType = "CONTAINS", "NUM"
        value = Dataset()
        value.NumericValue, value.MeasurementUnitsCodeSequence = "3.25", _code("mm", "UCUM", "mm")
        value.FloatingPointValue, value.RationalNumeratorValue, value.RationalDenominatorValue = 3.25, -13, 4
        measured.MeasuredValueSequence = Sequence([value])
        inner.RelationshipType, inner.ValueType, inner.ContinuityOfContent = "CONTAINS", "CONTAINER", "SEPARATE"
        level.ContentSequence = Sequence([text, measured, inner])
        level = inner
    return Built("report", write(ds), ExplicitVRLittleEndian)


def key_objects() -> Built:
    """PS3.3 A.35.4"""
    ds = data_set("key objects", _CLASS + "88.59", "KO")
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = _code("113000", "DCM", "Of Interest")
    items = []
    for number in range(3):
        reference, item = Dataset(), Dataset()
        reference.ReferencedSOPClassUID = _CLASS + "2"
        reference.ReferencedSOPInstanceUID = uid("key object", number)
        item.ReferencedSOPSequence, item.RelationshipType, item.ValueType = Sequence([reference]), "CONTAINS", "IMAGE"
        items.append(item)
    ds.ContentSequence = Sequence(items)
    return Built("key objects", write(ds, ImplicitVRLittleEndian), ImplicitVRLittleEndian)


def presentation_state(transfer_syntax: str = ExplicitVRLittleEndian) -> Built:
    """A softcopy presentation state with a graphic, a long VOI LUT and a bitmap overlay. PS3.3 A.33.1"""
    name = f"presentation state {transfer_syntax}"
    ds = data_set(name, _CLASS + "11.1", "PR")
    graphic, annotation, lut = Dataset(), Dataset(), Dataset()
    graphic.GraphicAnnotationUnits, graphic.GraphicDimensions, graphic.NumberOfGraphicPoints = "PIXEL", 2, 300
    graphic.GraphicData = [float(n) / 4 for n in range(600)]
    graphic.GraphicType, graphic.GraphicFilled = "POLYLINE", "N"
    annotation.GraphicLayer, annotation.GraphicObjectSequence = "ONE", Sequence([graphic])
    ds.GraphicAnnotationSequence = Sequence([annotation])
    lut.LUTDescriptor, lut.LUTExplanation = [4096, 0, 12], "curve"
    table = np.arange(4096, dtype="<u2").tobytes()
    stored = np.frombuffer(table, "<u2").astype(">u2").tobytes() if transfer_syntax == ExplicitVRBigEndian else table
    lut.LUTData = stored
    lut["LUTData"].VR = "OW"
    voi = Dataset()
    voi.VOILUTSequence = Sequence([lut])
    ds.SoftcopyVOILUTSequence = Sequence([voi])
    bits = _noise(2048, 3)
    overlay = np.frombuffer(bits, "<u2").astype(">u2").tobytes() if stored is not table else bits
    for element, vr, value in (
        (0x0010, "US", 128), (0x0011, "US", 128), (0x0040, "CS", "G"), (0x0050, "SS", [1, 1]), (0x0100, "US", 1),
        (0x0102, "US", 0), (0x3000, "OW", overlay),
    ):  # fmt: skip
        ds.add_new(0x60000000 | element, vr, value)
    bulk = {"00283110/0/00283010/0/00283006": table, "60003000": bits}
    return Built(name, write(ds, transfer_syntax), transfer_syntax, bulk=bulk)


# --- waveforms and spectra ------------------------------------------------------------------------------------


def waveform(transfer_syntax: str = ExplicitVRLittleEndian, *, bits: int = 16) -> Built:
    """Two multiplex groups. PS3.3 C.10.9"""
    name = f"waveform of {bits} bits, {transfer_syntax}"
    ds = data_set(name, _CLASS + ("9.1.1" if bits == 16 else "9.4.1"), "ECG" if bits == 16 else "AU")
    ds.AcquisitionDateTime = "20250102030405.678"
    groups, bulk = [], {}
    for number in range(2):
        group = Dataset()
        group.WaveformOriginality, group.NumberOfWaveformChannels = "ORIGINAL", 12
        group.NumberOfWaveformSamples, group.SamplingFrequency = 200 + number, "500"
        channels = []
        for channel in range(12):
            source = Dataset()
            source.ChannelSourceSequence = _code(f"2:{channel}", "MDC", f"Lead {channel}")
            source.ChannelSensitivity, source.WaveformBitsStored = "1.25", bits
            channels.append(source)
        group.ChannelDefinitionSequence = Sequence(channels)
        group.WaveformBitsAllocated, group.WaveformSampleInterpretation = bits, "SS" if bits == 16 else "UB"
        value = even(_noise(12 * (200 + number) * bits // 8, 4 + number))
        swap = transfer_syntax == ExplicitVRBigEndian and bits == 16
        group.WaveformData = np.frombuffer(value, "<u2").astype(">u2").tobytes() if swap else value
        group["WaveformData"].VR = "OW" if bits == 16 else "OB"
        groups.append(group)
        bulk[f"54000100/{number}/54001010"] = value
    ds.WaveformSequence = Sequence(groups)
    return Built(name, write(ds, transfer_syntax), transfer_syntax, bulk=bulk)


def spectroscopy(transfer_syntax: str = ExplicitVRLittleEndian) -> Built:
    """Complex spectra: float values that are no pixel data. PS3.3 A.36.3"""
    name = f"spectroscopy {transfer_syntax}"
    ds = data_set(name, _CLASS + "4.2", "MR")
    ds.Rows, ds.Columns, ds.NumberOfFrames, ds.DataPointRows, ds.DataPointColumns = 2, 2, 1, 1, 512
    ds.DataRepresentation, ds.SignalDomainColumns = "COMPLEX", "TIME"
    value = np.random.default_rng(7).normal(size=4096).astype("<f4").tobytes()
    big = transfer_syntax == ExplicitVRBigEndian
    ds.SpectroscopyData = np.frombuffer(value, "<f4").astype(">f4").tobytes() if big else value
    return Built(name, write(ds, transfer_syntax), transfer_syntax, bulk={"56000020": value})


# --- segmentations and plans ----------------------------------------------------------------------------------


def segmentation(kind: str) -> Built:
    """`BINARY` (1 bit, frames that end inside a byte), `FRACTIONAL` or `LABELMAP`. PS3.3 A.51"""
    name = f"segmentation {kind}"
    ds = data_set(name, _CLASS + ("66.7" if kind == "LABELMAP" else "66.4"), "SEG")
    bits = 1 if kind == "BINARY" else 8
    frames = [pattern(13, 11, bits, number=number) for number in range(5)]
    describe(ds, (13, 11), allocated=bits, frames=5)
    ds.SegmentationType, ds.ImageType = kind, ["DERIVED", "PRIMARY"]
    if kind == "FRACTIONAL":
        ds.SegmentationFractionalType, ds.MaximumFractionalValue = "PROBABILITY", 255
    segment = Dataset()
    segment.SegmentNumber, segment.SegmentLabel, segment.SegmentAlgorithmType = 1, "Tumour", "MANUAL"
    segment.SegmentedPropertyCategoryCodeSequence = _code("49755003", "SCT", "Morphologically Altered Structure")
    ds.SegmentSequence = Sequence([segment])
    groups = []
    for number in range(5):
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, number]
        group.PlanePositionSequence = Sequence([position])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    if bits == 1:
        ds.PixelData = even(np.packbits(np.concatenate([f.reshape(-1) for f in frames]), bitorder="little").tobytes())
        served = tuple(np.packbits(frame.reshape(-1), bitorder="little").tobytes() for frame in frames)
    else:
        served = tuple(frame.tobytes() for frame in frames)
        ds.PixelData = even(b"".join(served))
    ds["PixelData"].VR = "OB"
    return Built(name, write(ds), ExplicitVRLittleEndian, served)


def surface() -> Built:
    """A surface segmentation: points as OF, triangles as OL. PS3.3 A.57"""
    ds = data_set("surface", _CLASS + "66.5", "SEG")
    mesh, points, primitives = Dataset(), Dataset(), Dataset()
    coordinates = np.random.default_rng(8).normal(size=900).astype("<f4").tobytes()
    triangles = np.random.default_rng(9).integers(1, 300, 600, "<u4").tobytes()
    points.NumberOfSurfacePoints, points.PointCoordinatesData = 300, coordinates
    primitives.LongTrianglePointIndexList = triangles
    mesh.SurfaceNumber, mesh.SurfaceProcessing, mesh.FiniteVolume, mesh.Manifold = 1, "NO", "YES", "YES"
    mesh.SurfacePointsSequence = Sequence([points])
    mesh.SurfaceMeshPrimitivesSequence = Sequence([primitives])
    ds.NumberOfSurfaces, ds.SurfaceSequence = 1, Sequence([mesh])
    bulk = {
        "00660002/0/00660011/0/00660016": coordinates,
        f"00660002/0/00660013/0/{primitives['LongTrianglePointIndexList'].tag:08X}": triangles,
    }
    return Built("surface", write(ds), ExplicitVRLittleEndian, bulk=bulk)


def structure_set() -> Built:
    """Contours of more than a megabyte of decimal strings. PS3.3 A.19"""
    ds = data_set("structure set", _CLASS + "481.3", "RTSTRUCT")
    ds.StructureSetLabel = "RS"
    contours = []
    for number in range(40):
        contour = Dataset()
        contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 300
        contour.ContourData = [f"{(number * 900 + n) / 8:.3f}" for n in range(900)]
        contours.append(contour)
    roi = Dataset()
    roi.ROIDisplayColor, roi.ContourSequence, roi.ReferencedROINumber = [255, 0, 0], Sequence(contours), 1
    ds.ROIContourSequence = Sequence([roi])
    return Built("structure set", write(ds), ExplicitVRLittleEndian)


def dose(transfer_syntax: str = ExplicitVRLittleEndian) -> Built:
    """An RT dose of 32 bits and several frames. PS3.3 A.18"""
    name = f"dose {transfer_syntax}"
    ds = data_set(name, _CLASS + "481.2", "RTDOSE")
    frames = [pattern(11, 13, 32, number=number) for number in range(4)]
    describe(ds, (11, 13), allocated=32, frames=4)
    ds.DoseUnits, ds.DoseType, ds.DoseSummationType, ds.DoseGridScaling = "GY", "PHYSICAL", "PLAN", "1.5e-5"
    ds.FrameIncrementPointer, ds.GridFrameOffsetVector = 0x3004000C, [0, 2.5, 5, 7.5]
    order = ">u4" if transfer_syntax == ExplicitVRBigEndian else "<u4"
    ds.PixelData = b"".join(frame.astype(order).tobytes() for frame in frames)
    ds["PixelData"].VR = "OW"
    return Built(name, write(ds, transfer_syntax), transfer_syntax, tuple(f.astype("<u4").tobytes() for f in frames))


def raw_data() -> Built:
    """Private elements with and without a creator, in a class that archives do not look into. PS3.3 A.37"""
    ds = data_set("raw data", _CLASS + "66", "OT")
    block = ds.private_block(0x0011, "NOBODY KNOWS", create=True)
    block.add_new(0x01, "OB", _noise(1025, 10) + b"\0")
    block.add_new(0x02, "UN", _noise(2000, 11))
    block.add_new(0x03, "SQ", Sequence([Dataset(), Dataset()]))
    block.add_new(0x04, "SV", -(1 << 62))
    ds.add_new(0x00131001, "UN", b"no creator")
    values = {f"001110{n:02X}": block[n].value for n in (1, 2)}
    return Built("raw data", write(ds), ExplicitVRLittleEndian, bulk=values)


# --- video, references, live streams --------------------------------------------------------------------------

_MPEG = b"\x47\x40\x00\x10" + b"\x00\x00\x01\xb3"
VIDEO = {
    **{f"1.2.840.10008.1.2.4.{n}{f}": _MPEG for n in (100, 101) for f in ("", ".1")},
    **{f"1.2.840.10008.1.2.4.{n}{f}": b"\0\0\0\x18ftypmp42" for n in range(102, 107) for f in ("", ".1")},
    **{f"1.2.840.10008.1.2.4.{n}": b"\0\0\0\x18ftyphvc1" for n in (107, 108)},
}


def video(transfer_syntax: str, *, fragments: int = 1, length: int = 20_000, frames: int = 250) -> Built:
    """A stream of many frames in one fragment, or in several of a fragmentable one: one entity. PS3.5 8.2.5 to 8.2.8"""
    name = f"video {transfer_syntax} in {fragments}"
    ds = data_set(name, _CLASS + "77.1.4.1", "XC")
    describe(ds, (1080, 1920, 3), allocated=8, frames=frames, photometric="YBR_PARTIAL_420")
    ds.CineRate, ds.FrameTime, ds.FrameIncrementPointer = 25, "40", 0x00181063
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", 60
    stream = VIDEO[transfer_syntax] + _noise(length, fragments)
    tail = encapsulated([cut_even(even(stream), fragments)])
    return Built(name, write(ds, transfer_syntax, tail=tail), transfer_syntax, (even(stream),))


def reference(transfer_syntax: str) -> Built:
    """An image whose pixels are elsewhere, by JPIP: there is a URL and no Pixel Data. PS3.5 A.6, A.7"""
    name = f"reference {transfer_syntax}"
    ds = data_set(name, _CLASS + "7", "OT")
    describe(ds, (512, 512), allocated=16, stored=12)
    ds.PixelDataProviderURL = "https://example.org/jpip?target=image"
    return Built(name, write(ds, transfer_syntax), transfer_syntax)


JPIP = ("1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205")
LIVE = ("1.2.840.10008.1.2.7.1", "1.2.840.10008.1.2.7.2", "1.2.840.10008.1.2.7.3")


def live(transfer_syntax: str) -> Built:
    """The Data Set of a real-time stream, without its flows. PS3.22"""
    name = f"live {transfer_syntax}"
    ds = data_set(name, "1.2.840.10008.10.1", "XC")
    describe(ds, (1080, 1920, 3), allocated=8, photometric="YBR_FULL_422")
    return Built(name, write(ds, transfer_syntax), transfer_syntax)


def instances() -> Iterator[Built]:
    """One of each."""
    for kind in DOCUMENTS:
        yield document(kind)
    yield document("pdf", ImplicitVRLittleEndian)
    yield document("stl", "1.2.840.10008.1.2.1.99")
    yield report()
    yield key_objects()
    for syntax in (ExplicitVRLittleEndian, ExplicitVRBigEndian):
        yield presentation_state(syntax)
        yield waveform(syntax)
        yield spectroscopy(syntax)
        yield dose(syntax)
    yield waveform(bits=8)
    for kind in ("BINARY", "FRACTIONAL", "LABELMAP"):
        yield segmentation(kind)
    yield surface()
    yield structure_set()
    yield raw_data()
    for syntax in VIDEO:
        yield video(syntax)
        if syntax.endswith(".1"):
            yield video(syntax, fragments=7)
    for syntax in JPIP:
        yield reference(syntax)
    for syntax in LIVE:
        yield live(syntax)
