"""Modalities that give every patient the same Series Instance UID: each study is answered with its own images."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import aiohttp
import pydicom
from aiohttp import web

from pacs.archive import Archive
from pacs.dicomweb.app import Dicomweb
from pacs.settings import Settings
from pacs.storage.locks import WriterLock
from tests.objects import images

ROOT = "1.2.826.0.1.3680043.8.498"
PAIRS = [(f"{ROOT}.1.{number}", f"{ROOT}.2.{number}", f"{ROOT}.3.{number}") for number in range(3)]
"""Two studies, and the series that each of them has."""


def file(rows: int, study: str, series: str) -> bytes:
    built = images.native(f"patient of {study}", [images.pattern(rows, 20, 8)])
    data = pydicom.dcmread(io.BytesIO(built.file))
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    out = io.BytesIO()
    data.save_as(out)
    return out.getvalue()


async def test_two_studies_of_one_commit_that_share_a_series_uid(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive", create=True) as archive:
        lock = WriterLock(archive.root)
        with lock:
            stored = [
                archive.submit(file(rows, study, series))
                for *studies, series in PAIRS for rows, study in enumerate(studies, 20)
            ]  # fmt: skip
            async with asyncio.timeout(120):
                while archive.waiting()[1] < 4:  # noqa: ASYNC110 - one or two have their turn, and wait for the lock
                    await asyncio.sleep(0.001)
        lock.close()
        assert all(one.result(120).error is None for one in stored)
        shared = [
            pair for pair in PAIRS
            if archive.series(pair[0], pair[2]).sequence == archive.series(pair[1], pair[2]).sequence
        ]  # fmt: skip
        assert shared
        handler = Dicomweb(archive, Settings())
        runner = web.ServerRunner(web.Server(handler))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        try:
            async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
                for *studies, series in shared:
                    for rows, study in enumerate(studies, 20):
                        await check(session, archive, study, series, rows)
        finally:
            await runner.cleanup()
            handler.close()


async def check(session: aiohttp.ClientSession, archive: Archive, study: str, series: str, rows: int) -> None:
    path = f"/dicomweb/studies/{study}/series/{series}"
    (instance,) = archive.instances_of(study, series)
    async with session.get(f"{path}/progressive") as reply:
        index = await reply.json()
    assert index["study"] == study and index["shapes"][0]["rows"] == rows
    async with session.get(f"{path}/stream") as reply:
        assert f"instances/{instance.descriptor.instance}/frames/1".encode() in await reply.read()
    async with session.get(f"{path}/metadata") as reply:
        (found,) = await reply.json(content_type=None)
    assert found["0020000D"]["Value"] == [study]
