"""The whole of it over HTTP: storing, metadata, frames, pictures and searches by more and more clients.

Answers are verified before anything is timed: a wrong one ends that measurement and not as a figure.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pacs import transcode, uids
from pacs.bench import load, machine
from pacs.bench.corpus import Corpus, Instance
from pacs.bench.kinds import KINDS
from pacs.bench.load import Load, Request, RequestFailedError, Response
from pacs.bench.model import KindResult, Point, Sweep, latency
from pacs.bench.target import Target
from pacs.geometry import FrameGeometry

JSON: Final = "application/dicom+json"
STORED: Final = "multipart/related; type=application/octet-stream; transfer-syntax=*"
DECODED: Final = 'multipart/related; type="application/octet-stream"'
_SERIES = 300
_SMALL = 8
"""Images of the series that only their metadata is asked of are so much smaller to a side."""
_STORE, _SERIES_SHARE = 0.45, 0.15
"""Shares of the bytes that may be sent: the sweep of uploads, the series that are read."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done."""

    most_bytes: int
    """Sent in all."""
    seconds: float
    """Of one run of requests."""
    clients: tuple[int, ...]

    @property
    def few(self) -> int:
        """Clients of what is measured with one number of them."""
        return min(4, self.clients[-1])


class Exchange:
    """One server under load. What is stored by it is remembered for the reading that follows."""

    def __init__(self, target: Target, corpus: Corpus, effort: Effort) -> None:
        self.target = target
        self.corpus = corpus
        self.effort = effort
        self.sent_bytes = 0
        self.studies: dict[str, None] = {}
        """Study Instance UIDs of everything that was sent."""
        self._drawn: list[str] = []
        """Of uploads that were made ready, in order; the last of them are not sent when the time is over."""
        self._series: list[Instance] = []

    # --- storing

    def store(self) -> Sweep:
        """CT slices, one a request."""
        sweep = Sweep(name="store", title="STOW-RS, CT slices one a request", unit="instances/s")
        share = int(self.effort.most_bytes * _STORE / len(self.effort.clients))
        self._send(list(itertools.islice(self.corpus.studies("CT", "warm"), 4)), 1, 2)
        for clients in self.effort.clients:
            source = self.corpus.studies("CT", f"store {clients}", 50)
            first = next(source)
            most = max(clients, share // first.length)
            instances = itertools.islice(itertools.chain((first,), source), most)
            point, run = self._store(instances, first.length, clients)
            self._expect(first, min(50, run.instances))
            sweep.points.append(point)
        return sweep

    def _store(self, instances: Iterator[Instance], length: int, clients: int) -> tuple[Point, Load]:
        requests = (self._upload([instance]) for instance in instances)
        run, point = self._timed(requests, clients, check=_stored, keep=True)
        self.settle(run.instances)
        point.rate = run.instances / run.seconds
        point.bytes_per_second = run.instances * length / run.seconds
        self.sent_bytes += run.instances * length
        return point, run

    def _upload(self, instances: Sequence[Instance]) -> Request:
        self._drawn += [instance.study for instance in instances]
        return self.target.stow(instances)

    def settle(self, sent: int | None = None) -> None:
        """Remember the studies of the first `sent` uploads; of all that were drawn where that is not known."""
        self.studies |= dict.fromkeys(self._drawn[:sent])
        self._drawn = []

    def _send(self, instances: list[Instance], per_request: int, clients: int) -> Load:
        """Store `instances` untimed."""
        batches = [instances[at : at + per_request] for at in range(0, len(instances), per_request)]
        self.sent_bytes += sum(instance.length for instance in instances)
        requests = [self._upload(batch) for batch in batches]
        run = load.run(
            self.target.address, iter(requests), clients=clients, check=_stored, keep=True, tls=self.target.tls
        )
        self.settle(run.instances)
        return run

    def _expect(self, one: Instance, count: int) -> None:
        found = self._json(f"studies/{one.study}/series/{one.series}/instances?limit=5000")
        if len(found) < count:
            raise RequestFailedError(f"{count} instances were acknowledged, {len(found)} are found")

    # --- reading

    def prepare(self) -> None:
        """Store the series that frames and pictures are asked of."""
        (first,) = itertools.islice(self.corpus.series("CT", "read"), 1)
        count = max(4, min(_SERIES, int(self.effort.most_bytes * _SERIES_SHARE) // first.length))
        self._series = list(itertools.islice(self.corpus.series("CT", "read"), count))
        self._send(self._series, 10, self.effort.few)
        self._expect(self._series[0], count)

    def metadata(self) -> Sweep:
        """The metadata of a series: the first time, then again and again."""
        sweep = Sweep(name="metadata", title="metadata of a series", unit="requests/s")
        count = max(4, min(_SERIES, self.effort.most_bytes // 4_000_000))
        firsts = []
        for copy in range(3):
            series = list(itertools.islice(self.corpus.series("CT", f"metadata {copy}", _SMALL), count))
            self._send(series, 10, self.effort.few)
            path = f"studies/{series[0].study}/series/{series[0].series}/metadata"
            first = load.run(self.target.address, iter((self.target.get(path, JSON),)), tls=self.target.tls)
            firsts.append(first.latencies[0] * 1e3)
            named = {item["00080018"]["Value"][0] for item in self._json(path)}
            if named != {instance.instance for instance in series}:
                raise RequestFailedError("the metadata does not name the instances of the series")
        sweep.detail = {"instances": count, "first_ms": sorted(firsts)[1]}
        self._sweep(sweep, itertools.repeat(self.target.get(path, JSON)))
        return sweep

    def frames(self, name: str, title: str, accept: str) -> Sweep:
        """Frames of the CT series in random order."""
        for instance in self._series[:2]:
            self._verify(instance, accept)
        sweep = Sweep(name=name, title=title, unit="frames/s")
        self._sweep(sweep, self._at_random([self.target.get(_frame(one), accept) for one in self._series]))
        return sweep

    def rendered(self) -> Sweep:
        """Pictures of the CT series in random order, 512 samples to a side at most."""
        paths = [f"{_frame(one)}/rendered?viewport=512,512" for one in self._series]
        answer = self.target.fetch(paths[0], "image/jpeg")
        if answer.status != 200 or not answer.body.startswith(b"\xff\xd8"):
            raise RequestFailedError(f"rendered: status {answer.status}, no JPEG")
        sweep = Sweep(name="rendered", title="CT slices as JPEG", unit="pictures/s")
        self._sweep(sweep, self._at_random([self.target.get(path, "image/jpeg") for path in paths]))
        return sweep

    def search(self) -> Sweep:
        """QIDO-RS: what a viewer asks, one after the other."""
        one = self._series[0]
        queries = [
            "studies?limit=50&includefield=00081030", f"studies?PatientID={self.corpus.patient}&limit=50",
            "studies?PatientName=*Bench*&limit=50", "studies?StudyDate=20250101-20250131&limit=50",
            f"studies?StudyInstanceUID={one.study}", f"studies/{one.study}/series",
            f"studies/{one.study}/series/{one.series}/instances?limit=100",
        ]  # fmt: skip
        if [item["0020000D"]["Value"][0] for item in self._json(queries[4])] != [one.study]:
            raise RequestFailedError("a search by Study Instance UID does not find the study")
        sweep = Sweep(name="search", title="QIDO-RS, a viewer's searches", unit="requests/s")
        self._sweep(sweep, itertools.cycle([self.target.get(query, JSON) for query in queries]))
        return sweep

    def kinds(self, step: Callable[[str], None]) -> Iterator[KindResult]:
        """Each kind of image, stored and read by a few clients."""
        left = max(0, self.effort.most_bytes - self.sent_bytes)
        for number, kind in enumerate(KINDS):
            step(f"{kind.modality}: store and read")
            image = self.corpus.images(kind.modality)[0].kind
            source = self.corpus.studies(kind.modality, f"kind {kind.modality}")
            first = next(source)
            most = max(2, left // (len(KINDS) - number) // first.length)
            instances = itertools.chain((first,), source)
            point, run = self._store(itertools.islice(instances, most), first.length, self.effort.few)
            left = max(0, left - run.instances * first.length)
            # Processes advance at their own pace: what lies in the first half has been sent by each of them.
            count = min(40, max(1, run.instances // 2))
            some = list(itertools.islice(self.corpus.studies(kind.modality, f"kind {kind.modality}"), count))
            read = None
            if all(self.target.fetch(_frame(one), STORED).status == 200 for one in some[:1]):
                frames = [
                    self.target.get(_frame(one, frame), STORED)
                    for one in some for frame in range(1, image.frames + 1)
                ]  # fmt: skip
                _, read = self._timed(self._at_random(frames), self.effort.few)
            yield KindResult(kind=kind.modality, shape=image.shape, raw_bytes=first.length, store=point, frames=read)

    def mixed(self, uploads: int) -> Iterator[Request]:
        """A hospital's day: many frames, some searches and metadata, `uploads` now and then."""
        one = self._series[0]
        draw = random.Random("mixed")
        series = f"studies/{one.study}/series/{one.series}"
        reads = [("frame", self.target.get(_frame(each), STORED)) for each in self._series]
        others = [
            ("metadata", self.target.get(f"{series}/metadata", JSON)),
            ("search", self.target.get(f"studies?PatientID={self.corpus.patient}&limit=50", JSON)),
            ("search", self.target.get("studies?limit=50", JSON)),
        ]  # fmt: skip
        fresh = self.corpus.studies("CT", f"soak {len(self.studies)}", 100)
        while True:
            if uploads and draw.random() < 0.04:
                uploads -= 1
                instance = next(fresh)
                self.sent_bytes += instance.length
                yield Request(self._upload([instance]).pieces, 1, "store")
                continue
            name, request = draw.choice(others) if draw.random() < 0.06 else draw.choice(reads)
            yield Request(request.pieces, 0, name)

    # --- common to all

    def _sweep(self, sweep: Sweep, requests: Iterator[Request]) -> None:
        """Half the usual time for each number of clients: reads are many."""
        for clients in self.effort.clients:
            run, point = self._timed(requests, clients, share=0.5)
            point.rate, point.bytes_per_second = run.rate, run.bytes / run.seconds
            sweep.points.append(point)

    def _timed(
        self, requests: Iterator[Request], clients: int, *, share: float = 1.0,
        check: Callable[[Response], None] | None = None, keep: bool = False,
    ) -> tuple[Load, Point]:  # fmt: skip
        cpu, busy = self.target.cpu_seconds(), machine.busy_seconds()
        run = load.run(
            self.target.address, requests, clients=clients, seconds=self.effort.seconds * share, check=check, keep=keep,
            tls=self.target.tls, processes=self._processes(clients),
        )  # fmt: skip
        if not run.requests:
            raise RequestFailedError("nothing was answered in time")
        point = Point(
            clients=clients, requests=run.requests, seconds=run.seconds, rate=run.rate,
            bytes_per_second=run.bytes / run.seconds, latency=latency(run.latencies),
            client_cores=run.client_seconds / run.seconds,
        )  # fmt: skip
        if self.target.pid:
            point.server_cores = (self.target.cpu_seconds() - cpu) / run.seconds
            busy = (machine.busy_seconds() - busy) / run.seconds
            point.other_cores = max(0.0, busy - point.server_cores - point.client_cores)
        return run, point

    def _processes(self, clients: int) -> int:
        """One for every three cores, the rest is the server's; for one elsewhere one, which knows all it has sent."""
        return max(1, min(clients, machine.cores() // 3)) if self.target.own else 1

    def _at_random(self, requests: list[Request]) -> Iterator[Request]:
        draw = random.Random("requests")
        while True:
            yield draw.choice(requests)

    def _json(self, path: str) -> list[Any]:
        answer = self.target.fetch(path, JSON)
        if answer.status == 204:
            return []
        if answer.status != 200:
            raise RequestFailedError(f"status {answer.status} for {path[:80]}: {answer.body[:200]!r}")
        found = json.loads(answer.body)
        return found if isinstance(found, list) else []

    def _verify(self, instance: Instance, accept: str) -> None:
        """The frame, decoded if need be, is the one that was sent."""
        answer = self.target.fetch(_frame(instance), accept)
        head, _, rest = answer.body.partition(b"\r\n\r\n")
        body = rest[: rest.rfind(b"\r\n--")]
        if answer.status != 200:
            raise RequestFailedError(f"frame: status {answer.status}: {answer.body[:200]!r}")
        if body == instance.frame():
            return
        for syntax in (uids.HTJ2K_LOSSLESS_RPCL, uids.HTJ2K_LOSSLESS, uids.JPEG_2000_LOSSLESS, uids.JPEG_LS_LOSSLESS):
            if syntax.encode() in head and _decoded(body, syntax, instance) == instance.frame():
                return
        raise RequestFailedError("a frame is not the one that was sent")


def _decoded(body: bytes, syntax: str, instance: Instance) -> bytes:
    from pacs.dicom import attributes, part10

    geometry = attributes.geometry(part10.scan(instance.file).json)
    assert isinstance(geometry, FrameGeometry)
    return transcode.decode_frame(body, geometry, syntax).tobytes()


def client_counts(most: int) -> tuple[int, ...]:
    """1, 2, 4 … up to `most`."""
    counts = list(itertools.takewhile(lambda count: count <= most, (1 << shift for shift in range(20))))
    return tuple(counts if counts[-1] == most else [*counts, most])


def _frame(instance: Instance, number: int = 1) -> str:
    return f"studies/{instance.study}/series/{instance.series}/instances/{instance.instance}/frames/{number}"


def _stored(response: Response) -> None:
    """Raises RequestFailedError unless everything in the request was stored. PS3.18 10.5.3"""
    failed: object = response.status not in (200, 202)
    if not failed and b"00081198" in response.body:
        failed = json.loads(response.body).get("00081198", {}).get("Value")
    if failed:
        raise RequestFailedError(f"STOW: status {response.status}: {response.body[:300]!r}")


SWEEPS: Final[dict[str, Callable[[Exchange], Sweep]]] = {
    "metadata": Exchange.metadata,
    "frames": partial(Exchange.frames, name="frames", title="CT frames as stored", accept=STORED),
    "decoded": partial(Exchange.frames, name="decoded", title="CT frames decoded", accept=DECODED),
    "rendered": Exchange.rendered,
    "search": Exchange.search,
}
"""What is read, after `store` and `prepare`."""
