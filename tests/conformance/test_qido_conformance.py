"""QIDO-RS by the letter: the cases of `qido.json`, over a real socket, and by an independent client."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs.archive import Archive
from pacs.dicomweb.app import Dicomweb
from pacs.settings import Settings

CORPUS: dict[str, Any] = json.loads(Path(__file__).with_name("qido.json").read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = CORPUS["cases"]
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
UNIQUE = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}


def part10(study: dict[str, Any], series: dict[str, Any], uid: str) -> bytes:
    """One small image, with the attributes that the corpus gives to its study and series."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID, data.SOPInstanceUID = SECONDARY_CAPTURE, uid
    data.StudyInstanceUID, data.SeriesInstanceUID = study["study"], series["uid"]
    data.InstanceNumber = uid.rpartition(".")[2]
    for entity in (study, series):
        for keyword, value in entity.items():
            if keyword[0].isupper():
                setattr(data, keyword, value)
    data.RequestAttributesSequence = []
    for step, procedure in series.get("requests", ()):
        item = Dataset()
        item.ScheduledProcedureStepID, item.RequestedProcedureID = step, procedure
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = f"C-{procedure}", "99TEST", "a procedure"
        item.RequestedProcedureCodeSequence = [code]
        data.RequestAttributesSequence.append(item)
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = 4, 6, 8, 8, 7
    data.SamplesPerPixel, data.PixelRepresentation, data.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    data.PixelData = bytes(range(24))
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = SECONDARY_CAPTURE, uid
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


class Running:
    """The service in a thread of its own, on a port of its own."""

    def __init__(self, archive: Archive, settings: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._handler = Dicomweb(archive, settings)
        self._runner = self._loop.run_until_complete(self._start())
        self.port: int = self._runner.addresses[0][1]
        self.base = f"http://127.0.0.1:{self.port}/dicomweb"
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def _start(self) -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(self._handler))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/dicomweb" + path, headers=headers or {})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()
        self._handler.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with Archive.open(tmp_path_factory.mktemp("qido") / "archive", create=True) as opened:
        for study in CORPUS["archive"]:
            for series in study["series"]:
                for uid in reversed(series["instances"]):
                    result = opened.store(part10(study, series, uid))
                    assert result.status == "stored", result
        yield opened


@pytest.fixture(scope="module")
def service(archive: Archive) -> Iterator[Running]:
    running = Running(archive, Settings())
    yield running
    running.stop()


def test_the_corpus_is_not_empty() -> None:
    assert len(CASES) > 50


@pytest.mark.parametrize("case", CASES, ids=[f"{case['section']} {case['title']}" for case in CASES])
def test_case(service: Running, case: dict[str, Any]) -> None:
    headers = {"Accept": case["accept"]} if "accept" in case else {}
    response, body = service.get(case["get"], headers)
    assert response.status == case.get("status", 200), body
    if response.status != 200:
        assert json.loads(body)["code"]
        return
    results = json.loads(body)
    assert response.headers["Content-Type"] == case.get("type", "application/dicom+json")
    for result in results:
        assert list(result) == sorted(result)
    key = UNIQUE[case["get"].partition("?")[0].rpartition("/")[2]]
    if "found" in case:
        assert [result[key]["Value"][0] for result in results] == case["found"]
    if "count" in case:
        assert len(results) == case["count"]
    if "total" in case:
        assert response.headers["X-Total-Count"] == str(case["total"])
    warnings = response.headers.get_all("Warning", [])
    if case.get("warning"):
        assert any(text.startswith(f'299 {service.base} "') and case["warning"] in text for text in warnings)
    elif "warning" in case:
        assert not warnings
    check_result(case, results, service.base)


def check_result(case: dict[str, Any], results: list[dict[str, Any]], base: str) -> None:
    """`has`, `empty` and `lacks` of the only result, or of the first."""
    for tag, expected in case.get("has", {}).items():
        values = expected if isinstance(expected, list) else [expected]
        assert results[0][tag]["Value"] == [v.replace("{base}", base) if isinstance(v, str) else v for v in values], tag
    for tag in case.get("empty", ()):
        assert results[0][tag].keys() == {"vr"}
    for tag in case.get("lacks", ()):
        assert tag not in results[0]


def test_a_cut_answer_says_so(archive: Archive) -> None:
    """PS3.18 10.6.3.1"""
    running = Running(archive, Settings(query_limit=3))
    try:
        response, body = running.get("/studies")
        assert len(json.loads(body)) == 3
        assert response.headers["X-Total-Count"] == "4"
        assert "Additional results can be requested" in response.headers["Warning"]
        response, body = running.get("/studies?offset=3")
        assert len(json.loads(body)) == 1
        assert "Warning" not in response.headers
        response, body = running.get("/studies?limit=1")
        assert len(json.loads(body)) == 1
        assert "Warning" not in response.headers
        response, body = running.get("/studies/1.2.3.1/instances")
        assert len(json.loads(body)) == 4
    finally:
        running.stop()


@pytest.mark.parametrize("resource", ["/studies", "/studies?PatientName=*"])
def test_more_results_than_are_counted(service: Running, resource: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs.storage.search.pages.TOTAL", 4)
    assert service.get(resource)[0].headers["X-Total-Count"] == "4"
    monkeypatch.setattr("pacs.storage.search.pages.TOTAL", 3)
    response, body = service.get(resource)
    assert len(json.loads(body)) == 4
    assert "X-Total-Count" not in response.headers


def test_long_answers_are_compressed(service: Running) -> None:
    response, body = service.get("/instances", {"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(body)) == json.loads(service.get("/instances")[1])


def test_pages_add_up(service: Running) -> None:
    whole = json.loads(service.get("/instances")[1])
    pages = [json.loads(service.get(f"/instances?limit=3&offset={offset}")[1]) for offset in range(0, 10, 3)]
    assert [result for page in pages for result in page] == whole


HOSTILE = (
    "%00=1", "PatientName=%00", "PatientName=%ff%fe", "PatientName=" + "*a" * 200, "PatientName=" + "?" * 300, "=",
    "&&", "limit=", "limit=1e3", "limit=%D9%A1", "StudyDate=-", "StudyDate=20200101-20200101-20200101", "StudyTime=--",
    "RequestAttributesSequence=1", "RequestAttributesSequence.=1", "00400275.00400009.00400009=1", ".=1",
    "SeriesNumber=1.5", "SeriesNumber=" + "9" * 5000, "Rows=%E2%85%A7", "StudyInstanceUID=" + "1." * 3000,
    "includefield=..",
    "includefield=" + "00100010," * 500, "a=1&" * 600, "PatientID=" + "x" * 3000, "ModalitiesInStudy=[A-Z]*",
    "PatientName=(a%2B)%2B$", "StudyInstanceUID=%5C,%5C", "%3Cscript%3E=1%0D%0AX:1", "StudyDate=00000000-",
)  # fmt: skip


@pytest.mark.parametrize("query", HOSTILE, ids=[query[:30] for query in HOSTILE])
def test_nothing_a_client_asks_is_our_fault(service: Running, query: str) -> None:
    for resource in ("/studies", "/series", "/instances", "/studies/1.2.3.1/series"):
        response, body = service.get(f"{resource}?{query}")
        assert response.status in (200, 400), body
        json.loads(body)


class TestDicomwebClient:
    """What a client library that others wrote makes of the answers."""

    def test_studies(self, service: Running) -> None:
        client = DICOMwebClient(service.base)
        found = client.search_for_studies(search_filters={"PatientName": "*uller*"}, fields=["StudyDescription"])
        assert [Dataset.from_json(result).StudyInstanceUID for result in found] == ["1.2.3.2", "1.2.3.1"]
        assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []

    def test_series_and_instances(self, service: Running) -> None:
        client = DICOMwebClient(service.base)
        series = [Dataset.from_json(result) for result in client.search_for_series("1.2.3.1")]
        assert [(entry.SeriesNumber, entry.NumberOfSeriesRelatedInstances) for entry in series] == [(1, 1), (2, 3)]
        instances = client.search_for_instances("1.2.3.1", "1.2.3.1.2", limit=2, offset=1)
        assert [Dataset.from_json(entry).InstanceNumber for entry in instances] == [2, 10]

    def test_paging_by_the_client(self, service: Running) -> None:
        client = DICOMwebClient(service.base)
        assert len(client.search_for_instances(limit=3, get_remaining=True)) == 8
