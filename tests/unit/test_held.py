"""What of an answer lies in memory, and what names it."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from pacs.archive import Archive
from pacs.dicomweb import outgoing, rendered
from pacs.dicomweb.service import Service
from pacs.settings import Settings
from tests.conftest import CtSlices

SIZE = 4 << 20


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Archive.open(tmp_path / "archive", create=True) as archive:
        service = Service(archive, Settings())
        yield service
        service.close()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_data_set_that_is_written_anew_is_counted(service: Service, syntax: UID) -> None:
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.SOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = generate_uid(), generate_uid()
    data_set.SOPInstanceUID, data_set.EncapsulatedDocument = generate_uid(), bytes(SIZE)
    out = BytesIO()
    pydicom.dcmwrite(out, data_set, enforce_file_format=True)
    stored = service.archive.store(out.getvalue())
    entry = service.archive.instance(stored.study, stored.series, stored.instance)
    other = ExplicitVRLittleEndian if syntax == ImplicitVRLittleEndian else ImplicitVRLittleEndian
    assert outgoing.of_instance(entry, syntax) == 0
    assert 2 * SIZE < outgoing.of_instance(entry, other) < 2 * SIZE + 10_000


def test_of_an_image_little_more_than_the_frame(service: Service, ct_slices: CtSlices) -> None:
    stored = service.archive.store(ct_slices(1, name="held")[0])
    entry = service.archive.instance(stored.study, stored.series, stored.instance)
    frame = outgoing.of_frame(entry)
    assert frame <= outgoing.of_instance(entry, ImplicitVRLittleEndian) < frame + 10_000


def test_pictures_of_another_version_have_another_tag(
    service: Service, ct_slices: CtSlices, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = service.archive.store(ct_slices(1, name="pictures")[0])
    entry = service.archive.instance(stored.study, stored.series, stored.instance)

    def tag() -> str:
        return rendered._etag(service.archive.frame(entry, 1), rendered.Rendition(rendered.PNG), "")

    tags = [tag(), tag()]
    monkeypatch.setattr(rendered, "_REVISION", 0)
    tags.append(tag())
    monkeypatch.setattr(rendered.renditions, "made_by", lambda: "others")
    assert len({*tags, tag()}) == 3
