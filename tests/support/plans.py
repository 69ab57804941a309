"""Looks at the plans of the very statements that the code under test runs."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

PLAN_MODES = ("force_custom_plan", "force_generic_plan")
"""For these values, and for any: Postgres goes over to the second after five runs."""


@dataclass(frozen=True)
class Statement:
    """A statement as it went to the database, with its parameters in order."""

    text: str
    parameters: tuple[Any, ...]


@contextmanager
def statements_of(engine: AsyncEngine) -> Iterator[list[Statement]]:
    """Collect what runs on the engine."""
    collected: list[Statement] = []

    def collect(
        connection: Any, cursor: Any, text: str, parameters: Sequence[Any], *_: Any
    ) -> None:
        collected.append(Statement(text, tuple(parameters)))

    event.listen(engine.sync_engine, "before_cursor_execute", collect)
    try:
        yield collected
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", collect)


async def plan_of(
    pool: "asyncpg.Pool[Any]", statement: Statement, mode: str
) -> list[dict[str, Any]]:
    """The nodes of the plan, as they ran."""
    values = ", ".join(f"'{parameter}'" for parameter in statement.parameters)
    call = f"EXECUTE planned ({values})" if values else "EXECUTE planned"
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(f"SET LOCAL plan_cache_mode = {mode}")
            await connection.execute(f"PREPARE planned AS {statement.text}")
            explained = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {call}")
        finally:
            await transaction.rollback()
            await connection.execute("DEALLOCATE ALL")
    return _flat(json.loads(explained)[0]["Plan"])


def _flat(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in _flat(child))]


def indexes(nodes: Sequence[dict[str, Any]]) -> set[str]:
    """The indexes that a plan reads."""
    return {node["Index Name"] for node in nodes if "Index Name" in node}


def scanned_tables(nodes: Sequence[dict[str, Any]]) -> set[str]:
    """The tables that a plan reads from one end to the other."""
    return {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
