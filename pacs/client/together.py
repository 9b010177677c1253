"""Several coroutines at once, of which the first to fail is the failure of all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


async def together(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of them to their end. The first that raises ends the others; its exception comes by itself, in no group.

    Not `except*`: what is raised in there Python before 3.11.4 puts into a group again.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
