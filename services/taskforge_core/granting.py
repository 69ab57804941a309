"""What the role that the services run as may do, and nothing beyond it.

Two roles are enough: the *owner* migrates, so the tables and functions are its own; the *runtime*
role reads and writes rows. What the scheduler does to tables (days of history, statistics) is done
by functions that run as their owner (migration 0004).
"""

from typing import Any

import asyncpg
import structlog

from taskforge_core.migrating import SCHEMA

log = structlog.get_logger(__name__)

PARTITION_LOCK = 0x7461_736B_7061_7274
"""Key of the advisory lock under which the days of history come and go, and rights are granted: the
letters `taskpart`."""

_CONNECT_TIMEOUT = 10.0

_USUAL_RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
_READING = "SELECT"
"""Also of a day of history: rows come into it and leave it through `job_history`."""

_KEPT_FOR_EVER = "SELECT, INSERT, UPDATE"
_RIGHTS = {
    # Servers compare it with what they were written for.
    "alembic_version": _READING,
    # Not `id` and `at`: those are the database's word on what came when.
    "audit_log": "SELECT, INSERT (organisation_id, project_id, actor, action, target, detail,"
    " request_id)",
    # What they were called, and whose key it was, is known as long as anything bears their ids.
    "organisations": _KEPT_FOR_EVER,
    "projects": _KEPT_FOR_EVER,
    "api_keys": _KEPT_FOR_EVER,
}


class CannotGrant(Exception):
    """The role cannot be the one that the services run as; nothing was changed."""


async def grant_runtime(dsn: str, role: str) -> None:
    """Give a role exactly what the services need; what else it was given in the schema, it loses.

    One transaction: services that run as this role notice nothing. It may be repeated, and must be
    after a migration that made a table.

    Args:
        dsn: A direct connection as the owner of the schema's tables, or as a superuser.
        role: Its name, as `pg_roles` spells it.

    Raises:
        CannotGrant: The role does not exist or is not apart from the owner, or `dsn` is not the
            owner's.
        OSError, asyncpg.PostgresError: The database is not there, or refused a statement.
    """
    connection = await asyncpg.connect(
        dsn,
        timeout=_CONNECT_TIMEOUT,
        server_settings={"application_name": "taskforge:grant", "search_path": SCHEMA},
    )
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", PARTITION_LOCK)
            owner = await _owner_apart_from(connection, role)
            # Postgres quotes the names as it reads them.
            quote = "SELECT quote_ident($1)"
            runtime, owner = [await connection.fetchval(quote, name) for name in (role, owner)]
            relations = await connection.fetch(_RELATIONS)
            await connection.execute(";\n".join(_statements(runtime, owner, relations)))
    finally:
        await connection.close()
    log.info("runtime_role_granted", role=role)


_RELATIONS = """
SELECT relname AS name, quote_ident(relname) AS quoted,
       relkind IN ('r', 'p') AS is_table, relname ~ '^job_history_[0-9]{8}$' AS is_day
FROM pg_catalog.pg_class
WHERE relnamespace = 'taskforge'::regnamespace AND relkind IN ('r', 'p', 'v')
ORDER BY relname
"""


async def _owner_apart_from(connection: Any, role: str) -> str:
    """The owner of the tables, whom the role must not be able to act as."""
    owner: str = await connection.fetchval(
        "SELECT pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid = $1::text::regclass",
        f"{SCHEMA}.job_history",
    )
    if not await connection.fetchval("SELECT pg_has_role($1::name, 'USAGE')", owner):
        raise CannotGrant(
            f"only the owner of the tables, {owner}, can say what {role} may do with them"
        )
    if not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)", role
    ):
        raise CannotGrant(f"there is no role {role}: make it first (CREATE ROLE … LOGIN)")
    if await connection.fetchval("SELECT pg_has_role($1::name, $2::name, 'MEMBER')", role, owner):
        raise CannotGrant(
            f"the role {role} may do all that {owner}, the owner of the tables, may do;"
            " the services need one that is no superuser, nor the owner, nor a member of it"
        )
    return owner


def _statements(runtime: str, owner: str, relations: list[asyncpg.Record]) -> list[str]:
    """What to execute; the names are quoted."""
    own = f"FOR ROLE {owner} IN SCHEMA {SCHEMA}"
    return [
        f"REVOKE ALL ON SCHEMA {SCHEMA} FROM {runtime}",
        *(
            f"REVOKE ALL ON ALL {kind} IN SCHEMA {SCHEMA} FROM {runtime}"
            for kind in ("TABLES", "SEQUENCES", "FUNCTIONS")
        ),
        f"ALTER DEFAULT PRIVILEGES {own} REVOKE ALL ON TABLES FROM {runtime}",
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {runtime}",
        *(
            f"GRANT {_rights(relation)} ON {SCHEMA}.{relation['quoted']} TO {runtime}"
            for relation in relations
        ),
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {SCHEMA} TO {runtime}",
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {SCHEMA} TO {runtime}",
        # The days to come: the scheduler looks into them.
        f"ALTER DEFAULT PRIVILEGES {own} GRANT {_READING} ON TABLES TO {runtime}",
    ]


def _rights(relation: asyncpg.Record) -> str:
    if relation["is_day"] or not relation["is_table"]:
        return _READING
    return _RIGHTS.get(relation["name"], _USUAL_RIGHTS)
