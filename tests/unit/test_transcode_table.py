"""What `plan` offers and refuses, row by row, and how each rendition describes itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pacs import transcode, uids
from pacs.geometry import FrameGeometry
from pacs.transcode.table import NATIVE, RELABELS, REVERSIBLE, TARGETS

GRAY = FrameGeometry(20, 30, 1, 16, 12, 11, 0, 0, "MONOCHROME2", 1)
LOSSLESS = {uid for uid, target in TARGETS.items() if not target.method}
LOSSY = set(TARGETS) - LOSSLESS
EXACT = LOSSLESS | set(REVERSIBLE)
"""What carries samples without loss: .203 and .91 too."""
PLAIN = {uids.DEFLATED_IMAGE_FRAME, uids.ENCAPSULATED_UNCOMPRESSED}
HT = {uids.HTJ2K_LOSSLESS_RPCL, uids.HTJ2K_LOSSLESS, uids.HTJ2K}
PART_1 = {uids.JPEG_2000_LOSSLESS, uids.JPEG_2000}
RPCL = uids.HTJ2K_LOSSLESS_RPCL


def gray(**changes: Any) -> FrameGeometry:
    return msgspec.structs.replace(GRAY, **changes)


def colour(photometric: str = "RGB", bits: int = 8, **changes: Any) -> FrameGeometry:
    allocated = 8 if bits <= 8 else 16
    return gray(
        samples_per_pixel=3, photometric_interpretation=photometric, bits_allocated=allocated, bits_stored=bits,
        high_bit=bits - 1, **changes,
    )  # fmt: skip


def encoded(geometry: FrameGeometry | None, stored: str = uids.EXPLICIT_VR_LITTLE_ENDIAN, **options: Any) -> set[str]:
    return {
        rendition.transfer_syntax
        for rendition in transcode.renditions(stored, geometry, **options)
        if rendition.kind == "encoded"
    }


@pytest.mark.parametrize(
    ("geometry", "offered"),
    [
        (GRAY, LOSSLESS | LOSSY - {uids.JPEG_BASELINE}),
        (gray(bits_allocated=8, bits_stored=8, high_bit=7), LOSSLESS | LOSSY),
        (gray(bits_allocated=8, bits_stored=8, pixel_representation=1), set(TARGETS) - {uids.JPEG_BASELINE}),
        (gray(bits_allocated=8, bits_stored=7, high_bit=6), set(TARGETS) - {uids.JPEG_BASELINE}),
        (gray(bits_stored=16, high_bit=15, pixel_representation=1), set(TARGETS) - {uids.JPEG_BASELINE}),
        (gray(photometric_interpretation="PALETTE COLOR"), LOSSLESS | {uids.HTJ2K}),
        (colour("RGB"), set(TARGETS)),
        (colour("RGB", 12), set(TARGETS) - {uids.JPEG_BASELINE}),
        (colour("YBR_FULL"), set(TARGETS)),
        (colour("YBR_FULL_422"), set(TARGETS)),
        (colour("YBR_FULL", 12), set(TARGETS) - {uids.JPEG_BASELINE, uids.JPEG_LS_LOSSLESS, uids.RLE_LOSSLESS}),
        (gray(bits_allocated=32, bits_stored=32, high_bit=31), PLAIN | HT),
        (gray(bits_allocated=32, bits_stored=23, high_bit=22, pixel_representation=1), PLAIN | HT),
        (gray(bits_allocated=32, bits_stored=22, high_bit=21, pixel_representation=1), PLAIN | HT | PART_1),
        (gray(bits_allocated=32, bits_stored=32, photometric_interpretation="PALETTE COLOR"), PLAIN),
        (gray(bits_allocated=32, bits_stored=32, photometric_interpretation="RGB", samples_per_pixel=3), PLAIN),
        (gray(bits_allocated=1, bits_stored=1, high_bit=0), PLAIN | HT | PART_1 | {uids.RLE_LOSSLESS}),
        (gray(bits_allocated=1, bits_stored=1, high_bit=0, pixel_representation=1), set()),
        (gray(bits_allocated=8, bits_stored=1, high_bit=0),
         EXACT - {uids.JPEG_LS_LOSSLESS, uids.JPEG_LOSSLESS, uids.JPEG_LOSSLESS_SV1}),
        (gray(samples_per_pixel=3), set()),
        (gray(photometric_interpretation="CMYK", samples_per_pixel=4), set()),
        (gray(photometric_interpretation="RGB"), set()),
        (gray(rows=0), set()),
        (gray(rows=1 << 20, columns=1 << 20), set()),
        (gray(bits_stored=0), set()),
        (gray(bits_stored=17), set()),
    ],
)  # fmt: skip
def test_what_can_be_encoded(geometry: FrameGeometry, offered: set[str]) -> None:
    assert encoded(geometry) == offered


@pytest.mark.parametrize(
    ("photometric", "wanted", "found"),
    [
        ("RGB", uids.JPEG_2000_LOSSLESS, "YBR_RCT"), ("RGB", RPCL, "YBR_RCT"), ("RGB", uids.HTJ2K_LOSSLESS, "YBR_RCT"),
        ("RGB", uids.JPEG_2000, "YBR_ICT"), ("RGB", uids.HTJ2K, "YBR_ICT"), ("RGB", uids.JPEG_LS_LOSSLESS, "RGB"),
        ("RGB", uids.JPEG_BASELINE, "YBR_FULL_422"), ("RGB", uids.RLE_LOSSLESS, "RGB"),
        ("YBR_RCT", uids.JPEG_LS_LOSSLESS, "RGB"), ("YBR_ICT", uids.JPEG_2000_LOSSLESS, "YBR_RCT"),
        ("YBR_FULL_422", uids.JPEG_2000_LOSSLESS, "YBR_FULL"), ("YBR_FULL_422", uids.JPEG_BASELINE, "YBR_FULL_422"),
        ("YBR_FULL_422", uids.EXPLICIT_VR_LITTLE_ENDIAN, "YBR_FULL"),
        ("YBR_RCT", uids.IMPLICIT_VR_LITTLE_ENDIAN, "RGB"),
        ("YBR_FULL", uids.JPEG_2000, "YBR_FULL"), ("YBR_FULL", uids.RLE_LOSSLESS, "YBR_FULL"),
    ],
)  # fmt: skip
def test_photometric_interpretation(photometric: str, wanted: str, found: str) -> None:
    rendition = transcode.plan(uids.JPEG_LOSSLESS_SV1, colour(photometric, planar_configuration=1), wanted)
    if wanted == uids.JPEG_LOSSLESS_SV1:
        return
    assert rendition is not None and rendition.geometry is not None
    assert rendition.geometry.photometric_interpretation == found
    # Native frames keep the planes that the Data Set states; encoded ones are by pixel.
    assert rendition.geometry.planar_configuration == (rendition.kind == "native")


def test_stored_and_relabelled() -> None:
    for stored, others in RELABELS.items():
        found = {r.transfer_syntax: r for r in transcode.renditions(stored, GRAY)}
        assert next(iter(found)) == stored and found[stored].kind == "stored"
        for other in others:
            assert found[other].kind == "relabelled" and found[other].lossless and not found[other].lossy_method
    # Never the other way: the general kind need not be a valid special one.
    again = transcode.plan(uids.HTJ2K, GRAY, RPCL)
    assert again is not None and again.kind == "encoded" and again.lossless


def test_our_own_frames_carry_rgb_as_rct() -> None:
    own = transcode.plan(RPCL, colour(planar_configuration=1), RPCL)
    assert own is not None and own.geometry == colour("YBR_RCT")
    received = transcode.plan(RPCL, colour(), RPCL, received=True)
    assert received is not None and received.geometry == colour()


def test_lossy_only_where_asked_or_unavoidable() -> None:
    for wanted in (uids.HTJ2K, uids.JPEG_2000):
        lossy = transcode.plan(RPCL, GRAY, wanted, lossy=True)
        assert lossy is not None and lossy.kind == "encoded" and not lossy.lossless
        assert lossy.lossy_method == {uids.HTJ2K: "ISO_15444_15", uids.JPEG_2000: "ISO_15444_1"}[wanted]
    for wanted in (RPCL, uids.JPEG_2000_LOSSLESS, uids.EXPLICIT_VR_LITTLE_ENDIAN):
        kept = transcode.plan(uids.JPEG_BASELINE, gray(bits_allocated=8, bits_stored=8, high_bit=7), wanted, lossy=True)
        assert kept is not None and kept.lossless
    palette = gray(photometric_interpretation="PALETTE COLOR")
    assert transcode.plan(RPCL, palette, uids.HTJ2K, lossy=True) is None
    relabelled = transcode.plan(RPCL, palette, uids.HTJ2K)
    assert relabelled is not None and relabelled.lossless
    # A palette has no place in .91, be it lossless. PS3.5 Table 8.2.4-1
    assert transcode.plan(uids.JPEG_2000_LOSSLESS, palette, uids.JPEG_2000) is None
    order = [rendition.lossless for rendition in transcode.renditions(RPCL, GRAY)]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("stored", ["1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.61", "1.2.3.4", ""])
def test_what_cannot_be_decoded_is_served_as_stored(stored: str) -> None:
    for geometry in (GRAY, None):
        (only,) = transcode.renditions(stored, geometry)
        assert (only.transfer_syntax, only.kind, only.geometry) == (stored, "stored", geometry)
        assert transcode.plan(stored, geometry, RPCL) is None


def test_floating_point_is_native_alone() -> None:
    found = transcode.renditions(uids.EXPLICIT_VR_LITTLE_ENDIAN, gray(bits_allocated=32, bits_stored=32), floating=True)
    assert {rendition.transfer_syntax for rendition in found} == set(NATIVE)


def test_nothing_without_a_description_and_nothing_unknown() -> None:
    assert [rendition.kind for rendition in transcode.renditions(RPCL, None)] == ["stored", "relabelled", "relabelled"]
    for unknown in (uids.EXPLICIT_VR_BIG_ENDIAN, uids.JPEG_XL_LOSSLESS, "1.2.840.10008.1.2.4.100", "1.2.3"):
        assert transcode.plan(RPCL, GRAY, unknown) is None


def test_every_rendition_is_described() -> None:
    geometry = gray(high_bit=15, frames=7)
    for rendition in transcode.renditions(uids.JPEG_LOSSLESS, geometry):
        assert rendition.geometry is not None
        if rendition.kind == "encoded":
            assert rendition.geometry == msgspec.structs.replace(geometry, high_bit=11)
        else:
            assert rendition.geometry == geometry


def test_labels_and_measurements_are_never_lossy() -> None:
    label = gray(bits_allocated=8, bits_stored=8, high_bit=7)
    assert encoded(label, exact=True) == EXACT
    for wanted, row in REVERSIBLE.items():
        reversible = transcode.plan(uids.EXPLICIT_VR_LITTLE_ENDIAN, label, wanted, exact=True)
        assert reversible is not None and reversible.lossless and not reversible.lossy_method
        assert row in LOSSLESS
    for wanted in LOSSY:
        assert transcode.plan(uids.EXPLICIT_VR_LITTLE_ENDIAN, label, wanted, lossy=True, exact=True) is None
    stored = transcode.plan(RPCL, label, uids.HTJ2K, exact=True)
    assert stored is not None and stored.lossless
