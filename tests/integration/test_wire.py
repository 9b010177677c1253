"""What other systems send and read over the wire, in forms that no standard asks for or few think of."""

from __future__ import annotations

import json

import pytest

from pacs import demo
from tests.conftest import Server

ORTHANC = "e6b8824d-b15b-4e6e-af47-c0567b1e4769-e6b8824d-b15b-4e6e-af47-c0567b1e4769"
"""The boundary of an upload by Orthanc's DICOMweb plugin: three characters more than RFC 2046 allows."""


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
