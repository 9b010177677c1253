"""The index on this disk: LMDB transactions with their sync, and look-ups."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

from pacs.bench.model import Commits, latency
from pacs.storage.index import Index

_BATCHES = (1, 10, 100)
_ENTRY = 1000
"""Bytes in the index of a CT instance."""


def measure(folder: Path, seconds: float) -> Commits:
    """Commits a second by their size; the environment is gone afterwards."""
    path = folder / "index"
    path.mkdir()
    try:
        index = Index(str(path), create=True)
        try:
            return _measure(index, seconds)
        finally:
            index.close()
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _measure(index: Index, seconds: float) -> Commits:
    found = Commits()
    draw = random.Random("index")
    keys: list[bytes] = []
    for batch in _BATCHES:
        taken: list[float] = []
        end = time.perf_counter() + seconds / len(_BATCHES)
        while not taken or time.perf_counter() < end:
            entries = [(draw.randbytes(43), draw.randbytes(_ENTRY)) for _ in range(batch)]
            keys += [key for key, _ in entries]
            began = time.perf_counter()
            with index.write() as view:
                for key, value in entries:
                    view.txn.put(key, value, db=view.databases[b"instances"])
            taken.append(time.perf_counter() - began)
        found.by_batch[str(batch)] = len(taken) / sum(taken)
        if batch == 1:
            found.latency = latency(taken, curve=True)
    rounds = 0
    began = time.perf_counter()
    while not rounds or time.perf_counter() - began < seconds / 4:
        for key in draw.sample(keys, min(100, len(keys))):
            with index.read() as view:
                view.txn.get(key, db=view.databases[b"instances"])
            rounds += 1
    found.look_ups = rounds / (time.perf_counter() - began)
    return found
