"""How long does a reader at the end of a slow link wait: for a first look, for a readable image, for all of it?

`python -m benchmarks slow_link` opens a radiograph, a mammogram and a CT series through a throttled link on loopback
(`benchmarks.link`), on connections that are open already, by several plans:

    levels      a resolution level, then the rest of the same lossless codestream
    ranges      the same of one image by two `Range` requests, without the stream of a series
    both        a resolution level, then a lossy full size (.203), then the rest of the lossless codestream
    lossy       a rough lossy full size, a readable one, then the lossless codestream
    layers      quality layers of one Part 1 codestream, the last one lossless
    raw         native frames, whole, six connections at a time: what servers without all this do
    rendered    an 8-bit JPEG for a viewport, which servers without all this have for a quick look
    default     the same, in the window that the server chooses when none is named
    equal       the least lossy full size that is nearer to the file than that JPEG, in the window of the header

*First look*: a resolution level whose longer side has 128 samples or more (256 for radiographs); or the whole size at
38 dB asked for; or one quality layer. *Readable*: full size and at least 45 dB over the full stored range; the dB in
the header's window stand beside it. *Lossless*: every sample, compared with the file. Bytes of a lossy rung are thrown
away when the lossless frame comes; its time counts.

Lossy rungs are in the server's cache before the link is measured: what the first asker waits for is encoding, and
`bench_rungs` measures that. Of a CT the plans `raw` and `rendered` fetch a seventh of the slices, and their seconds
count seven times: every slice is the same wait there.
"""

from __future__ import annotations

import http.client
import json
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks import bench_store
from benchmarks.link import Shape, ThreadedLink, link_thread
from benchmarks.report import Figure
from benchmarks.scale import Scale
from benchmarks.servers import Server
from benchmarks.slow_link_images import Subject, decoded, psnr, rendered_quality
from pacs.bench import load

READABLE = 45.0
"""dB over the full stored range."""
ROUGH = 38
"""dB that a first look at full size asks for."""
_SHARE = 7
"""Of the slices of a CT one in so many is fetched by the plans that take minutes."""
_CONNECTIONS = 6
"""Of a browser to one server."""

Look = tuple[float, int]
"""(seconds since the request, bytes of the body until then)"""


@dataclass(slots=True)
class Reading:
    """What one plan gave a reader over one link."""

    looks: dict[str, Look] = field(default_factory=dict)
    """By name (`first`, `readable`, `lossless`): when the last frame had it."""
    quality: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By name: least PSNR of the frames over the full range and inside the window."""


# --- what a server offers -------------------------------------------------------------------------------------------


def series_path(server: Server, subject: Subject) -> str:
    one = subject.instances[0]
    return f"{server.root}/studies/{one.study}/series/{one.series}"


def frame_path(server: Server, subject: Subject, position: int) -> str:
    return f"{series_path(server, subject)}/instances/{subject.instances[position].instance}/frames/1"


def readable(server: Server, subject: Subject) -> tuple[int, int]:
    """(dB to ask for, quality layers to take) so that every frame is readable: what a viewer finds out once.

    Every frame is asked for, so that all of them are in the server's cache afterwards.
    """
    every = range(len(subject.instances))
    quality = _least(server, subject, "quality", 25, dict.fromkeys(every, (READABLE, -math.inf)))
    layers = _least(server, subject, "layer", 1, dict.fromkeys(every, (READABLE, -math.inf)))
    for query in (f"quality={quality}", f"quality={min(quality, ROUGH)}", f"layer={layers}"):
        for position in every:
            _single(server, subject, position, query)
    return quality, layers


def equal(server: Server, subject: Subject) -> tuple[int, tuple[float, float]]:
    """(dB to ask for, dB of the JPEG): full size and nearer to the file, in the window, than this server's JPEG."""
    sample = range(0, len(subject.instances), _SHARE)
    shown = {
        position: rendered_quality(subject, _rendered(server, subject, position, rendering(subject)).body, position)
        for position in sample
    }
    asked = _least(server, subject, "quality", 25, {position: (-math.inf, least) for position, least in shown.items()})
    for position in range(len(subject.instances)):
        _single(server, subject, position, f"quality={asked}")
    worst = min(shown.values())
    return asked, (worst, worst)


def _least(server: Server, subject: Subject, kind: str, value: int, wanted: dict[int, tuple[float, float]]) -> int:
    """The least value of `kind` from `value` on that reaches what is wanted, (full range, window), of each frame."""
    for position, (full, window) in wanted.items():
        reached = (-math.inf, -math.inf)
        while reached[0] < full or reached[1] < window or reached[0] == -math.inf:
            value += reached[0] > -math.inf
            reached = psnr(subject, position, decoded(_single(server, subject, position, f"{kind}={value}"), subject))
    return value


def _rendered(server: Server, subject: Subject, position: int, query: str) -> load.Response:
    return load.fetch(
        server.address, load.get(frame_path(server, subject, position) + query, server.host, "image/jpeg")
    )


def rendering(subject: Subject, *, own_window: bool = False) -> str:
    """The end of the path of an 8-bit JPEG of the size in which a viewport shows the frame: in the window of the
    header, which is named, or in the one that the server chooses."""
    rows, columns = subject.originals[0].shape
    scale = _VIEWPORT / max(rows, columns)
    window = ""
    if subject.header_window is not None and not own_window:
        window = "&window={:g},{:g},linear".format(*subject.header_window)
    return f"/rendered?viewport={round(columns * scale)},{round(rows * scale)}{window}"


def _single(server: Server, subject: Subject, position: int, query: str) -> bytes:
    request = load.get(f"{frame_path(server, subject, position)}?{query}", server.host, "image/jphc, image/jp2")
    answer = load.fetch(server.address, request)
    if answer.status != 200:
        raise load.RequestFailedError(f"{query}: {answer.status} {answer.body[:200]!r}")
    return answer.body


# --- plans ----------------------------------------------------------------------------------------------------------


def _open(link: ThreadedLink, server: Server) -> http.client.HTTPConnection:
    """A connection that is open already, as those of a viewer are."""
    connection = http.client.HTTPConnection(*link.address, timeout=600)
    connection.request("GET", f"{server.root}/studies?limit=1", headers={"Accept": "application/dicom+json"})
    connection.getresponse().read()
    return connection


def streamed(link: ThreadedLink, server: Server, subject: Subject, plan: dict[str, str]) -> Reading:
    """The stream of a series; `plan` maps the rungs that are asked for to what they are to the reader."""
    connection = _open(link, server)
    reading = Reading()
    held: dict[tuple[int, str], bytes] = {}
    shown: dict[tuple[str, int], bytes] = {}
    positions = {instance.instance: position for position, instance in enumerate(subject.instances)}
    body = 0
    began = time.perf_counter()
    connection.request("GET", f"{series_path(server, subject)}/stream?rungs={','.join(plan)}")
    response = connection.getresponse()
    if response.status != 200:
        raise load.RequestFailedError(f"stream: {response.status} {response.read()[:300]!r}")
    for header, data, taken in _parts(response):
        now = time.perf_counter() - began
        body += taken
        look = plan[header["rung"].replace("=", ":")]
        position = positions[header["content-location"].split("/")[1]]
        key = (position, header["content-type"])
        starts_anew = header["content-range"].startswith("bytes 0-")  # another quality is another codestream
        held[key] = data if starts_anew else held[key] + data
        shown[look, position] = held[key]
        reading.looks[look] = (now, body)
    connection.close()
    # A small image is whole at its first look, or readable at once.
    if set(plan.values()) == {"first"}:
        stages: tuple[tuple[str, str], ...] = ()
    elif "first" in plan.values():
        stages = (("lossless", "first"), ("readable", "lossless"))
    else:
        stages = (("first", "readable"),)
    for look, before in stages:
        if look not in reading.looks:
            reading.looks[look] = reading.looks[before]
            for position in range(len(subject.instances)):
                shown[look, position] = shown[before, position]
    for look in reading.looks:
        each = [psnr(subject, position, decoded(data, subject)) for (of, position), data in shown.items() if of == look]
        if len(each) != len(subject.instances):
            raise load.RequestFailedError(f"{look}: {len(each)} frames of {len(subject.instances)}")
        reading.quality[look] = (min(full for full, _ in each), min(window for _, window in each))
    if reading.quality.get("lossless", (math.inf,))[0] != math.inf:
        raise load.RequestFailedError("what should be lossless is not")
    return reading


def _parts(response: http.client.HTTPResponse) -> Iterator[tuple[dict[str, str], bytes, int]]:
    """(header, data, bytes of the body) of each part, as it arrives."""
    while True:
        taken = 0
        line = response.readline()
        taken += len(line)
        while line in (b"\r\n",):
            line = response.readline()
            taken += len(line)
        if line.rstrip().endswith(b"--") or not line:
            return
        header: dict[str, str] = {}
        while (line := response.readline()) not in (b"\r\n", b""):
            taken += len(line)
            name, _, value = line.decode().partition(":")
            header[name.lower()] = value.strip()
        start, end = map(int, header["content-range"].removeprefix("bytes ").partition("/")[0].split("-"))
        data = response.read(end - start + 1)
        yield header, data, taken + 2 + len(data)


def by_range(link: ThreadedLink, server: Server, subject: Subject) -> Reading:
    """One image by two ranges of its own URL: a resolution level, then the rest."""
    index = load.fetch(
        server.address, load.get(f"{series_path(server, subject)}/progressive", server.host, "application/json")
    )
    found = json.loads(index.body)
    frame = found["frames"][0]
    sizes = found["shapes"][frame["shape"]]["levels"]
    level = next((at for at, size in enumerate(sizes) if max(size) >= subject.first_side), len(sizes) - 1)
    end = frame["ends"][level]
    connection = _open(link, server)
    reading = Reading()
    data = b""
    began = time.perf_counter()
    for look, part in (("first", f"bytes=0-{end - 1}"), ("lossless", f"bytes={end}-")):
        headers = {"Accept": "image/jphc; transfer-syntax=*", "Range": part}
        connection.request("GET", frame_path(server, subject, 0), headers=headers)
        response = connection.getresponse()
        data += response.read()
        reading.looks[look] = (time.perf_counter() - began, len(data))
    connection.close()
    reading.quality["lossless"] = psnr(subject, 0, decoded(data, subject))
    reading.looks["readable"], reading.quality["readable"] = reading.looks["lossless"], reading.quality["lossless"]
    return reading


def whole(
    link: ThreadedLink, server: Server, subject: Subject, accept: str, query: str, looks: tuple[str, ...]
) -> Reading:
    """Frames one by one, over as many connections as a browser has."""
    positions = list(range(0, len(subject.instances), _SHARE if len(subject.instances) > 2 * _SHARE else 1))
    scale = len(subject.instances) / len(positions)
    connections = [_open(link, server) for _ in range(min(_CONNECTIONS, len(positions)))]
    bodies: dict[int, bytes] = {}
    waiting = iter(positions)
    lock = threading.Lock()

    def work(connection: http.client.HTTPConnection) -> None:
        while True:
            with lock:
                position = next(waiting, None)
            if position is None:
                return
            connection.request("GET", frame_path(server, subject, position) + query, headers={"Accept": accept})
            response = connection.getresponse()
            bodies[position] = response.read()
            if response.status != 200:
                raise load.RequestFailedError(f"{server.name}: {response.status} {bodies[position][:200]!r}")

    threads = [threading.Thread(target=work, args=(connection,)) for connection in connections]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = (time.perf_counter() - began) * scale
    for connection in connections:
        connection.close()
    if len(bodies) != len(positions):
        raise load.RequestFailedError(f"{server.name}: {len(bodies)} frames of {len(positions)}")
    size = round(sum(map(len, bodies.values())) * scale)
    return Reading(looks=dict.fromkeys(looks, (seconds, size)))


# --- the benchmark --------------------------------------------------------------------------------------------------

NATIVE = "multipart/related; type=application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
LINKS = {
    "4/50": Shape(4e6, 0.05), "10/50": Shape(10e6, 0.05), "30/50": Shape(30e6, 0.05), "2/50": Shape(2e6, 0.05),
    "4/20": Shape(4e6, 0.02), "4/100": Shape(4e6, 0.1), "4/50/1": Shape(4e6, 0.05, 0.01),
}  # fmt: skip
"""By name: Mbit/s, round trip in ms, percent of segments that stall."""
_VIEWPORT = 512


def plans(subject: Subject, quality: int, layers: int) -> dict[str, dict[str, str]]:
    """The rungs of each plan that is a stream, and what each is to the reader."""
    first = {f"pixels:{subject.first_side}": "first"}
    whole_size = {f"quality:{quality}": "readable", "lossless": "lossless"}
    layered = {f"layer:{layers}": "readable", "lossless": "lossless"}
    return {
        "levels": {**first, "lossless": "lossless"},
        "both": {**first, **whole_size},
        "lossy": {f"quality:{ROUGH}": "first", **whole_size} if quality > ROUGH else whole_size,
        "layers": {"layer:1": "first", **layered} if layers > 1 else layered,
    }


def own(server: Server, found: list[Subject], scale: Scale) -> Iterator[Figure]:
    """Every plan over every link, against this archive."""
    for subject in found:
        bench_store.send(server, subject.instances, 1, 2)
        quality, layers = readable(server, subject)
        glance, jpeg = equal(server, subject)
        streams = plans(subject, quality, layers) | {"equal": {f"quality:{glance}": "first"}}
        for shape in (LINKS[name] for name in scale.links):
            with link_thread(server.address, shape) as link:
                for name, plan in streams.items():
                    if name in scale.plans:
                        yield from _figures(server, subject, shape, name, streamed(link, server, subject, plan))
                if len(subject.instances) == 1 and "ranges" in scale.plans:
                    yield from _figures(server, subject, shape, "ranges", by_range(link, server, subject))
                yield from _whole(link, server, subject, shape, scale, {"rendered": jpeg})


def rival(server: Server, found: list[Subject], scale: Scale) -> Iterator[Figure]:
    """Raw frames and rendered images, against another server."""
    for subject in found:
        bench_store.send(server, subject.instances, 1, 2)
        quality = {}
        for name, query in (("rendered", rendering(subject)), ("default", rendering(subject, own_window=True))):
            decibels = rendered_quality(subject, _rendered(server, subject, 0, query).body, 0)
            quality[name] = (decibels, decibels)
        for shape in (LINKS[name] for name in scale.links):
            with link_thread(server.address, shape) as link:
                yield from _whole(link, server, subject, shape, scale, quality)


def _whole(
    link: ThreadedLink, server: Server, subject: Subject, shape: Shape, scale: Scale,
    jpegs: dict[str, tuple[float, float]],
) -> Iterator[Figure]:  # fmt: skip
    """What every server has: raw frames, and 8-bit JPEGs, of which the dB are known."""
    if "raw" in scale.plans:
        raw = whole(link, server, subject, NATIVE, "", ("first", "readable", "lossless"))
        yield from _figures(server, subject, shape, "raw", raw)
    for name, quality in jpegs.items():
        if name in scale.plans:
            query = rendering(subject, own_window=name == "default")
            reading = whole(link, server, subject, "image/jpeg", query, ("first",))
            reading.quality["first"] = quality
            yield from _figures(server, subject, shape, name, reading)


def _figures(server: Server, subject: Subject, shape: Shape, plan: str, reading: Reading) -> Iterator[Figure]:
    stalls = f", {shape.stalls:.0%} stalls" if shape.stalls else ""
    where = f"{subject.name}, {shape.rate / 1e6:g} Mbit/s, {shape.rtt * 1e3:g} ms{stalls}"
    for look, (seconds, size) in reading.looks.items():
        limit = size * 8 / shape.rate + shape.rtt
        full, window = reading.quality.get(look, (math.nan, math.nan))
        detail = {
            "subject": subject.name, "plan": plan, "look": look, "bytes": size, "limit_s": limit,
            "of_limit": seconds / limit, "frames": len(subject.instances), "Mbit_per_s": shape.rate / 1e6,
            "rtt_ms": shape.rtt * 1e3, "stalls": shape.stalls,
            "dB_full_range": None if math.isnan(full) else min(full, 999.0),
            "dB_in_window": None if math.isnan(window) else min(window, 999.0),
        }  # fmt: skip
        yield Figure(f"slow link: {where}", f"{plan}: {look}", server.name, seconds, "s", False, detail)
