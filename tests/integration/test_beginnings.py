"""A file that came without the File Meta Information of what it is in: whoever names a Transfer Syntax gets a Part 10
file in it, whoever asks for any gets what came. PS3.10 7.1, PS3.18 8.7.3.5.2
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from io import BytesIO

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from tests.integration.exchange import Client

ANY = "application/dicom; transfer-syntax=*"
BEGINNINGS = ("nothing", "prefix alone", "meta alone", "wrong syntax")


def file(syntax: UID, beginning: str, series: str = "") -> tuple[bytes, str]:
    """(the file, path of its series)."""
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    study, _, known = series.partition("/series/")
    data_set.StudyInstanceUID = study.removeprefix("/studies/") or generate_uid()
    data_set.SeriesInstanceUID, data_set.SOPInstanceUID = known or generate_uid(), generate_uid()
    data_set.PatientName, data_set.Modality = "Beginnings", "OT"
    out = BytesIO()
    pydicom.dcmwrite(out, data_set, enforce_file_format=True)
    whole = out.getvalue()
    meta = 132 + 12 + int.from_bytes(whole[140:144], "little")
    stated, other = (f"{uid}".encode() for uid in (syntax, "1.2.840.10008.1.2.5"))
    path = f"/studies/{data_set.StudyInstanceUID}/series/{data_set.SeriesInstanceUID}"
    received = {
        "proper": whole,
        "nothing": whole[meta:],
        "prefix alone": whole[128:],
        "meta alone": whole[132:],
        "wrong syntax": whole[:132]
        + whole[132:meta].replace(stated.ljust(20, b"\0"), other.ljust(20, b"\0"))
        + whole[meta:],
    }[beginning]
    return received, f"{path}/instances/{data_set.SOPInstanceUID}"


def digest(data: bytes) -> str:
    return f"sha-256=:{b64encode(hashlib.sha256(data).digest()).decode()}:"


@pytest.mark.parametrize(
    ("syntax", "beginning"),
    [
        *((ExplicitVRLittleEndian, beginning) for beginning in BEGINNINGS),
        # A wrong Transfer Syntax is put over one of the same length, which implicit VR's has not.
        *((ImplicitVRLittleEndian, beginning) for beginning in BEGINNINGS[:3]),
    ],
)
def test_a_named_transfer_syntax_is_a_part_10_file(client: Client, syntax: UID, beginning: str) -> None:
    received, path = file(syntax, beginning)
    client.store(received)
    accepts = [f"application/dicom; transfer-syntax={syntax}"]
    if syntax == ExplicitVRLittleEndian:
        accepts += ["application/dicom", 'multipart/related; type="application/dicom"']
    etags = set()
    for accept in accepts:
        reply = client.get(path, accept)
        assert reply.status == 200
        body = reply.body if "multipart" not in accept else reply.parts[0][1]
        assert body[128:132] == b"DICM"
        read = pydicom.dcmread(BytesIO(body))
        assert (read.file_meta.TransferSyntaxUID, read.PatientName) == (syntax, "Beginnings")
        assert "repr-digest" not in reply.headers
        if "multipart" not in accept:
            assert int(reply.headers["content-length"]) == len(body)
        etags.add(reply.headers["etag"])
        assert client.get(path, accept, If_None_Match=reply.headers["etag"]).status == 304
    as_it_came = client.get(path, ANY)
    assert as_it_came.body == received
    assert as_it_came.headers["repr-digest"] == digest(received)
    assert as_it_came.headers["etag"] not in etags


@pytest.mark.parametrize(
    "accept", ["application/dicom", f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}", ANY]
)
def test_an_honest_file_is_what_came(client: Client, accept: str) -> None:
    received, path = file(ExplicitVRLittleEndian, "proper")
    client.store(received)
    reply = client.get(path, accept)
    assert reply.body == received
    assert reply.headers["repr-digest"] == digest(received)
    assert int(reply.headers["content-length"]) == len(received)
    part = client.get(path, accept, Range="bytes=100-199")
    assert (part.status, part.body) == (206, received[100:200])
    assert client.get(path, accept, If_None_Match=reply.headers["etag"]).status == 304


def test_among_others_too(client: Client) -> None:
    first, path = file(ExplicitVRLittleEndian, "proper")
    series = path.partition("/instances/")[0]
    second, _ = file(ExplicitVRLittleEndian, "nothing", series)
    client.store(first, second)
    bodies = [body for _, body in client.get(series, 'multipart/related; type="application/dicom"').parts]
    assert first in bodies and second not in bodies
    assert all(pydicom.dcmread(BytesIO(body)).PatientName == "Beginnings" for body in bodies)
    exact = client.get(series, 'multipart/related; type="application/dicom"; transfer-syntax=*')
    assert {body for _, body in exact.parts} == {first, second}
    assert int(exact.headers["content-length"]) == len(exact.body)
