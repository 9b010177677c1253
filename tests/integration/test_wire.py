"""What other systems send and read over the wire, in forms that no standard asks for or few think of."""

from __future__ import annotations

import io
import json

import pydicom
import pytest

from pacs import demo
from tests.conftest import Server
from tests.integration.exchange import Client

ORTHANC = "e6b8824d-b15b-4e6e-af47-c0567b1e4769-e6b8824d-b15b-4e6e-af47-c0567b1e4769"
"""The boundary of an upload by Orthanc's DICOMweb plugin: three characters more than RFC 2046 allows."""


def file_of(data: pydicom.FileDataset) -> bytes:
    out = io.BytesIO()
    data.save_as(out)
    return out.getvalue()


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_by_orthanc_is_taken(server: Server, chunked: bool) -> None:
    (file,) = demo.head_slices(1, rows=32, name=f"orthanc sends {chunked}")
    head = f"--{ORTHANC}\r\nContent-Type: application/dicom\r\nContent-Length: {len(file)}\r\n\r\n".encode()
    body = head + file + f"\r\n--{ORTHANC}--".encode()
    content_type = f'multipart/related; type="application/dicom"; boundary={ORTHANC}'
    connection = server.connect()
    try:
        connection.request(
            "POST", "/dicomweb/studies", iter([body]) if chunked else body,
            {"Content-Type": content_type, "Accept": "application/dicom+json"}, encode_chunked=chunked,
        )  # fmt: skip
        response = connection.getresponse()
        stored = json.loads(response.read())
    finally:
        connection.close()
    assert response.status == 200, stored
    assert len(stored["00081199"]["Value"]) == 1


def test_a_study_is_of_one_patient_even_where_its_instances_are_not(client: Client) -> None:
    first, second, third = (pydicom.dcmread(io.BytesIO(file)) for file in demo.head_slices(3, name="two patients"))
    for data in (first, second, third):
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
            setattr(data, keyword, "")
    first.PatientName, second.PatientName, third.PatientName = "Alpha^A", "Beta^B", "Alpha^A"
    second.PatientID, second.PatientBirthDate, second.PatientSex = "wire-B", "19800101", "M"
    third.PatientID, third.PatientBirthDate = "wire-A", "19500505"
    path = f"/studies?includefield=all&StudyInstanceUID={first.StudyInstanceUID}"
    for data, patient, born in ((first, None, None), (second, None, None), (third, "wire-A", "19500505")):
        assert client.store(file_of(data)).status == 200, "nothing to warn of: the study has no Patient ID yet"
        (study,) = client.get(path).json
        assert study["00100010"]["Value"] == [{"Alphabetic": "Alpha^A"}]
        assert study["00100020"].get("Value") == ([patient] if patient else None)
        assert study["00100030"].get("Value") == ([born] if born else None)
        assert "Value" not in study["00100040"]
    # Whose Patient ID differs gives nothing either, whatever its name is.
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = second.SOPInstanceUID + ".1"
    second.PatientName = "Alpha^A"
    assert client.store(file_of(second)).status == 202
    (study,) = client.get(path).json
    assert (study["00100020"]["Value"], "Value" in study["00100040"]) == (["wire-A"], False)
    # One without a Patient ID, under the same name, adds what it knows.
    first.SOPInstanceUID = first.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID + ".1"
    first.PatientSex = "F"
    assert client.store(file_of(first)).status == 200
    (study,) = client.get(path).json
    assert (study["00100020"]["Value"], study["00100040"]["Value"]) == (["wire-A"], ["F"])
    # So does one with the same Patient ID, under another name.
    third.SOPInstanceUID = third.file_meta.MediaStorageSOPInstanceUID = third.SOPInstanceUID + ".1"
    third.PatientName, third.IssuerOfPatientID = "Alpha^Anna", "wire"
    assert client.store(file_of(third)).status == 200
    (study,) = client.get(path).json
    assert study["00100010"]["Value"] == [{"Alphabetic": "Alpha^A"}]
    assert study["00100021"]["Value"] == ["wire"]


def test_a_part_without_a_uid_is_told_by_its_place(client: Client) -> None:
    (file,) = demo.head_slices(1, rows=32, name="between bad parts")
    answer = client.store(b"no file", file, b"", check=False)
    assert answer.status == 202
    comments = [item["00000902"]["Value"][0] for item in answer.json["0008119A"]["Value"]]
    assert [comment.partition(": ")[0] for comment in comments] == ["part 1", "part 3"]
    assert all("P10-01" in comment for comment in comments)


@pytest.mark.parametrize(
    ("coding", "status", "said"),
    [("gzip", 400, "it is not gzip"), ("x-gzip", 400, "it is not gzip"), ("br", 415, "'br' is not read")],
)
def test_what_is_wrong_with_a_content_encoding_is_said(client: Client, coding: str, status: int, said: str) -> None:
    headers = {"Content-Type": "multipart/related; boundary=b", "Content-Encoding": coding}
    reply = client.request("POST", "/studies", headers, b"--b\r\n\r\nfile\r\n--b--")
    assert (reply.status, said in reply.json["message"]) == (status, True), reply.json


@pytest.mark.parametrize("query", ["/studies/{study}/series", "/instances?includefield=all&StudyInstanceUID={study}"])
def test_a_search_names_no_bulk_data_that_cannot_be_fetched(client: Client, query: str) -> None:
    (file,) = demo.head_slices(1, rows=32, name=f"long value in a request {query}")
    data = pydicom.dcmread(io.BytesIO(file))
    item = pydicom.Dataset()
    item.RequestedProcedureID = "wire"
    item.private_block(0x0029, "ACME", create=True).add_new(1, "OB", b"z" * 2000)
    data.RequestAttributesSequence = [item]
    client.store(file_of(data))
    (found,) = client.get(query.format(study=data.StudyInstanceUID)).json
    (request,) = found["00400275"]["Value"]
    assert (request["00291001"], request["00401001"]["Value"]) == ({"vr": "OB"}, ["wire"])
