"""Metadata while more is stored: an entity tag names one body. RFC 9110 8.8.1"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from pacs.archive import Archive
from pacs.dicomweb import metadata, target
from pacs.dicomweb.answer import Answer, Stream
from pacs.dicomweb.service import Service
from pacs.settings import Settings
from tests.conftest import CtSlices


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Archive.open(tmp_path / "archive", create=True) as archive:
        service = Service(archive, Settings())
        yield service
        service.close()


async def told(answer: Answer) -> int:
    """Instances in the body."""
    if isinstance(answer.body, Stream):
        return len(json.loads(b"".join([block async for block in answer.body.blocks])))
    assert isinstance(answer.body, bytes)
    return len(json.loads(answer.body))


@pytest.mark.parametrize("level", ["study", "series"])
async def test_what_is_stored_meanwhile_has_another_tag(
    service: Service, ct_slices: CtSlices, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    slices = ct_slices(4, name=f"metadata meanwhile {level}")
    stored = service.archive.store(slices[0])
    path = f"/dicomweb/studies/{stored.study}" + (f"/series/{stored.series}" if level == "series" else "") + "/metadata"

    async def ask(**headers: str) -> Answer:
        named = {"Host": "localhost:80"} | {name.replace("_", "-"): value for name, value in headers.items()}
        request = make_mocked_request("GET", path, headers=named)
        return await getattr(metadata, level)(service, request, target.parse(path))  # type: ignore[no-any-return]

    counts: dict[str, set[int]] = {}
    before = await ask()
    service.archive.store(slices[1])  # the tag is out, the body is not
    counts.setdefault(before.etag, set()).add(await told(before))

    read: Callable[..., Any] = service.offload.read

    def after_a_commit(*call: Any) -> Any:
        service.archive.store(slices[2])
        monkeypatch.undo()
        return read(*call)

    monkeypatch.setattr(service.offload, "read", after_a_commit)
    between = await ask()
    counts.setdefault(between.etag, set()).add(await told(between))
    for _ in range(2):  # read, then kept
        now = await ask()
        counts.setdefault(now.etag, set()).add(await told(now))
    assert sorted(counts.values(), key=str) == [{1}, {3}]
    assert (await ask(If_None_Match=now.etag)).etag == now.etag

    service.archive.store(slices[3])
    latest = await ask(If_None_Match=now.etag)
    assert latest.etag != now.etag and await told(latest) == 4
    assert isinstance((await ask(Accept_Encoding="gzip")).body, Stream)


@pytest.mark.parametrize("made_otherwise", ["_REVISION", "renditions"])
async def test_what_another_version_tells_has_another_tag(
    service: Service, ct_slices: CtSlices, monkeypatch: pytest.MonkeyPatch, made_otherwise: str
) -> None:
    stored = service.archive.store(ct_slices(1, name="metadata of versions")[0])
    path = f"/dicomweb/studies/{stored.study}/metadata"

    async def ask(known: str = "") -> Answer:
        request = make_mocked_request("GET", path, headers={"Host": "localhost:80", "If-None-Match": known})
        return await metadata.study(service, request, target.parse(path))

    etag = (await ask()).etag
    if made_otherwise == "_REVISION":
        monkeypatch.setattr(metadata, "_REVISION", 0)
    else:  # other codecs have other Available Transfer Syntaxes
        monkeypatch.setattr(metadata.renditions, "made_by", lambda: "others")
    now = await ask(etag)
    assert now.etag != etag and await told(now) == 1


async def test_nothing_is_read_for_who_has_it(service: Service, ct_slices: CtSlices) -> None:
    stored = service.archive.store(ct_slices(1, name="metadata known")[0])
    path = f"/dicomweb/studies/{stored.study}/metadata"

    async def ask(**headers: str) -> Answer:
        request = make_mocked_request("GET", path, headers={"Host": "localhost:80", **headers})
        return await metadata.study(service, request, target.parse(path))

    etag = (await ask()).etag
    assert (await ask(**{"If-None-Match": etag})).body == b""


def test_contents_are_what_the_lists_say(service: Service, ct_slices: CtSlices) -> None:
    archive = service.archive
    results = [archive.store(file) for name in ("contents a", "contents b") for file in ct_slices(3, name=name)]
    for one in results:
        study, series = one.study, one.series
        expected = [entry for of in archive.series_of(study) for entry in archive.instances_of(study, of.uid)]
        assert archive.contents(study) == (archive.study(study).sequence, expected)
        assert archive.contents(study, series) == (
            archive.series(study, series).sequence, archive.instances_of(study, series)
        )  # fmt: skip
