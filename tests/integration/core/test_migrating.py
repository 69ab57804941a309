"""Migrations on a real Postgres."""

import asyncio

import asyncpg
import pytest
from tests.conftest import execute

from taskforge_core.migrating import (
    MIGRATION_LOCK,
    SchemaIsNewer,
    SchemaState,
    current_revision,
    head_revision,
    is_current,
    known_revisions,
    migrate,
    schema_state,
)


async def test_replicas_may_all_migrate_at_once(empty_database_url: str) -> None:
    outcomes = await asyncio.gather(*(migrate(empty_database_url) for _ in range(5)))
    assert outcomes == [head_revision()] * 5
    connection = await asyncpg.connect(empty_database_url)
    try:
        assert await is_current(connection)
        assert await connection.fetchval("SELECT count(*) FROM taskforge.projects") == 1
    finally:
        await connection.close()


async def test_migrating_again_changes_nothing(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("UPDATE taskforge.projects SET name = 'renamed'")
        assert await migrate(database_url) == head_revision()
        assert await connection.fetchval("SELECT name FROM taskforge.projects") == "renamed"
    finally:
        await connection.close()


async def test_an_empty_database_is_told_from_a_migrated_one(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    try:
        assert await current_revision(connection) is None
        assert await schema_state(connection) is SchemaState.MISSING
        assert not await is_current(connection)
        await migrate(empty_database_url)
        assert await current_revision(connection) == head_revision()
        assert await schema_state(connection) is SchemaState.CURRENT
    finally:
        await connection.close()


async def test_the_schema_of_a_later_release_is_refused_and_left_as_it_is(
    database_url: str,
) -> None:
    await execute(database_url, "UPDATE taskforge.alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaIsNewer, match="9999"):
        await migrate(database_url)
    connection = await asyncpg.connect(database_url)
    try:
        assert await current_revision(connection) == "9999"
        assert await schema_state(connection) is SchemaState.NEWER
    finally:
        await connection.close()


async def test_it_waits_for_whoever_migrates_without_holding_a_snapshot(
    empty_database_url: str,
) -> None:
    holder = await asyncpg.connect(empty_database_url)
    watcher = await asyncpg.connect(empty_database_url)
    try:
        await holder.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
        waiting = asyncio.create_task(migrate(empty_database_url))
        seen = (
            "SELECT backend_xmin IS NULL FROM pg_stat_activity"
            " WHERE application_name = 'taskforge:migrate' AND datname = current_database()"
            " AND state = 'idle' AND query LIKE '%pg_try_advisory_lock%'"
        )
        async with asyncio.timeout(20):
            while not await watcher.fetchval(seen):
                assert not waiting.done()
        assert await current_revision(watcher) is None
        await holder.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)
        assert await waiting == head_revision()
    finally:
        await holder.close()
        await watcher.close()


async def test_a_migration_cut_off_in_the_middle_leaves_nothing_and_can_be_repeated(
    empty_database_url: str,
) -> None:
    blocker = await asyncpg.connect(empty_database_url)
    try:
        # The name is taken: the first script fails somewhere in its middle.
        await blocker.execute("CREATE SCHEMA taskforge; CREATE TABLE taskforge.job_history ()")
        with pytest.raises(Exception, match="already exists"):
            await migrate(empty_database_url)
        assert await current_revision(blocker) is None
        left = "SELECT count(*) FROM pg_tables WHERE schemaname = 'taskforge'"
        assert await blocker.fetchval(left) == 1
        await blocker.execute("DROP TABLE taskforge.job_history")
        assert await migrate(empty_database_url) == head_revision()
    finally:
        await blocker.close()


def test_there_is_one_line_of_revisions() -> None:
    assert head_revision() in known_revisions()
