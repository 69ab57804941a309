"""Calls that are made at the same moment."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from taskforge_core.errors import TaskForgeError


async def at_once(calls: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Start all calls at the same moment; their answers or errors in order."""
    barrier = asyncio.Barrier(len(calls))

    async def behind_the_barrier(call: Coroutine[Any, Any, Any]) -> Any:
        await barrier.wait()
        return await call

    return await asyncio.gather(*map(behind_the_barrier, calls), return_exceptions=True)


def reasons(outcomes: Sequence[Any]) -> list[str]:
    """The reasons of all that were refused; nothing may fail in another way."""
    refusals = [outcome for outcome in outcomes if isinstance(outcome, TaskForgeError)]
    others = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(others) == len(refusals), others
    return [refusal.reason for refusal in refusals]
