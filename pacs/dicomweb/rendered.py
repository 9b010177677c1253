"""Rendered images and thumbnails: JPEG or PNG of a frame as a person should see it (PS3.18 10.4.1.1.6, 8.3.5)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from aiohttp.web import BaseRequest

from pacs import rendering, renditions, transcode, uids
from pacs.dicomweb import multipart, urls, wado
from pacs.dicomweb.answer import Answer, Headers, Stream, blocks_of
from pacs.dicomweb.negotiation import EITHER, PARTS
from pacs.dicomweb.service import Service
from pacs.dicomweb.target import ResourceId
from pacs.errors import (
    CodestreamError,
    NotAcceptableError,
    NotFoundError,
    PixelError,
    RequestError,
    UnsupportedTransferSyntaxError,
)
from pacs.reading import Frame
from pacs.rendering import LINEAR, LINEAR_EXACT, SIGMOID, Viewport, Window
from pacs.renditions import available
from pacs.storage.model import InstanceEntry

JPEG: Final = "image/jpeg"
PNG: Final = "image/png"
_OFFERED: Final = (JPEG, PNG)

_KEEP: Final[Headers] = (("Cache-Control", "private, max-age=3600"),)
_GROWS: Final[Headers] = (("Cache-Control", "private, no-cache"),)
"""Of all pictures of a study or a series, which more may arrive of."""
_ALONE_FIRST: Final = EITHER[::-1]
_REVISION: Final = 1
"""To be raised when other pictures than before are made of the same frames: validators contain it."""
_QUALITY: Final = 90
_THUMBNAIL: Final = Viewport(128, 128)
_LARGEST_VIEWPORT: Final = 16_384
_NUMBER: Final = re.compile(r"[+-]?(?:\d++\.?\d*+|\.\d++)(?:[eE][+-]?\d++)?", re.ASCII)
"""Decimal, as DS has it: `float` takes digits of any alphabet, and underscores. PS3.5 6.2"""
_NOT_DONE: Final = ("annotation", "iccprofile")
"""Parameters of PS3.18 8.3.5.1 that change nothing here, which is told: a picture without the patient's name must not
pass for one with it."""
_FUNCTIONS: Final = {"linear": LINEAR, "linear-exact": LINEAR_EXACT, "linear_exact": LINEAR_EXACT, "sigmoid": SIGMOID}


@dataclass(frozen=True, slots=True)
class Rendition:
    """How a picture is to look: the query of the request, read."""

    media_type: str
    several: bool = False
    """Whether it is sent in parts of a multipart."""
    window: Window | None = None
    viewport: Viewport | None = None
    quality: int = _QUALITY


async def rendered(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """A frame, an instance (its first frame), or all instances of a series or study as parts. PS3.18 10.4.1.1.6"""
    answer = await _rendered(service, request, target)
    warnings = _warnings(request, urls.base(request, service.settings))
    return replace(answer, headers=(*answer.headers, *warnings)) if warnings else answer


async def _rendered(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    if target.instance is None:
        return await _all_rendered(service, request, target)
    entry = _instance(service, target)
    if len(target.frames) > 1:
        rendition = _rendition(service, request, None, PARTS)
        _locate(service, entry, max(target.frames))  # a frame that is not there is told before the first is on its way
        images = [(entry, number) for number in target.frames]
        return _parts(service, request, images, rendition)
    rendition = _rendition(service, request, None)
    return await _picture(service, request, entry, target.frames[0] if target.frames else 1, rendition)


async def thumbnail(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    """A small picture that stands for the resource: the middle image of a series, the middle frame of an instance,
    for a study those of its first series with images. PS3.18 10.4.1.1.7"""
    rendition = _rendition(service, request, _THUMBNAIL)
    if target.instance is not None:
        entry = _instance(service, target)
    else:
        entry = await service.offload.read(_representative, service, target.study or "", target.series)
    if target.frames:
        _locate(service, entry, max(target.frames))
        return await _picture(service, request, entry, target.frames[0], rendition)
    return await _picture(service, request, entry, service.archive.frame_count(entry) // 2 + 1, rendition)


def _instance(service: Service, target: ResourceId) -> InstanceEntry:
    return service.archive.instance(target.study or "", target.series or "", target.instance or "")


def _representative(service: Service, study: str, series: str | None) -> InstanceEntry:
    """The middle instance with an image. Raises NotFoundError when there is none."""
    archive = service.archive
    if series is None:
        of_study = [entry.uid for entry in archive.series_of(study)]
    else:
        archive.series(study, series)
        of_study = [series]
    for uid in of_study:
        images = [entry for entry in archive.instances_of(study, uid) if archive.frame_count(entry)]
        if images:
            return images[len(images) // 2]
    raise NotFoundError("no instance here has an image")


async def _all_rendered(service: Service, request: BaseRequest, target: ResourceId) -> Answer:
    archive = service.archive
    study = target.study or ""

    def images() -> list[tuple[InstanceEntry, int]]:
        of_study = [target.series] if target.series else [entry.uid for entry in archive.series_of(study)]
        entries = (entry for uid in of_study for entry in archive.instances_of(study, uid))
        return [(entry, 1) for entry in entries if archive.frame_count(entry)]

    found = await service.offload.read(images)
    if not found:
        raise NotFoundError("no instance here has an image")
    rendition = _rendition(service, request, None, PARTS)
    return replace(_parts(service, request, found, rendition, lenient=True), headers=_GROWS)


def _parts(
    service: Service, request: BaseRequest, images: Sequence[tuple[InstanceEntry, int]], rendition: Rendition, *,
    lenient: bool = False,
) -> Answer:  # fmt: skip
    """`lenient`: what cannot be decoded has no part, as long as one of its neighbours can. Else it ends the answer:
    whoever asks for frames by number counts the parts."""
    base = urls.base(request, service.settings)
    boundary = multipart.boundary(repr([(entry.descriptor.instance, number) for entry, number in images[:100]]))

    async def parts() -> AsyncIterator[bytes]:
        await service.outgoing.hold(request, max(_picture_size(entry, rendition) for entry, _ in images))
        failed: Exception | None = None
        first = True
        for entry, number in images:
            try:
                paint = partial(_paint, service, entry, number, rendition)
                picture = await service.offload.compute(_seconds(entry, rendition), paint)
            except (CodestreamError, PixelError, UnsupportedTransferSyntaxError) as error:
                if not lenient:
                    raise
                failed = failed or error
                continue
            head = _part_head(boundary, rendition, _location(base, entry, number), first=first)
            for block in blocks_of(head, picture):
                yield block
            first = False
        if first and failed is not None:
            raise failed
        yield multipart.closing(boundary)

    content_type = wado.multipart_type(rendition.media_type, boundary)
    return Answer(200, content_type, Stream(parts()), _KEEP, vary="Accept")


def _picture_size(entry: InstanceEntry, rendition: Rendition) -> int:
    """About as many bytes as a picture may have, of 8 bits a sample: what compresses badly is as long as that."""
    geometry = entry.descriptor.geometry
    if geometry is None:
        return 0
    viewport = rendition.viewport
    pixels = geometry.rows * geometry.columns if viewport is None else viewport.width * viewport.height
    return pixels * geometry.samples_per_pixel


def _part_head(boundary: str, rendition: Rendition, location: str, *, first: bool = True) -> bytes:
    return multipart.part_head(boundary, rendition.media_type, (("Content-Location", location),), first=first)


def _location(base: str, entry: InstanceEntry, number: int) -> str:
    """Of a picture: tells whose it is, where some have none. RFC 9110 8.7"""
    one = entry.descriptor
    return f"{base}/studies/{one.study}/series/{one.series}/instances/{one.instance}/frames/{number}/rendered"


async def _picture(
    service: Service, request: BaseRequest, entry: InstanceEntry, number: int, rendition: Rendition
) -> Answer:
    frame = _locate(service, entry, number)
    location = _location(urls.base(request, service.settings), entry, number) if rendition.several else ""
    etag = _etag(frame, rendition, location)
    paint = partial(_paint, service, entry, number, rendition)
    key = (entry.descriptor.instance, etag)
    picture = await service.shared_pictures(key, _seconds(entry, rendition), paint, request)
    if not rendition.several:
        return Answer(200, rendition.media_type, picture, _KEEP, etag, "Accept")
    boundary = multipart.boundary(etag)
    body = _part_head(boundary, rendition, location) + picture + multipart.closing(boundary)
    return Answer(200, wado.multipart_type(rendition.media_type, boundary), body, _KEEP, etag, "Accept")


def _etag(frame: Frame, rendition: Rendition, location: str) -> str:
    named = f"{frame.etag} {rendition} {location} {_REVISION} {renditions.made_by()}"
    return '"' + hashlib.blake2b(named.encode(), digest_size=12).hexdigest() + '"'


def _locate(service: Service, entry: InstanceEntry, number: int) -> Frame:
    if not service.archive.frame_count(entry):
        raise NotFoundError("this instance has no image")
    return service.archive.frame(entry, number)


def _seconds(entry: InstanceEntry, rendition: Rendition) -> float:
    """About how long a core is busy with a picture."""
    geometry, busy = entry.descriptor.geometry, available.seconds(entry, uids.EXPLICIT_VR_LITTLE_ENDIAN)
    if geometry is not None and available.stored(entry).transfer_syntax in available.J2K:
        busy /= 4 ** rendering.sufficient_level(geometry, rendition.viewport)
    return busy


def _paint(service: Service, entry: InstanceEntry, number: int, rendition: Rendition) -> bytes:
    archive = service.archive
    frame = archive.frame(entry, number)
    geometry = entry.descriptor.geometry
    if geometry is None:
        raise PixelError("this instance does not describe its pixel data")
    attributes = rendering.of_json(archive.metadata_json(entry), number)
    aspect = rendering.pixel_aspect(attributes)
    samples = archive.small_frame(frame, rendering.sufficient_level(geometry, rendition.viewport, aspect))

    def bulk(path: str) -> bytes:
        return b"".join(archive.bulk(entry, path))

    picture = rendering.render(
        samples, attributes, frame=number, window=rendition.window, viewport=rendition.viewport, bulk=bulk,
        square_pixels=rendition.viewport is not None,
    )  # fmt: skip
    if rendition.media_type == PNG:
        return transcode.encode_png(picture)
    return transcode.encode_jpeg(picture, rendition.quality)


# --- the query ----------------------------------------------------------------------------------------------------


def _rendition(
    service: Service, request: BaseRequest, viewport: Viewport | None, ways: Sequence[bool] = _ALONE_FIRST
) -> Rendition:
    """The query parameters of PS3.18 8.3.5; raises RequestError for a malformed one. Unknown ones are passed over.

    `ways` as for `Choice.sends_type`; NotAcceptableError when the client takes it in none.
    """
    media_type, several = _media_type(service, request, ways)
    if "?" not in request.raw_path:
        return Rendition(media_type, several, None, viewport)
    query = request.query
    wanted = query.get("viewport")
    return Rendition(
        media_type,
        several,
        _window(query["window"]) if query.get("window") else None,
        _viewport(wanted) if wanted else viewport,
        _quality(query["quality"]) if query.get("quality") else _QUALITY,
    )


def _warnings(request: BaseRequest, base: str) -> Headers:
    """PS3.18 8.3.5.1.1"""
    if "?" not in request.raw_path:
        return ()
    told = []
    for name in _NOT_DONE:
        values = ",".join(request.query.getall(name, ()))
        if values and values.lower() != "no":
            shown = re.sub(r"[^\w., -]", "?", values[:100], flags=re.ASCII)
            told.append(("Warning", f'299 {base} "The following {name} values are not supported: {shown}"'))
    return tuple(told)


def _media_type(service: Service, request: BaseRequest, ways: Sequence[bool]) -> tuple[str, bool]:
    accept = service.choices(request)
    for choice in accept:
        for media_type in _OFFERED:
            several = choice.sends_type(media_type, ways)
            if several is not None:
                return media_type, several
    in_parts = tuple(f'multipart/related; type="{media_type}"' for media_type in _OFFERED)
    if False not in ways and all(choice.multipart is False for choice in accept):
        raise NotAcceptableError("several pictures do not fit in one part", in_parts)
    offered = (*_OFFERED, *in_parts) if False in ways else in_parts
    raise NotAcceptableError("none of the media types in Accept can be sent", offered)


def _numbers(name: str, text: str, least: int, most: int) -> list[float | None]:
    """The numbers of a list whose entries may be left empty."""
    parts = [part.strip() for part in text.split(",")]
    if not least <= len(parts) <= most:
        raise RequestError(f"{name}={text[:60]!r} has {len(parts)} values")
    if not all(_NUMBER.fullmatch(part) for part in parts if part):
        raise RequestError(f"{name}={text[:60]!r} is not a list of numbers")
    numbers = [float(part) if part else None for part in parts]
    if any(number is not None and not abs(number) < 1e9 for number in numbers):
        raise RequestError(f"{name}={text[:60]!r} is out of range")
    return numbers


def _window(text: str) -> Window:
    """`center,width,function`; the function may be left out. PS3.18 8.3.5.1.4"""
    head, _, function = text.rpartition(",")
    if text.count(",") == 1:
        head, function = text, "linear"
    known = _FUNCTIONS.get(function.strip().lower())
    if known is None:
        raise RequestError(f"window function {function[:40]!r} is not linear, linear-exact or sigmoid")
    center, width = _numbers("window", head, 2, 2)
    if center is None or width is None or width <= 0 or (known == LINEAR and width < 1):
        raise RequestError(f"window={text[:60]!r} has no width")
    return Window(center, width, known)


def _viewport(text: str) -> Viewport:
    """`width,height[,x[,y[,region width[,region height]]]]`. PS3.18 8.3.5.1.3"""
    numbers = [int(number) if number is not None else None for number in _numbers("viewport", text, 2, 6)]
    width, height = numbers[:2]
    if width is None or height is None or not 0 < width <= _LARGEST_VIEWPORT or not 0 < height <= _LARGEST_VIEWPORT:
        raise RequestError(f"viewport={text[:60]!r} has no size from 1 to {_LARGEST_VIEWPORT}")
    x, y, region_width, region_height = ((numbers[2:] + [None] * 4)[place] or 0 for place in range(4))
    return Viewport(width, height, x, y, region_width, region_height)


def _quality(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 100):
        raise RequestError(f"quality={text[:40]!r} is not a number from 1 to 100")
    return int(text)
