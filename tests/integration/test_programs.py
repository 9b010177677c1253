"""What programs that are not ours send, replayed, and their answers read as those programs read them."""

from __future__ import annotations

import gzip
import io
import socket
import zlib
from pathlib import Path
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import pydicom
import pydicom.datadict
import pytest

from pacs import demo, uids
from tests.conftest import START_SECONDS, Server
from tests.integration.exchange import Client, Reply, Stored

NATIVE = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"

WSIDICOM = (
    uids.JPEG_BASELINE, uids.JPEG_2000, uids.JPEG_2000_LOSSLESS, uids.JPEG_LS_NEAR_LOSSLESS, uids.JPEG_LS_LOSSLESS,
    uids.JPEG_LOSSLESS_SV1, uids.JPEG_LOSSLESS, uids.RLE_LOSSLESS, uids.EXPLICIT_VR_LITTLE_ENDIAN,
)  # fmt: skip
"""Transfer Syntaxes of frames, best first, in wsidicom 0.36: the first that (0008,3002) lists is asked for."""


def sent_by_weasis(client: Client, accept: str, *files: bytes) -> Reply:
    """An upload by Weasis 4.7 or dcm4che's stowrs 5.35: a line end before the first boundary, an answer in XML."""
    parts = b"".join(b"\r\n--weasisDicomBoundary\r\nContent-Type: application/dicom\r\n\r\n" + file for file in files)
    headers = {
        "Content-Type": 'multipart/related;type="application/dicom";boundary=weasisDicomBoundary',
        "Accept": accept, "User-Agent": "Weasis",
    }  # fmt: skip
    return client.request("POST", "/studies", headers, parts + b"\r\n--weasisDicomBoundary--")


def read(element: ElementTree.Element) -> dict[str, object]:
    """A Data Set of the Native DICOM Model, as DICOM JSON. PS3.19 A.1.6"""
    found: dict[str, object] = {}
    for attribute in element.findall(NATIVE + "DicomAttribute"):
        vr = attribute.attrib["vr"]
        values: list[object] = [read(item) for item in attribute.findall(NATIVE + "Item")]
        texts = [value.text or "" for value in attribute.findall(NATIVE + "Value")]
        values += [int(text) if vr == "US" else text for text in texts]
        found[attribute.attrib["tag"]] = {"vr": vr, "Value": values} if values else {"vr": vr}
        assert attribute.attrib["keyword"] == pydicom.datadict.keyword_for_tag(int(attribute.attrib["tag"], 16))
    return found


def test_weasis_reads_what_was_not_stored(client: Client) -> None:
    """A 202 is parsed as XML by Weasis: JSON would be an error to it, and what was refused not told."""
    first, second = demo.head_slices(2, rows=32, name="weasis")
    changed = pydicom.dcmread(io.BytesIO(first))
    changed.PatientComments = "other <bytes> & more"
    other = io.BytesIO()
    changed.save_as(other)
    assert sent_by_weasis(client, "application/dicom+xml", first).status == 200
    upload = (first, second, other.getvalue(), b"no instance")
    sent_by_weasis(client, "application/dicom+json", *upload)
    # Whatever was stored before says so from now on, and the two answers are about the same.
    json, again = (sent_by_weasis(client, f"application/dicom+{form}", *upload) for form in ("json", "xml"))
    assert json.status == again.status == 202
    assert again.headers["content-type"] == "application/dicom+xml"
    assert again.body.startswith(b'<?xml version="1.0" encoding="UTF-8"?>')
    root = ElementTree.fromstring(again.body)
    assert root.tag == NATIVE + "NativeDicomModel"
    model = read(root)
    assert model == json.json
    assert {"00081198", "00081199", "0008119A"} < set(model)


@pytest.mark.parametrize(
    ("accept", "xml"),
    [
        ("", False), ("*/*", False), ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", False),
        ("application/dicom+json, application/dicom+xml", False), ("application/dicom+xml;q=0", False),
        ("application/dicom+xml;q=0.5, application/json", False), ("application/dicom+xml, */*;q=0.1", True),
        ('multipart/related; type="application/dicom+xml"', True), ("image/jpeg", False), ("x" * 10_000, False),
    ],
)  # fmt: skip
def test_xml_is_for_those_who_name_it(client: Client, accept: str, xml: bool) -> None:
    """Whatever `Accept` says: what came is stored, and the answer is one that can be sent."""
    if len(accept) > 8190:  # the longest line of a request that is read
        accept = accept[:8180]
    (file,) = demo.head_slices(1, rows=16, name=f"accepts {accept[:60]}")
    reply = sent_by_weasis(client, accept, file)
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == f"application/dicom+{'xml' if xml else 'json'}"


def test_ohif_lists_studies_without_a_modality(client: Client) -> None:
    """Its `getModalities` asks for the length of the values of what is there: one such study would end the list."""
    data = pydicom.dcmread(io.BytesIO(next(demo.head_slices(1, rows=32, name="no modality"))))
    data.Modality = ""
    data.save_as(written := io.BytesIO())
    client.store(written.getvalue())
    (found,) = client.get(f"/studies?StudyInstanceUID={data.StudyInstanceUID}&includefield=all").json
    assert found["00201206"]["Value"] == [1] and "00080061" not in found


def test_wsidicom_gets_the_samples_of_a_lossless_slide(client: Client, shared_data: Path) -> None:
    """Led to JPEG, wsidicom would show lossy tiles, and those of an RGB slide in false colours: it takes the
    Photometric Interpretation of the metadata for that of the frame."""
    stored = Stored((shared_data / "wsi" / "sm_image.dcm").read_bytes())
    client.store(stored.file)
    [found] = client.get(f"{stored.series}/instances?includefield=AvailableTransferSyntaxUID").json
    offered = found["00083002"]["Value"]
    chosen = next(uid for uid in WSIDICOM if uid in offered)
    assert chosen == uids.JPEG_2000_LOSSLESS
    accept = f'multipart/related; type="image/jp2"; transfer-syntax={chosen}'
    reply = client.get(f"{stored.path}/frames/1,3", accept)
    assert reply.status == 200
    for number, (_, frame) in zip((0, 2), reply.parts, strict=True):
        assert np.array_equal(imagecodecs.jpeg2k_decode(frame), stored.data.pixel_array[number])


@pytest.mark.parametrize("name", ["wsi/jpeg.dicom", "wsi/sm_image_jpegls.dcm"])
def test_wsidicom_gets_tiles_as_they_were_stored(client: Client, shared_data: Path, name: str) -> None:
    stored = Stored((shared_data / name).read_bytes())
    client.store(stored.file)
    found = client.get(f"{stored.series}/instances?includefield=00083002").json
    [offered] = [one["00083002"]["Value"] for one in found if one["00080018"]["Value"] == [stored.data.SOPInstanceUID]]
    assert offered[0] == stored.data.file_meta.TransferSyntaxUID
    assert next(uid for uid in WSIDICOM if uid in offered) in (offered[0], uids.JPEG_2000_LOSSLESS)


@pytest.mark.parametrize("chunked", [False, True])
def test_one_instance_comes_without_multipart(client: Client, chunked: bool) -> None:
    """`curl -H 'Content-Type: application/dicom' --data-binary @file`, as Google's and Microsoft's manuals have it."""
    (file,) = demo.head_slices(1, rows=64, name=f"alone {chunked}")
    stored = Stored(file)
    pieces = iter([file[:5000], file[5000:]]) if chunked else file
    headers = {"Content-Type": "application/dicom", "Accept": "application/dicom+json"}
    reply = client.request("POST", stored.study, headers, pieces)
    assert reply.status == 200, reply.body
    assert len(reply.json["00081199"]["Value"]) == 1
    assert client.get(stored.path, "application/dicom; transfer-syntax=*").body == file
    empty = client.request("POST", "/studies", headers, b"")
    assert empty.status == 400 and "empty" in empty.json["message"]
    refused = client.request("POST", "/studies", headers, b"no instance")
    assert refused.status == 409 and len(refused.json["0008119A"]["Value"]) == 1


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_an_instance_alone_is_not_stored_from_a_coding_that_was_cut_off(client: Client, coding: str) -> None:
    """Stored, it would keep the whole instance out."""
    (file,) = demo.head_slices(1, rows=64, name=f"coding cut off {coding}")
    body = (gzip if coding == "gzip" else zlib).compress(file)
    headers = {"Content-Type": "application/dicom", "Content-Encoding": coding}
    for cut in (500, 1):
        reply = client.request("POST", "/studies", headers, body[:-cut])
        assert reply.status == 400 and "not all of it" in reply.json["message"]
        assert client.get(Stored(file).path + "/metadata").status == 404
    assert client.request("POST", "/studies", headers, body).status == 200
    assert client.get(Stored(file).path, "application/dicom; transfer-syntax=*").body == file


@pytest.mark.parametrize("rows", [64, 512])
def test_an_instance_alone_that_is_cut_off_is_not_stored(client: Client, server: Server, rows: int) -> None:
    """No boundary tells its end. The longer one is read past aiohttp."""
    (file,) = demo.head_slices(1, rows=rows, name=f"cut off {rows}")
    host, _, port = server.address.partition(":")
    head = (
        f"POST /dicomweb/studies HTTP/1.1\r\nHost: {server.address}\r\nContent-Type: application/dicom\r\n"
        f"Content-Length: {len(file) + 1}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=START_SECONDS) as connection:
        connection.sendall(head.encode() + file)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass  # until the server is done with it
    assert client.get(Stored(file).path + "/metadata").status == 404
