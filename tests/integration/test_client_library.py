"""dicomweb-client, written against other servers, finds everything where it expects it."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from pacs import demo
from tests.conftest import Server


@pytest.fixture
def library(server: Server) -> Iterator[DICOMwebClient]:
    client = DICOMwebClient(url=server.url)
    yield client
    client._session.close()


def test_a_study_there_and_back(library: DICOMwebClient) -> None:
    files = list(demo.head_slices(3, rows=64, name="dicomweb-client"))
    data = [pydicom.dcmread(io.BytesIO(file)) for file in files]
    study, series = data[0].StudyInstanceUID, data[0].SeriesInstanceUID
    response = library.store_instances(data)
    assert len(response.ReferencedSOPSequence) == 3
    assert "FailedSOPSequence" not in response

    found = library.search_for_studies(search_filters={"StudyInstanceUID": study})
    assert [item["0020000D"]["Value"] for item in found] == [[study]]
    assert len(library.search_for_series(study)) == 1
    assert len(library.search_for_instances(study, series)) == 3

    metadata = library.retrieve_series_metadata(study, series)
    assert [item["00080018"]["Value"][0] for item in metadata] == [item.SOPInstanceUID for item in data]
    back = library.retrieve_series(study, series)
    assert [item.PixelData for item in back] == [item.PixelData for item in data]
    one = library.retrieve_instance(study, series, data[1].SOPInstanceUID)
    assert one.PatientName == data[1].PatientName

    native = (("application/octet-stream", "1.2.840.10008.1.2.1"),)
    frames = library.retrieve_instance_frames(study, series, data[0].SOPInstanceUID, [1], media_types=native)
    assert frames == [data[0].PixelData]
    [stored] = library.retrieve_instance_frames(study, series, data[0].SOPInstanceUID, [1])
    assert stored.startswith(b"\xff\x4f\xff\x51")
    rendered = library.retrieve_instance_rendered(
        study, series, data[0].SOPInstanceUID, media_types=("image/png",), params={"viewport": "32,32"}
    )
    assert rendered.startswith(b"\x89PNG")
    bulk = library.retrieve_bulkdata(metadata[2]["7FE00010"]["BulkDataURI"])
    assert bulk == [data[2].PixelData]
    assert np.array_equal(back[0].pixel_array, data[0].pixel_array)


def test_a_conflict_is_told(library: DICOMwebClient) -> None:
    data = pydicom.dcmread(io.BytesIO(next(demo.head_slices(1, rows=32, name="dicomweb-client conflict"))))
    library.store_instances([data])
    data.PatientName = "Somebody^Else"
    with pytest.raises(Exception, match="409"):
        library.store_instances([data])
