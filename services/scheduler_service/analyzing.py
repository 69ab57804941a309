"""Keeps the planner's picture of the tables from falling far behind.

A plan that was made and kept while a table was empty may look through all of a project's jobs for
each one that it needs: of two indexes that look equally good then, it may read the wrong one from
end to end. Once there are thousands, that takes hundreds of times as long, and autovacuum comes
round once a minute only. The planner settings of the hot connections do not help: both are indexes.
"""

from typing import Any

import asyncpg
import structlog

from scheduler_service.queries import analyze_table, list_outgrown_tables

log = structlog.get_logger(__name__)

_FEW_ROWS = 200
"""With so few, a bad plan takes no longer than a good one takes with many."""


class Analyzer:
    """Analyzes tables that have grown; each time only after their rows have doubled."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool

    async def run_once(self) -> None:
        """Analyze what has outgrown its statistics."""
        for table in await list_outgrown_tables(self._pool, _FEW_ROWS):
            await analyze_table(self._pool, table)
            log.debug("table_analyzed", table=table)
