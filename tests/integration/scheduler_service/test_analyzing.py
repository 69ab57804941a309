"""Plans made while a table was empty do not outlive the moment it fills."""

from typing import Any

import pytest
from tests.support.rows import insert_jobs, insert_queue
from tests.support.waiting import eventually

from scheduler_service.analyzing import Analyzer
from scheduler_service.queries import list_outgrown_tables
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import Statements


@pytest.fixture
def analyzer(runtime: Database) -> Analyzer:
    return Analyzer(runtime.hot)


async def fill(connection: Any, count: int) -> None:
    queue_id = await insert_queue(connection, f"queue of {count}")
    await insert_jobs(connection, queue_id, priorities=[0] * count)
    await connection.execute("SELECT pg_stat_force_next_flush()")


async def until_outgrown(database: Database, table: str) -> None:
    async def outgrown() -> bool:
        return table in await list_outgrown_tables(database.hot, 200)

    await eventually(outgrown, f"{table} is known to have grown")


async def rows_believed(database: Database) -> float:
    rows: float = await database.hot.fetchval(
        "SELECT reltuples FROM pg_class WHERE oid = 'jobs'::regclass"
    )
    return rows


async def test_a_table_that_grew_is_analyzed_once(database: Database, analyzer: Analyzer) -> None:
    async with database.hot.acquire() as connection:
        await fill(connection, 1000)
        await until_outgrown(database, "jobs")
        await analyzer.run_once()
        assert await rows_believed(database) == 1000
        await fill(connection, 900)
        await analyzer.run_once()
        assert await rows_believed(database) == 1000
        await fill(connection, 500)
        await until_outgrown(database, "jobs")
        await analyzer.run_once()
        assert await rows_believed(database) == 2400


async def test_a_table_that_is_being_vacuumed_is_left_for_a_later_pass(
    database: Database, analyzer: Analyzer
) -> None:
    async with database.hot.acquire() as connection:
        await fill(connection, 1000)
        await until_outgrown(database, "jobs")
        async with connection.transaction():
            await connection.execute("LOCK TABLE jobs IN SHARE UPDATE EXCLUSIVE MODE")
            await analyzer.run_once()
        assert await rows_believed(database) == -1
        await analyzer.run_once()
        assert await rows_believed(database) == 1000


async def test_a_statement_planned_on_the_empty_table_is_planned_anew(
    database: Database, analyzer: Analyzer
) -> None:
    statements = Statements("taskforge_core.queries")
    async with database.hot.acquire() as connection:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE held AS {statements['lock_leases']}")

        async def plan() -> str:
            explained = await connection.fetch(
                f"EXPLAIN EXECUTE held ('{DEFAULT_PROJECT_ID}', '{{}}', '{{}}')"
            )
            return "\n".join(row[0] for row in explained)

        await connection.execute("VACUUM ANALYZE jobs")
        made_while_empty = await plan()
        await fill(connection, 5000)
        await until_outgrown(database, "jobs")
        assert await plan() == made_while_empty
        assert "jobs_pkey" not in made_while_empty
        await analyzer.run_once()
        assert "Index Scan using jobs_pkey" in await plan()
        await connection.execute("DEALLOCATE held")
        await connection.execute("RESET plan_cache_mode")
