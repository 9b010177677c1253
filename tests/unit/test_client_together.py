"""Coroutines that run together: what comes out when one of them fails."""

from __future__ import annotations

import asyncio

import pytest

from pacs.client.together import together
from pacs.errors import UploadError


async def test_all_are_run_to_their_end() -> None:
    ended = []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        ended.append(number)

    await together(work(number) for number in range(3))
    assert sorted(ended) == [0, 1, 2]


@pytest.mark.parametrize("error", [UploadError("no use"), OSError(28, "full"), ZeroDivisionError()])
async def test_the_first_failure_comes_by_itself_and_ends_the_others(error: Exception) -> None:
    begun, ended = asyncio.Event(), []

    async def fail() -> None:
        await begun.wait()
        raise error

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(type(error)) as caught:
        await together((fail(), wait()))
    assert caught.value is error and error.__suppress_context__
    assert ended == ["cancelled"]
