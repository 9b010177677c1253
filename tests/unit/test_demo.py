"""The demo is sound DICOM: deterministic, readable by pydicom, and fit for a viewer to scroll."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest

from pacs import demo, uids


def test_same_name_same_bytes() -> None:
    assert list(demo.head_slices(3, rows=64, name="a")) == list(demo.head_slices(3, rows=64, name="a"))
    assert list(demo.head_slices(1, rows=64, name="a")) != list(demo.head_slices(1, rows=64, name="b"))


def test_slices_form_one_regular_volume() -> None:
    slices = [pydicom.dcmread(io.BytesIO(data)) for data in demo.head_slices(6, rows=64)]
    assert len({ds.SOPInstanceUID for ds in slices}) == 6
    assert len({(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID) for ds in slices}) == 1
    assert [ds.InstanceNumber for ds in slices] == [1, 2, 3, 4, 5, 6]
    heights = [float(ds.ImagePositionPatient[2]) for ds in slices]
    assert np.allclose(np.diff(heights), float(slices[0].SliceThickness))
    for ds in slices:
        for uid in (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID):
            assert uids.check(str(uid), "UID") and not uids.has_leading_zero(str(uid))
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert ds.pixel_array.max() < 4096


def test_every_element_has_its_own_value_representation() -> None:
    ds = pydicom.dcmread(io.BytesIO(next(demo.head_slices(1, rows=64))))
    for element in ds:
        assert element.VR in pydicom.datadict.dictionary_VR(element.tag).split(" or ")


def test_middle_slice_shows_the_head() -> None:
    hounsfield = demo.Head(128).slice(0.05)
    assert hounsfield[0, 0] == -1000
    assert hounsfield.max() > 1000, "no skull"
    brain = hounsfield[64 - 8 : 64 + 8, 44:50]
    assert 15 < float(brain.mean()) < 45
    left, right = hounsfield[60:66, 76:84].mean(), hounsfield[60:66, 44:52].mean()
    assert left - right > 20, "no bleeding on the patient's left"


def test_real_files_are_in_the_wheel_with_sound_uids() -> None:
    files = demo.real_files()
    assert len(files) == demo.FILES - demo.SLICES
    modalities = set()
    instances = set()
    for path in files:
        ds = pydicom.dcmread(path)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            assert uids.check(str(ds[keyword].value), keyword)
        instances.add(ds.SOPInstanceUID)
        modalities.add(ds.Modality)
    assert len(instances) == len(files)
    assert {"CT", "MR", "US"} <= modalities


@pytest.mark.parametrize("rows", [64, 200, 512])
def test_any_size_can_be_drawn(rows: int) -> None:
    (data,) = demo.head_slices(1, rows=rows)
    assert pydicom.dcmread(io.BytesIO(data)).pixel_array.shape == (rows, rows)
