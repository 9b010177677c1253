"""What a client needs to plan the progressive reading of a series: every frame in reading order with its levels.

`GET …/series/{series}/progressive`: ours, PS3.18 has no such resource. A client that knows where each resolution level
of each frame ends can ask for all the ranges it wants at once, without a round trip for each slice.
"""

from __future__ import annotations

import zlib

import msgspec
import zstandard
from aiohttp.web import BaseRequest

from pacs import uids
from pacs.dicomweb import negotiation, rungs
from pacs.dicomweb.answer import Answer
from pacs.dicomweb.plans import SeriesPlan
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import ResourceId


async def of_target(service: Service, target: ResourceId) -> SeriesPlan:
    """The plan of the series that a request names. Raises NotFoundError."""
    assert target.study is not None and target.series is not None
    return await service.plans.of(service.archive.series(target.study, target.series))


async def index(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """Every frame of a series in reading order: URL, length, ends of its levels, with rows and columns of each."""
    content_type = negotiation.single(service.choices(request), ("application/json",))
    coding = negotiation.content_coding(request.headers.get("Accept-Encoding", ""))
    plan = await of_target(service, target)
    receiving = plan.receiving(service.settings.receiving)
    key = ("progressive", plan.series, plan.state, receiving, coding)
    body = service.metadata_cache.get(key)
    if body is None:
        body = await service.once(key, lambda: service.offload.read(_encoded, plan, receiving, coding))
        service.metadata_cache.put(key, body)
    headers: tuple[tuple[str, str], ...] = (("Cache-Control", "private, no-cache"), ("Series-State", plan.state))
    if coding:
        headers += (("Content-Encoding", coding),)
    etag = f'"{plan.state}-{coding}{"-r" if receiving else ""}"'
    return Answer(200, content_type, body, headers, etag, "Accept, Accept-Encoding")


def _encoded(plan: SeriesPlan, receiving: bool, coding: str) -> bytes:
    shapes: dict[tuple[int, int, int], int] = {}
    frames = []
    for planned in plan.frames:
        frame = planned.frame
        position = shapes.setdefault((*planned.size, max(1, len(planned.ends))), len(shapes))
        frames.append(
            {
                "instance": frame.entry.descriptor.instance,
                "frame": frame.number,
                "url": planned.url,
                "etag": frame.etag,
                "length": planned.length,
                "transferSyntax": planned.transfer_syntax,
                "mediaType": uids.transfer_syntax(planned.transfer_syntax).media_type,
                "shape": position,
                "ends": planned.ends,
            }
        )
    text = msgspec.json.encode(
        {
            "study": plan.study,
            "series": plan.series,
            "receiving": receiving,
            "state": plan.state,
            "shapes": [
                {"rows": rows, "columns": columns, "levels": rungs.sizes(rows, columns, levels)}
                for rows, columns, levels in shapes
            ],
            "frames": frames,
        }
    )
    if coding == "zstd":
        return zstandard.compress(text, 3)
    return zlib.compress(text, 6, 31) if coding == "gzip" else text
