"""The services' role can change neither tables nor what was recorded in the audit log."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from tests.support.runtime_roles import as_role, role, runtime_role

from taskforge_core.granting import CannotGrant, grant_runtime
from taskforge_core.migrating import SchemaState, schema_state

Connection = Any

EVERYTHING = {"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"}
ROWS = {"SELECT", "INSERT", "UPDATE", "DELETE"}


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Connection]:
    """The owner's connection."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def runtime_name(database_url: str) -> AsyncIterator[str]:
    """The role that the services run as."""
    async with runtime_role(database_url) as name:
        yield name


@pytest.fixture
async def runtime(database_url: str, runtime_name: str) -> AsyncIterator[Connection]:
    """A connection of it."""
    connection = await asyncpg.connect(as_role(database_url, runtime_name))
    yield connection
    await connection.close()


async def rights(owner: Connection, name: str) -> dict[str, set[str]]:
    """What a role may do with each table and view of the schema."""
    rows = await owner.fetch(
        "SELECT relname, privilege FROM pg_class, unnest($2::text[]) AS privilege"
        " WHERE relnamespace = 'taskforge'::regnamespace AND relkind IN ('r', 'p', 'v')"
        " AND has_table_privilege($1::name, oid, privilege)",
        name,
        list(EVERYTHING),
    )
    found: dict[str, set[str]] = {}
    for relation, privilege in rows:
        found.setdefault(relation, set()).add(privilege)
    return found


# -- What the role may do -------------------------------------------------------------------------


async def test_it_reads_and_writes_rows_and_no_more(owner: Connection, runtime_name: str) -> None:
    granted = await rights(owner, runtime_name)
    for kept in ("organisations", "projects", "api_keys"):
        assert granted.pop(kept) == {"SELECT", "INSERT", "UPDATE"}
    # What it may insert there, by columns, is tested below.
    assert granted.pop("audit_log") == {"SELECT"}
    assert granted.pop("alembic_version") == {"SELECT"}
    assert granted.pop("every_job") == {"SELECT"}
    days = [granted.pop(name) for name in list(granted) if re.search("_[0-9]{8}$", name)]
    assert len(days) >= 8
    assert all(rights == {"SELECT"} for rights in days)
    assert {"jobs", "job_history", "job_history_default", "queues", "sessions"} <= granted.keys()
    assert all(rights == ROWS for rights in granted.values()), granted


async def test_each_table_is_open_to_it(owner: Connection, runtime_name: str) -> None:
    tables = await owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'taskforge'")
    assert {row[0] for row in tables} | {"every_job"} == (await rights(owner, runtime_name)).keys()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE taskforge.mine ()",
        "CREATE TABLE public.mine ()",
        "CREATE SCHEMA mine",
        "CREATE VIEW taskforge.mine AS SELECT 1",
        "CREATE FUNCTION taskforge.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE INDEX ON taskforge.jobs (labels)",
        "CREATE TRIGGER mine BEFORE INSERT ON taskforge.audit_log EXECUTE FUNCTION mine()",
        "CREATE OR REPLACE FUNCTION taskforge.refuse_change() RETURNS trigger AS '' LANGUAGE sql",
        "ALTER TABLE taskforge.jobs ADD COLUMN mine int",
        "ALTER TABLE taskforge.audit_log DISABLE TRIGGER ALL",
        "ALTER TABLE taskforge.jobs OWNER TO CURRENT_USER",
        "ALTER FUNCTION taskforge.analyze_table(regclass) RESET ALL",
        "DROP TABLE taskforge.job_history_default",
        "DROP SCHEMA taskforge CASCADE",
        "TRUNCATE taskforge.jobs",
        "TRUNCATE taskforge.audit_log",
        "UPDATE taskforge.audit_log SET actor = 'nobody'",
        "DELETE FROM taskforge.audit_log",
        "UPDATE taskforge.alembic_version SET version_num = '9999'",
        "DELETE FROM taskforge.organisations",
        "SELECT setval('taskforge.lease_seq', 1)",
        "SET session_replication_role = replica",
    ],
)
async def test_what_is_the_owners_is_refused(runtime: Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError) as refusal:
        await runtime.execute(statement)
    # Postgres refused it: no trigger had to.
    assert "append-only" not in str(refusal.value)


async def test_it_writes_the_audit_log_and_reads_it(runtime: Connection) -> None:
    await runtime.execute(
        "INSERT INTO taskforge.audit_log (actor, action, target) VALUES ('a', 'b', 'c')"
    )
    assert await runtime.fetchval("SELECT count(*) FROM taskforge.audit_log") == 1


@pytest.mark.parametrize(
    ("columns", "values"),
    [("id,", "9000000000000000000,"), ("at,", "'2001-01-01',")],
)
async def test_it_can_neither_choose_the_place_of_an_entry_nor_its_time(
    runtime: Connection, columns: str, values: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await runtime.execute(
            f"INSERT INTO taskforge.audit_log ({columns} actor, action, target)"
            f" OVERRIDING SYSTEM VALUE VALUES ({values} 'a', 'b', 'c')"
        )


async def test_each_other_column_of_the_audit_log_is_open_to_it(
    owner: Connection, runtime_name: str
) -> None:
    columns = await owner.fetch(
        "SELECT attname, has_column_privilege($1::name, attrelid, attnum, 'INSERT') AS may"
        " FROM pg_attribute WHERE attrelid = 'taskforge.audit_log'::regclass"
        " AND attnum > 0 AND NOT attisdropped",
        runtime_name,
    )
    assert {row["attname"] for row in columns if not row["may"]} == {"id", "at"}


async def test_it_sees_whether_the_schema_is_current(runtime: Connection) -> None:
    assert await schema_state(runtime) is SchemaState.CURRENT


async def test_without_the_grant_a_role_may_do_nothing(
    database_url: str, owner: Connection
) -> None:
    async with role(database_url) as name:
        assert await rights(owner, name) == {}
        connection = await asyncpg.connect(as_role(database_url, name))
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("SELECT taskforge.drop_partition('2001-01-01')")
        finally:
            await connection.close()


# -- The functions that run as their owner --------------------------------------------------------


async def test_what_runs_as_its_owner_looks_nowhere_else_and_is_not_everybodys(
    owner: Connection,
) -> None:
    functions = await owner.fetch(
        "SELECT proname, proconfig, proowner = relowner AS is_the_owners,"
        " proargtypes::regtype[] && '{text,name,varchar}'::regtype[] AS takes_text,"
        " EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))"
        "         WHERE grantee = 0) AS is_everybodys"
        " FROM pg_proc, pg_class WHERE pronamespace = 'taskforge'::regnamespace AND prosecdef"
        " AND pg_class.oid = 'taskforge.job_history'::regclass"
    )
    assert len(functions) >= 7
    for function in functions:
        assert function["proconfig"] == ["search_path=pg_catalog, taskforge, pg_temp"], function
        assert function["is_the_owners"], function
        assert not function["is_everybodys"], function
        assert not function["takes_text"], function


@pytest.mark.parametrize("table", ["pg_catalog.pg_class", "public.foreign_one", "jobs_ready"])
async def test_only_tables_of_the_schema_are_analyzed(
    owner: Connection, runtime: Connection, table: str
) -> None:
    await owner.execute("CREATE TABLE public.foreign_one ()")
    await runtime.execute("SET search_path = taskforge")
    with pytest.raises(asyncpg.UndefinedTableError, match="no table of this schema"):
        await runtime.execute(f"SELECT taskforge.analyze_table('{table}')")


@pytest.mark.parametrize("day", ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01"])
async def test_a_day_without_a_name_is_refused(runtime: Connection, day: str) -> None:
    for function in ("create_partition", "drop_partition"):
        with pytest.raises(asyncpg.InvalidParameterValueError, match="history has no day"):
            await runtime.execute(f"SELECT taskforge.{function}('{day}')")


async def test_a_temporary_table_of_the_caller_is_not_taken_for_a_day(
    owner: Connection, runtime: Connection
) -> None:
    await runtime.execute("CREATE TEMPORARY TABLE job_history_20010101 ()")
    await runtime.execute("SET search_path = pg_temp, taskforge, pg_catalog, pg_catalog")
    await runtime.execute("SELECT taskforge.create_partition('2001-01-01')")
    assert await owner.fetchval("SELECT count(*) FROM taskforge.job_history_20010101") == 0
    await runtime.execute("SELECT taskforge.drop_partition('2001-01-01')")
    assert await owner.fetchval("SELECT to_regclass('taskforge.job_history_20010101')") is None


# -- Granting -------------------------------------------------------------------------------------


async def test_granting_again_takes_back_what_else_it_was_given(
    database_url: str, owner: Connection, runtime_name: str
) -> None:
    before = await rights(owner, runtime_name)
    await owner.execute(
        f"GRANT ALL ON ALL TABLES IN SCHEMA taskforge TO {runtime_name};"
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA taskforge TO {runtime_name};"
        f"GRANT ALL ON SCHEMA taskforge TO {runtime_name}"
    )
    await grant_runtime(database_url, runtime_name)
    assert await rights(owner, runtime_name) == before
    may_create, may_set = await owner.fetchrow(
        "SELECT has_schema_privilege($1::name, 'taskforge', 'CREATE'),"
        " has_sequence_privilege($1::name, 'taskforge.lease_seq', 'UPDATE')",
        runtime_name,
    )
    assert (may_create, may_set) == (False, False)


async def test_a_day_made_later_can_be_read(owner: Connection, runtime_name: str) -> None:
    await owner.execute("SELECT taskforge.create_partition('2001-01-01')")
    assert (await rights(owner, runtime_name))["job_history_20010101"] == {"SELECT"}


async def test_several_roles_may_be_granted_at_once(database_url: str, owner: Connection) -> None:
    async with role(database_url) as first, role(database_url) as second:
        await asyncio.gather(
            *(grant_runtime(database_url, name) for name in (first, second, first, second))
        )
        assert await rights(owner, first) == await rights(owner, second) != {}


@pytest.mark.parametrize("name", ['Run "time"; DROP TABLE jobs', "user", "o'neill é"])
async def test_any_name_will_do(database_url: str, owner: Connection, name: str) -> None:
    async with role(database_url, name):
        await grant_runtime(database_url, name)
        assert (await rights(owner, name))["jobs"] == ROWS


async def test_a_role_that_does_not_exist_is_refused(database_url: str) -> None:
    for name in ("nobody_of_this_name", "public", ""):
        with pytest.raises(CannotGrant, match=f"there is no role {name}"):
            await grant_runtime(database_url, name)


async def test_the_owner_a_superuser_and_a_member_of_the_owner_are_refused(
    database_url: str, owner: Connection
) -> None:
    owner_name = await owner.fetchval("SELECT current_user")
    async with role(database_url) as member, role(database_url) as superuser:
        await owner.execute(f"GRANT {owner_name} TO {member}; ALTER ROLE {superuser} SUPERUSER")
        for name in (owner_name, member, superuser):
            with pytest.raises(CannotGrant, match=f"the role {name} may do all"):
                await grant_runtime(database_url, name)
        assert await owner.fetchval("SELECT has_table_privilege('taskforge.jobs', 'UPDATE')")


async def test_only_the_owner_can_grant(database_url: str, runtime_name: str) -> None:
    with pytest.raises(CannotGrant, match="only the owner of the tables"):
        await grant_runtime(as_role(database_url, runtime_name), runtime_name)
