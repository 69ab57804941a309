"""Looks at the plans of the typed functions of `queries`, as they run."""

import json
from types import TracebackType
from typing import Any, Literal, Self

import asyncpg

PlanMode = Literal["force_custom_plan", "force_generic_plan"]

PLAN_MODES: tuple[PlanMode, ...] = ("force_custom_plan", "force_generic_plan")
"""For these values, and for any: Postgres goes over to the second after five runs."""

Node = dict[str, Any]
"""A node of a plan as EXPLAIN's JSON has it, without its children."""


class Explainer:
    """An executor that explains each statement as it runs, and undoes all of them in the end.

    Use it as a context, and as the connection that a function of `queries` takes.
    """

    def __init__(self, pool: "asyncpg.Pool[Any]", mode: PlanMode) -> None:
        self._pool = pool
        self._mode = mode
        self.plan: list[Node] = []
        """All nodes of the last plan, parents first."""

    async def __aenter__(self) -> Self:
        self._connection = await self._pool.acquire()
        self._transaction = self._connection.transaction()
        await self._transaction.start()
        await self._connection.execute(f"SET LOCAL plan_cache_mode = {self._mode}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._transaction.rollback()
        await self._pool.release(self._connection)

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Run the statement under EXPLAIN ANALYZE, undo that, and run it for its rows."""
        types = [kind.name for kind in (await self._connection.prepare(query)).get_parameters()]
        # EXECUTE takes no parameters of its own, so the values are spelled out.
        values = [
            await self._connection.fetchval(
                f"SELECT quote_nullable(CAST($1 AS {kind})::text) || '::{kind}'", value
            )
            for kind, value in zip(types, args, strict=True)
        ]
        call = f"EXECUTE explained ({', '.join(values)})" if values else "EXECUTE explained"
        await self._connection.execute(f"PREPARE explained AS {query}")
        savepoint = self._connection.transaction()
        await savepoint.start()
        try:
            text = await self._connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {call}")
        finally:
            await savepoint.rollback()
            await self._connection.execute("DEALLOCATE explained")
        self.plan = _flat(json.loads(text)[0]["Plan"])
        rows: list[asyncpg.Record] = await self._connection.fetch(query, *args)
        return rows

    @property
    def indexes(self) -> set[str]:
        """The indexes that the last plan reads."""
        return {node["Index Name"] for node in self.plan if "Index Name" in node}

    @property
    def scanned_tables(self) -> set[str]:
        """The tables that the last plan reads from one end to the other."""
        return {node["Relation Name"] for node in self.plan if node["Node Type"] == "Seq Scan"}


def _flat(plan: Node) -> list[Node]:
    return [plan, *(node for child in plan.get("Plans", []) for node in _flat(child))]
