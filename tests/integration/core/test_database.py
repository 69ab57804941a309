"""Database on a real Postgres."""

import json
import traceback
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from sqlalchemy import JSON, column, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from structlog.testing import capture_logs
from tests.conftest import execute

from taskforge_core.database import Database, connect_direct
from taskforge_core.database_errors import is_conflict, is_data_error, translate_database_error
from taskforge_core.errors import Internal, InvalidArgument, Unavailable
from taskforge_core.settings import MissingDatabaseUrl, Settings

_SHORT = timedelta(milliseconds=50)


async def test_both_ways_speak_of_the_schema_without_naming_it(database: Database) -> None:
    assert await database.hot.fetchval("SELECT name FROM projects") == "default"
    async with database.engine.connect() as connection:
        assert (await connection.execute(text("SELECT name FROM projects"))).scalar() == "default"


async def test_json_stays_the_text_that_was_sent(database: Database) -> None:
    sent = '{"b": 1,  "a": 1.50, "a": 2}'
    assert await database.hot.fetchval("SELECT $1::json", sent) == sent
    async with database.engine.connect() as connection:
        query = select(column("document", JSON)).select_from(
            text("(SELECT CAST(:sent AS json) AS document) AS sent").bindparams(sent=sent)
        )
        assert (await connection.execute(query)).scalar() == sent
        labels = select(column("labels", JSONB)).select_from(
            text("""(SELECT CAST('{"team": "a"}' AS jsonb) AS labels) AS sent""")
        )
        assert json.loads((await connection.execute(labels)).scalar_one()) == {"team": "a"}


async def test_the_limits_of_the_settings_bind_each_session(
    database: Database, settings: Settings
) -> None:
    expected = {
        "statement_timeout": "15s",
        "lock_timeout": "3s",
        "idle_in_transaction_session_timeout": "10s",
        "jit": "off",
    }
    direct = await connect_direct(
        settings,
        application_name="taskforge:test-direct",
        server_settings={"idle_session_timeout": "5000"},
    )
    try:
        for connection in (database.hot, direct):
            for name, value in expected.items():
                assert await connection.fetchval("SELECT current_setting($1)", name) == value
        assert await direct.fetchval("SELECT current_setting('idle_session_timeout')") == "5s"
    finally:
        await direct.close()
    async with database.engine.connect() as browsing:
        shown = await browsing.execute(text("SELECT current_setting('statement_timeout')"))
        assert shown.scalar() == "30s"


async def test_a_transaction_left_open_is_rolled_back_when_its_connection_returns(
    database: Database,
) -> None:
    async with database.hot.acquire() as connection:
        await connection.execute("BEGIN; CREATE TABLE left_open ()")
    assert await database.hot.fetchval("SELECT to_regclass('left_open')") is None


async def test_it_is_ready_only_with_a_migrated_database(
    database: Database, empty_database_url: str
) -> None:
    assert await database.ready()
    unmigrated = await Database.open(Settings(database_url=empty_database_url))
    try:
        with capture_logs() as logs:
            for _ in range(3):
                assert not await unmigrated.ready()
        # Asked every two seconds, and told once.
        assert [(line["event"], line["state"]) for line in logs] == [
            ("schema_not_current", "missing")
        ]
        assert logs[0]["advice"] == "run taskforge migrate"
    finally:
        await unmigrated.close()


async def test_it_stays_ready_when_a_later_release_migrates_but_does_not_become_so(
    database: Database, settings: Settings
) -> None:
    assert await database.ready()
    await database.hot.execute("UPDATE alembic_version SET version_num = '9999'")
    assert await database.ready()
    started_later = await Database.open(settings)
    try:
        assert not await started_later.ready()
    finally:
        await started_later.close()


async def test_it_opens_while_the_database_is_away_and_says_so() -> None:
    away = await Database.open(Settings(database_url="postgresql://nobody@127.0.0.1:1/nothing"))
    try:
        assert not await away.ready()
        with pytest.raises(ConnectionRefusedError) as refused:
            await away.hot.fetchval("SELECT 1")
        error = translate_database_error(refused.value)
        assert isinstance(error, Unavailable)
        assert error.reason == "DATABASE_UNAVAILABLE"
        assert error.retry_after is not None
    finally:
        await away.close()


async def test_without_an_address_it_is_refused_before_anything_else() -> None:
    with pytest.raises(MissingDatabaseUrl):
        await Database.open(Settings(database_url=None))


async def test_behind_a_pooler_nothing_is_prepared_by_name(settings: Settings) -> None:
    pooled = await Database.open(settings.model_copy(update={"statement_cache": False}))
    try:
        async with pooled.hot.acquire() as connection:
            await connection.fetchval("SELECT $1::int", 1)
            names = await connection.fetch("SELECT name FROM pg_prepared_statements")
            assert names == []
        async with pooled.engine.connect() as browsing:
            for _ in range(3):
                await browsing.execute(text("SELECT CAST(:n AS int)"), {"n": 1})
    finally:
        await pooled.close()


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1 / 0", InvalidArgument),
        ("SELECT 'x'::uuid", InvalidArgument),
        ("SELECT pg_terminate_backend(pg_backend_pid())", Unavailable),
        ("SELECT * FROM no_such_table", Unavailable),
        ("SELECT nonsense", Internal),
        ("INSERT INTO projects SELECT * FROM projects", Internal),
    ],
)
async def test_each_way_translates_to_the_same_error(
    database: Database, statement: str, expected: type[Exception]
) -> None:
    with pytest.raises(Exception) as hot:  # noqa: PT011 - the driver's classes vary
        await database.hot.execute(statement)
    with pytest.raises(Exception) as browsed:  # noqa: PT011
        async with database.engine.connect() as connection:
            await connection.execute(text(statement))
    for raised in (hot.value, browsed.value):
        error = translate_database_error(raised)
        assert type(error) is expected
        assert statement not in error.message


async def test_what_a_failed_statement_was_given_is_not_told(database: Database) -> None:
    with pytest.raises(DBAPIError) as failed:
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT nonsense, CAST(:sent AS text)"), {"sent": "me"})
    assert translate_database_error(failed.value).reason == "INTERNAL"
    told = "".join(traceback.format_exception(failed.value))
    assert "SELECT nonsense" in told
    assert "('me',)" not in told
    assert "SQL parameters hidden" in told


async def test_a_value_the_driver_cannot_send_is_a_data_error(database: Database) -> None:
    with pytest.raises(Exception) as refused:  # noqa: PT011
        await database.hot.fetchval("SELECT $1::int", "one")
    assert is_data_error(refused.value)
    assert isinstance(translate_database_error(refused.value), InvalidArgument)


async def test_a_lock_that_is_not_given_in_time_is_a_conflict_worth_repeating(
    settings: Settings,
) -> None:
    impatient = await Database.open(settings.model_copy(update={"lock_timeout": _SHORT}))
    try:
        async with impatient.hot.acquire() as holder, holder.transaction():
            await holder.execute("LOCK TABLE projects")
            with pytest.raises(Exception) as refused:  # noqa: PT011
                await impatient.hot.execute("SELECT FROM projects")
        assert is_conflict(refused.value)
        error = translate_database_error(refused.value)
        assert isinstance(error, Unavailable)
        assert error.retry_after is not None
    finally:
        await impatient.close()


async def test_nobody_waits_for_ever_for_a_free_connection(settings: Settings) -> None:
    narrow = {"hot_pool_size": 1, "browse_pool_size": 1, "connect_timeout": _SHORT}
    busy = await Database.open(settings.model_copy(update=narrow))
    try:
        async with busy.hot.acquire():
            with pytest.raises(TimeoutError) as hot:
                await busy.hot.fetchval("SELECT 1")
        async with busy.engine.connect():
            with pytest.raises(PoolTimeout) as browsed:
                async with busy.engine.connect():
                    pass
        for refused in (hot.value, browsed.value):
            assert translate_database_error(refused).reason == "DATABASE_UNAVAILABLE"
        assert await busy.hot.fetchval("SELECT 1") == 1
    finally:
        await busy.close()


async def test_connections_lost_with_the_server_are_replaced(
    database: Database, postgres_url: str
) -> None:
    async def use_both() -> None:
        assert await database.hot.fetchval("SELECT 1") == 1
        async with database.engine.connect() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar() == 1

    await use_both()
    name = await database.hot.fetchval("SELECT current_database()")
    await execute(
        postgres_url,
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    await use_both()


async def test_browsing_has_connections_of_its_own(database: Database) -> None:
    size = database.settings.browse_pool_size
    async with AsyncExitStack() as stack:
        for _ in range(size):
            browsing = await stack.enter_async_context(database.engine.connect())
            await browsing.execute(text("SELECT 1"))
        # All of them are taken, and a heartbeat does not notice.
        assert await database.hot.fetchval("SELECT 1") == 1
