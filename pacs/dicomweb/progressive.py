"""What a client needs to plan the progressive reading of a series: every frame in reading order with its levels.

`GET …/series/{series}/progressive`: ours, PS3.18 has no such resource. A client that knows where each resolution level
of each frame ends can ask for all the ranges it wants at once, without a round trip for each slice.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import NamedTuple

import msgspec
import zstandard
from aiohttp.web import BaseRequest

from pacs import uids
from pacs.dicomweb import negotiation, rungs
from pacs.dicomweb.answer import Answer
from pacs.dicomweb.plans import SeriesPlan
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import ResourceId
from pacs.geometry import FrameGeometry
from pacs.renditions import available


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
    etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    return Answer(200, content_type, body, headers, etag, "Accept, Accept-Encoding")


class _Shape(NamedTuple):
    """What the frames of an image have in common."""

    geometry: FrameGeometry | None
    floating: bool
    levels: int

    def described(self) -> dict[str, object]:
        """The Image Pixel description, without which samples cannot be told from a codestream. PS3.3 C.7.6.3"""
        geometry = self.geometry
        if geometry is None:
            return {"rows": 0, "columns": 0, "levels": [(0, 0)]}
        return {
            "rows": geometry.rows,
            "columns": geometry.columns,
            "levels": rungs.sizes(geometry.rows, geometry.columns, max(1, self.levels)),
            "samplesPerPixel": geometry.samples_per_pixel,
            "bitsAllocated": geometry.bits_allocated,
            "bitsStored": geometry.bits_stored,
            "highBit": geometry.high_bit,
            "pixelRepresentation": geometry.pixel_representation,
            "planarConfiguration": geometry.planar_configuration,
            "photometricInterpretation": geometry.photometric_interpretation,
            "floating": self.floating,
        }


def _encoded(plan: SeriesPlan, receiving: bool, coding: str) -> bytes:
    shapes: dict[_Shape, int] = {}
    frames = []
    for planned in plan.frames:
        frame = planned.frame
        shape = _Shape(frame.entry.descriptor.geometry, available.stored(frame.entry).floating, len(planned.ends))
        frames.append(
            {
                "instance": frame.entry.descriptor.instance,
                "frame": frame.number,
                "url": planned.url,
                "etag": planned.etag,
                "length": planned.length,
                "transferSyntax": planned.transfer_syntax,
                "mediaType": uids.transfer_syntax(planned.transfer_syntax).media_type,
                "shape": shapes.setdefault(shape, len(shapes)),
                "ends": planned.ends,
                "crc32c": "" if planned.crc32c is None else f"{planned.crc32c:08x}",
            }
        )
    text = msgspec.json.encode(
        {
            "study": plan.study,
            "series": plan.series,
            "receiving": receiving,
            "state": plan.state,
            "shapes": [shape.described() for shape in shapes],
            "frames": frames,
        }
    )
    if coding == "zstd":
        return zstandard.compress(text, 3)
    return zlib.compress(text, 6, 31) if coding == "gzip" else text
