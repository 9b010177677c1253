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

SERIES = "1.2.826.0.1.3680043.8.498.1"
STUDIES = [f"{SERIES}.{number}" for number in (1, 2)]


def file(number: int) -> bytes:
    built = images.native(f"patient {number}", [images.pattern(20 + number, 20, 8)])
    data = pydicom.dcmread(io.BytesIO(built.file))
    data.StudyInstanceUID, data.SeriesInstanceUID = STUDIES[number], SERIES
    out = io.BytesIO()
    data.save_as(out)
    return out.getvalue()


async def test_two_studies_of_one_commit_that_share_a_series_uid(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive", create=True) as archive:
        lock = WriterLock(archive.root)
        with lock:
            stored = [archive.submit(file(number)) for number in range(2)]
            async with asyncio.timeout(10):
                while archive.waiting() != (0, 1):  # noqa: ASYNC110 - one waits for the lock, the other for its turn
                    await asyncio.sleep(0.001)
        lock.close()
        assert all(one.result(10).error is None for one in stored)
        assert len({archive.series(study, SERIES).sequence for study in STUDIES}) == 1
        handler = Dicomweb(archive, Settings())
        runner = web.ServerRunner(web.Server(handler))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        try:
            async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
                for number, study in enumerate(STUDIES):
                    series = f"/dicomweb/studies/{study}/series/{SERIES}"
                    (instance,) = archive.instances_of(study, SERIES)
                    async with session.get(f"{series}/progressive") as reply:
                        index = await reply.json()
                    assert index["study"] == study and index["shapes"][0]["rows"] == 20 + number
                    async with session.get(f"{series}/stream") as reply:
                        assert f"instances/{instance.descriptor.instance}/frames/1".encode() in await reply.read()
                    async with session.get(f"{series}/metadata") as reply:
                        (found,) = await reply.json(content_type=None)
                    assert found["0020000D"]["Value"] == [study]
        finally:
            await runner.cleanup()
            handler.close()
