"""Several requests at once, their results in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def in_order(calls: Iterable[Callable[[], Coroutine[Any, Any, T]]], ahead: int) -> AsyncIterator[T]:
    """The results of `calls` in their order, `ahead` of them under way. What runs when it is closed is cancelled."""
    waiting: deque[asyncio.Task[T]] = deque()
    try:
        for call in calls:
            waiting.append(asyncio.create_task(call()))
            if len(waiting) >= ahead:
                result = await waiting[0]
                waiting.popleft()
                yield result
        while waiting:
            result = await waiting[0]
            waiting.popleft()
            yield result
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
