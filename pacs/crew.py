"""Threads that encode and prove: a queue and nothing else, for an instance has few milliseconds in all."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)

Call = Callable[[], None]


class Crew:
    """`count` threads, started by the first call; calls begin in the order in which they came."""

    def __init__(self, count: int, name: str) -> None:
        self._waiting: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._count = count
        self._name = name
        self._threads: list[threading.Thread] = []
        self._closed = False

    def call_soon(self, call: Call) -> None:
        """Have a thread call `call`, which must not raise. Raises RuntimeError once closed, or without any thread."""
        with self._lock:
            if self._closed:
                raise RuntimeError("no call is taken on any more")
            if len(self._threads) < self._count:
                self._start()
            self._waiting.put(call)

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken up."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Finish what was taken on, then stop."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        while len(self._threads) < self._count:
            thread = threading.Thread(target=self._run, name=f"{self._name}_{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if not self._threads:
                    raise
                return  # the system gives no more for now: the next call asks again
            self._threads.append(thread)

    def _run(self) -> None:
        while True:
            call = self._waiting.get()
            if call is None:
                return
            try:
                call()
            except Exception:  # noqa: BLE001
                # Whoever waits for it waits in vain; the thread has to go on for the others.
                _log.exception("a call failed")
            del call
