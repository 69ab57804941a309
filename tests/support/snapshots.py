"""Compares all that the services store before and after: a refusal must change nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg

_TEXT = "t::text"
_TABLES = {
    "organisations": _TEXT,
    "projects": _TEXT,
    # When a key was used last is noted apart from what it was used for.
    "api_keys": "(to_jsonb(t) - 'last_used_at')::text",
    "audit_log": _TEXT,
    "queues": _TEXT,
    "jobs": _TEXT,
    "job_history": _TEXT,
    "queue_counts": _TEXT,
    "queue_deltas": _TEXT,
    "request_ids": _TEXT,
    # That a call has ended is noted some time after it was answered.
    "sessions": "(to_jsonb(t) - 'call_is_open')::text",
}
"""How to compare the rows of each table; those of `servers` are renewed all the time."""

_ROWS = " UNION ALL ".join(
    f"SELECT '{table}', columns.text, count(*)"
    f" FROM (SELECT {text} AS text FROM taskforge.{table} AS t) AS columns"
    f" GROUP BY columns.text"
    for table, text in _TABLES.items()
)

_HASHES = " UNION ALL ".join(
    f"SELECT '{table}', count(*), sum(hashtextextended({text}, 0)) FROM taskforge.{table} AS t"
    for table, text in _TABLES.items()
)


async def fingerprint(pool: "asyncpg.Pool[Any]") -> list[tuple[str, int, int | None]]:
    """By table: how many rows it has, and the sum of their hashes.

    It tells that a row has changed, not which: for those who look after each of many calls.
    """
    return [tuple(row) for row in await pool.fetch(_HASHES)]


_OWNERS = {"organisations": "id = $1"} | dict.fromkeys(
    ("projects", "api_keys", "audit_log"), "organisation_id = $1"
)
_OF_PROJECTS = "project_id IN (SELECT id FROM taskforge.projects WHERE organisation_id = $1)"
_ROWS_OF_ONE = " UNION ALL ".join(
    f"SELECT '{table}', {text} FROM taskforge.{table} AS t WHERE {_OWNERS.get(table, _OF_PROJECTS)}"
    for table, text in _TABLES.items()
)


async def rows_of(pool: "asyncpg.Pool[Any]", organisation_id: UUID) -> list[tuple[str, str]]:
    """Every row of one tenant, by table."""
    return sorted(tuple(row) for row in await pool.fetch(_ROWS_OF_ONE, organisation_id))


async def snapshot(pool: "asyncpg.Pool[Any]") -> set[tuple[str, str, int]]:
    """Every row of every table, with how often it is there."""
    return {tuple(row) for row in await pool.fetch(_ROWS)}


@asynccontextmanager
async def unchanged(pool: "asyncpg.Pool[Any]") -> AsyncIterator[None]:
    """What runs inside leaves every row as it was."""
    before = await snapshot(pool)
    yield
    after = await snapshot(pool)
    assert after == before, {"new": after - before, "gone": before - after}
