"""Looks at the plans of the typed functions of `queries`, as they run."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Literal, Self
from uuid import uuid4

import asyncpg

PlanMode = Literal["force_custom_plan", "force_generic_plan"]

PLAN_MODES: tuple[PlanMode, ...] = ("force_custom_plan", "force_generic_plan")
"""For these values, and for any: Postgres goes over to the second after five runs."""

Node = dict[str, Any]
"""A node of a plan as EXPLAIN's JSON has it, without its children."""


_ROW_COUNTS = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
"""On average a loop."""


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
        await self._connection.execute(f"PREPARE explained AS {query}")
        try:
            await self._explain("explained", query, args)
        finally:
            await self._connection.execute("DEALLOCATE explained")
        rows: list[asyncpg.Record] = await self._connection.fetch(query, *args)
        return rows

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[None]:
        """Undo what runs inside, at its end."""
        savepoint = self._connection.transaction()
        await savepoint.start()
        try:
            yield
        finally:
            await savepoint.rollback()

    async def _explain(self, name: str, query: str, args: Sequence[Any]) -> None:
        types = [kind.name for kind in (await self._connection.prepare(query)).get_parameters()]
        # EXECUTE takes no parameters of its own, so the values are spelled out.
        values = [
            await self._connection.fetchval(
                f"SELECT quote_nullable(CAST($1 AS {kind})::text) || '::{kind}'", value
            )
            for kind, value in zip(types, args, strict=True)
        ]
        call = f"EXECUTE {name} ({', '.join(values)})" if values else f"EXECUTE {name}"
        async with self.apart():
            text = await self._connection.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, WAL, FORMAT JSON) {call}"
            )
        self.plan = _flat(json.loads(text)[0]["Plan"])

    @property
    def indexes(self) -> set[str]:
        """The indexes that the last plan reads."""
        return {node["Index Name"] for node in self.plan if "Index Name" in node}

    @property
    def scanned_tables(self) -> set[str]:
        """The tables that the last plan reads from one end to the other."""
        return {node["Relation Name"] for node in self.plan if node["Node Type"] == "Seq Scan"}

    @property
    def rows_read(self) -> int:
        """How many rows the last plan took from indexes and tables, those it then left out too."""
        return sum(
            round(node["Actual Loops"] * sum(node.get(count, 0) for count in _ROW_COUNTS))
            for node in self.plan
            if "Index Name" in node or node["Node Type"] == "Seq Scan"
        )

    @property
    def blocks(self) -> int:
        """How many blocks of 8 KiB the last plan looked at, each as often as it did."""
        top = self.plan[0]
        return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])

    @property
    def wal_records(self) -> int:
        """How many records the last statement wrote to the write-ahead log."""
        return self._written("WAL Records")

    @property
    def wal_bytes(self) -> int:
        """How many bytes they have, without those of whole pages (the first after a checkpoint)."""
        return self._written("WAL Bytes") - 8192 * self._written("WAL FPI")

    def _written(self, what: str) -> int:
        """Summed over the nodes: the top one knows nothing of a writing CTE that nobody reads."""
        own = (
            node.get(what, 0) - sum(child.get(what, 0) for child in node.get("Plans", []))
            for node in self.plan
            # It counts what the CTE wrote, which counts it too.
            if node["Node Type"] != "CTE Scan"
        )
        return sum(max(0, each) for each in own)


class KeptPlans(Explainer):
    """Explains each statement by the generic plan that was made when it was run here first.

    A connection of a pool keeps such a plan for as long as it lives, while the tables grow; only
    ANALYZE and changes of the schema make it plan anew.
    """

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        super().__init__(pool, "force_generic_plan")
        self._names: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        # Others fill the tables meanwhile.
        await self._connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        return self

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """As of `Explainer`, by the kept plan."""
        if query not in self._names:
            # Not in the way of another one of the same connection, which keeps what it prepared.
            name = f"kept_{uuid4().hex}"
            await self._connection.execute(f"PREPARE {name} AS {query}")
            self._names[query] = name
        await self._explain(self._names[query], query, args)
        rows: list[asyncpg.Record] = await self._connection.fetch(query, *args)
        return rows


def _flat(plan: Node) -> list[Node]:
    return [plan, *(node for child in plan.get("Plans", []) for node in _flat(child))]
