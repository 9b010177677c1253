"""What a growing archive is filled with: studies of small CT frames, stored by several processes through its API."""

from __future__ import annotations

import multiprocessing
import random
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from multiprocessing.util import Finalize
from pathlib import Path

from benchmarks import workload
from pacs import demo
from pacs.archive import Archive, StoreResult
from pacs.bench import load
from pacs.bench.corpus import Corpus, Image, Instance, elements
from pacs.bench.kinds import KINDS

_CHUNKS = 10
"""In which an archive grows to the next size; the last ones tell the rate of ingest there."""
_IN_WORK = 64


@dataclass(frozen=True, slots=True)
class Shape:
    """What the archive is filled with."""

    rows: int
    per_study: int


@dataclass(frozen=True, slots=True)
class Study:
    """The study of a number: always the same, so that nobody has to remember a million of them."""

    number: int

    @property
    def name(self) -> str:
        return f"growth {self.number}"

    @property
    def patient_id(self) -> str:
        return f"P{self.number:08d}"

    @property
    def family(self) -> str:
        return self._draw().choice(workload.FAMILIES)

    @property
    def date(self) -> str:
        draw = self._draw()
        draw.random()
        return f"{draw.randint(2005, 2024)}{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}"

    def _draw(self) -> random.Random:
        return random.Random(self.number)

    def elements(self, common: Sequence[demo.Element]) -> list[demo.Element]:
        given = random.Random(-self.number).choice(workload.GIVEN)
        own: list[demo.Element] = [
            (0x00080020, "DA", self.date), (0x00080050, "SH", f"A{self.number:08d}"),
            (0x00100010, "PN", f"{self.family}^{given}"), (0x00100020, "LO", self.patient_id),
        ]  # fmt: skip
        return list({element[0]: element for element in (*common, *own)}.values())

    def instances(self, images: Sequence[Image], count: int) -> Iterator[Instance]:
        common = elements(images[0].kind, "")
        pixels = bytes(images[0].pixels)
        file = demo.part10([*self.elements(common), (0x7FE00010, "OW", pixels)])
        header = file[: len(file) - len(pixels)]
        for number in range(count):
            image = replace(images[number % len(images)], header=header)
            yield image.instance(self.name, f"{self.name}/series", number + 1)


def images_of(shape: Shape) -> Sequence[Image]:
    """The frames that the instances repeat."""
    return Corpus("growth").images("CT", max(1, KINDS[0].rows // shape.rows))


class _Filler:
    """One process that stores studies."""

    archive: Archive
    images: Sequence[Image]
    shape: Shape

    @classmethod
    def open(cls, root: str, shape: Shape) -> None:
        cls.archive, cls.shape, cls.images = Archive.open(root, threads=1), shape, images_of(shape)
        Finalize(None, cls.archive.close, exitpriority=1)

    @classmethod
    def store(cls, number: int) -> None:
        waiting: deque[Future[StoreResult]] = deque()
        for instance in Study(number).instances(cls.images, cls.shape.per_study):
            waiting.append(cls.archive.submit(instance.file))
            if len(waiting) >= _IN_WORK:
                _stored(waiting.popleft())
        while waiting:
            _stored(waiting.popleft())


def _stored(future: Future[StoreResult]) -> None:
    result = future.result()
    if result.status not in ("stored", "duplicate"):  # a duplicate: of a run that was cut short
        raise load.RequestFailedError(f"{result.status}: {result.error}")


def fill(root: Path, shape: Shape, first: int, last: int, processes: int) -> Iterator[tuple[int, float]]:
    """Store studies `first` up to `last`; (studies so far, instances a second) after each chunk."""
    pool = multiprocessing.get_context("spawn").Pool(processes, _Filler.open, (str(root), shape))
    try:
        pool.map(_ready, range(processes * 4), chunksize=1)
        steps = max(1, (last - first) // _CHUNKS)
        for begin in range(first, last, steps):
            end = min(last, begin + steps)
            began = time.perf_counter()
            pool.map(_Filler.store, range(begin, end), chunksize=1)
            rate = (end - begin) * shape.per_study / (time.perf_counter() - began)
            print(f"  {end * shape.per_study:>10,} instances, {rate:,.0f}/s", file=sys.stderr, flush=True)
            yield end, rate
    finally:
        pool.close()
        pool.join()


def _ready(_: int) -> None:
    """Has every process of a pool begun, before anything is timed."""
    time.sleep(0.01)
