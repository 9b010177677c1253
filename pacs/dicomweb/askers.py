"""Work that is done once for all who ask for it, and not begun when all of them have gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Generic, TypeVar

from aiohttp.web import BaseRequest

from pacs.dicomweb.offload import Offload

_T = TypeVar("_T")


class _DroppedError(Exception):
    """Nobody waited for it when its turn came."""


class _Work(Generic[_T]):
    """A call that waits for its turn or runs, and those who wait for what it gives."""

    def __init__(self) -> None:
        self.askers: list[BaseRequest | None] = []
        self.future: asyncio.Future[_T] | None = None

    def run(self, call: Callable[[], _T]) -> _T:
        """In a thread of the lane."""
        if all(gone(asker) for asker in tuple(self.askers)):
            raise _DroppedError
        return call()

    @contextmanager
    def asked(self, asker: BaseRequest | None) -> Iterator[None]:
        self.askers.append(asker)
        try:
            yield
        finally:
            self.askers.remove(asker)


class Shared(Generic[_T]):
    """Calls that keep a core busy, each made once for all who ask meanwhile.

    aiohttp does not end the handler of a request whose connection is lost: what readers who scroll leave behind would
    be made for nobody, before what they look at now.
    """

    def __init__(self, offload: Offload) -> None:
        self._offload = offload
        self._running: dict[Hashable, _Work[_T]] = {}

    async def __call__(
        self, key: Hashable, seconds: float, call: Callable[[], _T], asker: BaseRequest | None
    ) -> _T:
        """What `call` gives. `key` names it, `seconds` is how long it keeps a core busy; None asks for good.

        A call that runs is never stopped. Raises what it raises, BusyError, and ConnectionResetError when it was
        dropped because `asker` and all others have gone.
        """
        while True:
            work = self._running.get(key) or _Work()
            try:
                # Before it begins: its turn may come at once.
                with work.asked(asker):
                    future = work.future or self._begin(work, key, seconds, call)
                    # Shielded: one asker that goes away must not fail the others.
                    return await asyncio.shield(future)
            except _DroppedError:
                if gone(asker):
                    raise ConnectionResetError("the client is gone") from None
                # It asked when the turn had just come: once more. This may be before the loop calls `_done`.
                self._done(key, work)

    def _begin(
        self, work: _Work[_T], key: Hashable, seconds: float, call: Callable[[], _T]
    ) -> asyncio.Future[_T]:
        work.future = future = self._offload.compute(seconds, partial(work.run, call))
        self._running[key] = work
        future.add_done_callback(lambda _: self._done(key, work))
        return future

    def _done(self, key: Hashable, work: _Work[_T]) -> None:
        if self._running.get(key) is work:
            del self._running[key]
        if work.future is not None and not work.future.cancelled():
            work.future.exception()  # nobody may be left to retrieve it


def gone(asker: BaseRequest | None) -> bool:
    """Whether the connection of a request is lost or being closed. For any thread."""
    if asker is None:
        return False
    transport = asker.transport
    return transport is None or transport.is_closing()
