"""What an instance is said to be at hand in is what it is sent in: each kind of object, each Transfer Syntax.

(0008,3002) of the metadata is `available.of_instance`; both are asked as the server asks them, without HTTP.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pacs import transcode, uids
from pacs.archive import Archive
from pacs.errors import PixelError, UnsupportedTransferSyntaxError
from pacs.renditions import available
from pacs.storage.model import InstanceEntry
from tests.integration.test_transcoded import rgb
from tests.objects import images, instances
from tests.objects.base import Built, uid

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ALL = [syntax for syntax, row in uids.TRANSFER_SYNTAXES.items() if not row.video]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Archive, dict[str, tuple[Built, InstanceEntry]]]]:
    """An archive of the objects of the catalogue that have several frames, all whole, and one of each kind."""
    kinds = {}
    with Archive.open(tmp_path_factory.mktemp("available") / "archive", create=True, threads=1) as archive:
        for built in chain(images.natives(), images.compressions(), [images.slide()], instances.instances()):
            if not built.frames or len(built.frames) == 1:
                continue
            archive.store(built.file)
            entry = archive.instance(*(uid(built.name, part) for part in ("study", "series", "instance")))
            stored = available.stored(entry)
            if stored.geometry is not None:
                of, bits = stored.geometry, stored.geometry.bits_allocated
                kind = (stored.transfer_syntax, stored.floating, stored.exact, bits, of.bits_stored)
                arrival = entry.descriptor.transfer_syntax if bits in (1, 32) else ""
                kinds[f"{kind} {of.samples_per_pixel} {arrival}"] = built, entry
        yield archive, kinds


def test_what_is_listed_is_sent_and_nothing_else(
    kept: tuple[Archive, dict[str, tuple[Built, InstanceEntry]]]
) -> None:
    archive, kinds = kept
    made = archive.renditions()
    sent: dict[int, set[str]] = {}
    for built, entry in kinds.values():
        offered = available.of_instance(entry)
        geometry = entry.descriptor.geometry
        reference = None
        for syntax in ALL:
            if syntax == entry.descriptor.transfer_syntax:
                assert syntax in offered
                continue  # the file as it came
            where = f"{built.name} in {uids.transfer_syntax(syntax).name}"
            if syntax not in offered:
                with pytest.raises((UnsupportedTransferSyntaxError, PixelError)):
                    list(made.instance(entry, syntax).pieces)
                continue
            data = pydicom.dcmread(io.BytesIO(b"".join(made.instance(entry, syntax).pieces)))
            assert data.file_meta.TransferSyntaxUID == syntax, where
            if not uids.transfer_syntax(syntax).encapsulated:
                continue
            assert geometry is not None
            assert data.BitsAllocated == geometry.bits_allocated and data.BitsStored == geometry.bits_stored, where
            sent.setdefault(geometry.bits_allocated, set()).add(syntax)
            if geometry.bits_allocated not in (1, 32):
                continue  # test_transcoded looks at these
            if reference is None:
                native = made.instance(entry, uids.EXPLICIT_VR_LITTLE_ENDIAN).pieces
                reference = rgb(pydicom.dcmread(io.BytesIO(b"".join(native))))
            assert np.array_equal(rgb(data), reference), where
    part_1 = {uids.JPEG_2000_LOSSLESS, uids.JPEG_2000}
    ht = {uids.HTJ2K_LOSSLESS_RPCL, uids.HTJ2K_LOSSLESS, uids.HTJ2K}
    plain = {uids.DEFLATED_IMAGE_FRAME, uids.ENCAPSULATED_UNCOMPRESSED}
    assert sent[1] == part_1 | ht | plain | {uids.RLE_LOSSLESS}
    assert sent[32] == ht | plain  # all 32 bits are stored
    assert sent[8] >= set(transcode.table.TARGETS)


@pytest.mark.parametrize("kind", ["segmentation BINARY", f"dose {uids.EXPLICIT_VR_LITTLE_ENDIAN}"])
def test_what_is_sent_can_come_back(
    kind: str, kept: tuple[Archive, dict[str, tuple[Built, InstanceEntry]]], tmp_path: Path
) -> None:
    """Frames of 1 bit that end inside a byte, and of 32 bits, from each compressed form to the native one again."""
    archive, _ = kept
    place = [uid(kind, part) for part in ("study", "series", "instance")]
    entry = archive.instance(*place)
    original = pydicom.dcmread(io.BytesIO(b"".join(archive.part10(entry))))
    compressed = [one for one in available.of_instance(entry) if uids.transfer_syntax(one).encapsulated]
    assert len(compressed) >= 5
    for syntax in compressed:
        with Archive.open(tmp_path / syntax, create=True, threads=1) as other:
            assert other.store(b"".join(archive.renditions().instance(entry, syntax).pieces)).status == "stored"
            came = other.instance(*place)
            native = b"".join(other.renditions().instance(came, uids.EXPLICIT_VR_LITTLE_ENDIAN).pieces)
        assert pydicom.dcmread(io.BytesIO(native)).PixelData == original.PixelData, syntax
