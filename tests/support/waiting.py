"""Waits for what another transaction does, by looking at it: never a bare sleep."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

PATIENCE = 20.0
"""Seconds, for what takes a moment on an idle machine."""

_LOOK_EVERY = 0.01


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Return as soon as the condition holds.

    Raises:
        AssertionError: It does not within 20 s.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            while not await condition():  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(_LOOK_EVERY)
    except TimeoutError:
        raise AssertionError(f"waited {PATIENCE} s in vain until {what}") from None


async def until_blocked(pool: "asyncpg.Pool[Any]", blocker: int, waiting: int = 1) -> None:
    """Return when `waiting` sessions of the database wait for a lock that `blocker` (a pid) has."""

    async def blocked() -> bool:
        count = await pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND $1::int = ANY(pg_blocking_pids(pid))",
            blocker,
        )
        return bool(count >= waiting)

    await eventually(blocked, f"{waiting} sessions wait for {blocker}")
