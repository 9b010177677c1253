"""Searching page by page, at servers that limit, number, ignore and forget in their own ways."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest

from pacs.client.search import search
from pacs.client.transport import Transport
from pacs.errors import AnswerError
from tests.unit.origin import QUICK, Asked, Origin, Reply, origin


@pytest.fixture
async def server() -> AsyncIterator[Origin]:
    async with origin() as found:
        yield found


@pytest.fixture
async def transport(server: Origin) -> AsyncIterator[Transport]:
    async with Transport(server.url + "/dicomweb", {}, QUICK) as found:
        yield found


def study(number: int) -> dict[str, object]:
    return {"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}}


class Archive:
    """`count` studies, `most` at once; what it does with offset and total is its own affair."""

    def __init__(self, count: int, most: int = 10**6, *, total: bool = False, offset: bool = True) -> None:
        self.count, self.most, self.total, self.offset = count, most, total, offset

    def __call__(self, asked: Asked) -> Reply:
        query = {name: values[0] for name, values in parse_qs(urlsplit(asked.path).query).items()}
        start = int(query.get("offset", 0)) if self.offset else 0
        end = min(start + int(query.get("limit", self.most)), start + self.most, self.count)
        found = [study(number) for number in range(start, end)]
        headers = {"X-Total-Count": str(self.count)} if self.total else {}
        if not found:
            return Reply(b"", 204, headers)
        return Reply(json.dumps(found).encode(), 200, {"Content-Type": "application/dicom+json", **headers})


def numbers(found: list[dict[str, object]]) -> list[int]:
    return [int(item["0020000D"]["Value"][0].rpartition(".")[2]) for item in found]  # type: ignore[index]


@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize(("count", "most"), [(0, 100), (1, 100), (10, 100), (25, 100), (30, 7), (23, 1)])
async def test_every_page_comes_once(server: Origin, transport: Transport, count: int, most: int, total: bool) -> None:
    server.will(Archive(count, most, total=total))
    found = [item async for item in search(transport, "studies", page=10)]
    assert numbers(found) == list(range(count))
    pages = -(-count // min(10, most))
    assert len(server.asked) == (max(1, pages) if total else pages + 1)


async def test_pages_are_asked_for_when_they_are_needed(server: Origin, transport: Transport) -> None:
    server.will(Archive(1000))
    found = search(transport, "studies", page=10)
    assert server.asked == []
    for _ in range(10):
        await anext(found)
    assert len(server.asked) == 1
    await anext(found)
    assert len(server.asked) == 2
    await found.aclose()


async def test_a_limit_counts_results(server: Origin, transport: Transport) -> None:
    server.will(Archive(1000))
    found = [item async for item in search(transport, "studies", limit=25, page=10)]
    assert numbers(found) == list(range(25)) and len(server.asked) == 3
    assert [item async for item in search(transport, "studies", limit=0)] == []


async def test_a_server_without_offset_is_not_asked_for_ever(server: Origin, transport: Transport) -> None:
    server.will(Archive(5, offset=False))
    found = [item async for item in search(transport, "studies", page=10)]
    assert numbers(found) == list(range(5)) and len(server.asked) == 2


async def test_the_query(server: Origin, transport: Transport) -> None:
    server.will(Reply(b"[]"))
    match = {"PatientName": "Müller^Änne*", "StudyInstanceUID": ["1.2", "1.3"], "00280010": 512}
    async for _ in search(transport, "series", match, study="9.8", include=("0008103E", "Rows"), fuzzy=True):
        raise AssertionError
    split = urlsplit(server.asked[0].path)
    assert split.path == "/dicomweb/studies/9.8/series"
    assert parse_qs(split.query) == {
        "PatientName": ["Müller^Änne*"], "StudyInstanceUID": ["1.2,1.3"], "00280010": ["512"],
        "includefield": ["0008103E,Rows"], "fuzzymatching": ["true"], "limit": ["500"], "offset": ["0"],
    }  # fmt: skip
    assert server.asked[0].headers["accept"] == "application/dicom+json"
    for level, paths in {
        "studies": {"/dicomweb/studies": {}},
        "series": {"/dicomweb/series": {}},
        "instances": {
            "/dicomweb/instances": {}, "/dicomweb/studies/1/instances": {"study": "1"},
            "/dicomweb/studies/1/series/2/instances": {"study": "1", "series": "2"},
        },
    }.items():  # fmt: skip
        for path, where in paths.items():
            async for _ in search(transport, level, **where):  # type: ignore[arg-type]
                raise AssertionError
            assert urlsplit(server.asked[-1].path).path == path


@pytest.mark.parametrize(
    ("level", "where"),
    [("patients", {}), ("studies", {"study": "1"}), ("series", {"series": "1"}), ("instances", {"series": "1"})],
)
async def test_places_that_are_none(transport: Transport, level: str, where: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"searched|named|neither"):
        async for _ in search(transport, level, **where):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"7", b'[{"0020000D"', b"\xff\xfe", b"[" * 100_000])
async def test_answers_that_are_no_data_sets(server: Origin, transport: Transport, body: bytes) -> None:
    server.will(Reply(body))
    with pytest.raises(AnswerError):
        async for _ in search(transport, "studies"):
            raise AssertionError
