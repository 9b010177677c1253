"""Where the time of an ingest goes: instances stored one after another into an archive of this process, no HTTP."""

from __future__ import annotations

import gc
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NoReturn

from pacs import ingest
from pacs.archive import Archive
from pacs.bench import machine
from pacs.bench.corpus import Corpus
from pacs.bench.model import Stages
from pacs.errors import BenchError
from pacs.measure import Measure
from pacs.storage.model import ArrayKey

_NAMES: Final = {
    "identify": "scan and SHA-256", "encode": "encode", "prove": "prove by rebuilding", "wait": "wait for the commit",
    "sync": "sync of the files", "index": "LMDB transaction", "write": "write frames and records", "rest": "the rest",
}  # fmt: skip
_MOST: Final = {"CT": 60, "MR": 40, "CR": 3, "MG": 2, "US": 2}
"""Instances of each kind."""


def measure(folder: Path, corpus: Corpus, modality: str, seconds: float) -> Stages:
    """The stages of an ingest of one kind; the archive that is made in `folder` stays."""
    files = [instance.file for instance in islice(corpus.series(modality, "stages"), _MOST[modality] + 1)]
    sums: dict[Measure, float] = defaultdict(float)
    lock = threading.Lock()

    def observe(measure: Measure, value: float) -> None:
        with lock:
            sums[measure] += value

    with Archive.open(folder / f"stages-{modality}", create=True, threads=1) as archive:
        _store(archive, files[0])  # what is loaded and made only once
        archive.observe(observe)
        began = time.perf_counter()
        done = 0
        for file in files[1:]:
            _store(archive, file)
            done += 1
            if time.perf_counter() - began > seconds:
                break
        wall = (time.perf_counter() - began) / done * 1e3
    found = Stages(kind=modality, instances=done, raw_bytes=len(files[0]), wall=wall)
    found.parts = _parts({name: value / done * 1e3 for name, value in sums.items()}, wall)
    found.ceiling = encode_and_prove(files[:8], seconds / 3, machine.cores())
    return found


def _store(archive: Archive, file: bytes) -> None:
    result = archive.store(file)
    if result.error is not None:
        raise BenchError(f"a synthetic instance was refused: {result.error.message}")


def _parts(taken: dict[Measure, float], wall: float) -> dict[str, float]:
    """Named stages in order; a commit without its syncs and its transaction is writing."""
    sync, index = taken.get(Measure.SYNC, 0.0), taken.get(Measure.INDEX, 0.0)
    parts = {
        "identify": taken.get(Measure.IDENTIFY, 0.0), "encode": taken.get(Measure.ENCODE, 0.0),
        "prove": taken.get(Measure.PROVE, 0.0), "wait": taken.get(Measure.COMMIT_WAIT, 0.0),
        "write": max(0.0, taken.get(Measure.COMMIT, 0.0) - sync - index), "sync": sync, "index": index,
    }  # fmt: skip
    parts["rest"] = max(0.0, wall - sum(parts.values()))
    return {_NAMES[name]: value for name, value in parts.items()}


def encode_and_prove(files: Sequence[bytes], seconds: float, threads: int) -> float:
    """The ceiling of every ingest: `files` over and over through `ingest.prepare`, a second."""
    done = [0] * threads
    end = time.perf_counter() + seconds

    def run(number: int) -> None:
        while True:
            file = files[(done[number] + number) % len(files)]
            ingest.prepare(file, ingest.identify(file), _no_staging)
            done[number] += 1
            if time.perf_counter() >= end:
                return

    gc.collect()
    began = time.perf_counter()
    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(done) / (time.perf_counter() - began)


def _no_staging(key: ArrayKey, levels: int) -> NoReturn:
    raise BenchError("an image of this size is encoded into the archive itself")
