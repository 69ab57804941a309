"""The first key of a deployment: made past the services, by whoever may write to the database.

It makes what is not there and enables nothing: keys of what was disabled stay refused. Whoever has
to get in where all operators are disabled makes another one, whose key enables them again.
"""

import re
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from taskforge_core import migrating
from taskforge_core.api_keys import ApiKey, new_api_key
from taskforge_core.auditing import append_audit_entry
from taskforge_core.callers import ADMIN, ALL_PERMISSIONS
from taskforge_core.ids import DEFAULT_ORGANISATION_ID, uuid7
from taskforge_core.queue_names import parse_queue_id

DEFAULT_NAME = "default"
"""The organisation and the project that the first migration makes."""

_ACTOR = "bootstrap"
_TURN = 0x7461_736B_626F_6F74
"""Key of the advisory lock that lets one bootstrap run at a time: the letters `taskboot`."""

_CONNECT_TIMEOUT = 10.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")


class CannotBootstrap(Exception):
    """Nothing was made; the message says why."""


@dataclass(frozen=True, slots=True)
class FirstKey:
    """A key of all permissions in an organisation that manages all others."""

    organisation: str
    project: str
    text: str = field(repr=False)
    """What its owner sends; it is stored nowhere."""


async def bootstrap(
    dsn: str, *, organisation: str | None = None, project: str = DEFAULT_NAME, again: bool = False
) -> FirstKey:
    """Make an operator organisation, a project in it, and a key; what is there already is used.

    Args:
        dsn: The database, which must have been migrated.
        organisation: Its name. None: the oldest operator that is enabled or, where there has never
            been one, `default`.
        project: The name of its project.
        again: Also where somebody has a key that does the same.

    Raises:
        CannotBootstrap: A name is none, the database is not migrated, somebody has such a key, the
            organisation or project is disabled, or the named organisation is a tenant.
        OSError, asyncpg.PostgresError: The database is not there, or refused a statement.
    """
    for name in filter(None, (organisation, project)):
        _check_name(name)
    connection = await asyncpg.connect(
        dsn,
        timeout=_CONNECT_TIMEOUT,
        server_settings={"application_name": "taskforge:bootstrap"},
    )
    try:
        if not await migrating.is_current(connection):
            raise CannotBootstrap(
                "the database is not at the schema of this release: run taskforge migrate"
            )
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _TURN)
            if not again and await connection.fetchval(_HAS_KEY, ADMIN):
                raise CannotBootstrap(
                    "an operator has a key already; --again makes another nevertheless"
                )
            return await _make(connection, organisation, project)
    finally:
        await connection.close()


_HAS_KEY = """
SELECT EXISTS (
    SELECT FROM taskforge.api_keys AS key
    JOIN taskforge.organisations AS organisation ON organisation.id = key.organisation_id
    WHERE organisation.is_operator AND organisation.disabled_at IS NULL
      AND key.project_id IS NULL AND $1 = ANY(key.permissions) AND key.revoked_at IS NULL
      AND (key.expires_at IS NULL OR key.expires_at > clock_timestamp())
)
"""

# One that is disabled is found where no other is, and refused by its name.
_OPERATOR = """
SELECT name FROM taskforge.organisations
WHERE is_operator
ORDER BY disabled_at IS NOT NULL, created_at, id
LIMIT 1
"""

# The keys of `default` may come to rule the others while nobody does; those of no tenant ever may.
_ORGANISATION = """
INSERT INTO taskforge.organisations AS organisation (id, name, is_operator)
VALUES ($1, $2, true)
ON CONFLICT (name) DO UPDATE
SET is_operator = true, updated_at = clock_timestamp()
WHERE organisation.is_operator
   OR organisation.id = $3
      AND NOT EXISTS (SELECT FROM taskforge.organisations WHERE is_operator)
   OR NOT EXISTS (SELECT FROM taskforge.api_keys WHERE organisation_id = organisation.id)
RETURNING id, disabled_at IS NOT NULL AS is_disabled
"""

_PROJECT = """
INSERT INTO taskforge.projects (id, organisation_id, name)
VALUES ($1, $2, $3)
ON CONFLICT (organisation_id, name) DO UPDATE
SET updated_at = clock_timestamp()
RETURNING disabled_at IS NOT NULL
"""

_KEY = """
INSERT INTO taskforge.api_keys (id, organisation_id, name, secret_hash, permissions, created_by)
VALUES ($1, $2, $3, $4, $5, $6)
"""


async def _make(
    connection: "asyncpg.Connection[Any]", organisation: str | None, project: str
) -> FirstKey:
    name: str = organisation or await connection.fetchval(_OPERATOR) or DEFAULT_NAME
    row = await connection.fetchrow(_ORGANISATION, uuid7(), name, DEFAULT_ORGANISATION_ID)
    if row is None:
        # Its keys would rule all organisations from now on.
        raise CannotBootstrap(f"the organisation {name} is a tenant that has keys: name another")
    if row["is_disabled"]:
        # Its other keys would be accepted again, of whoever it was disabled for.
        raise CannotBootstrap(
            f"the organisation {name} is disabled: name another with --organisation, whose key can"
            " enable it"
        )
    organisation_id: UUID = row["id"]
    if await connection.fetchval(_PROJECT, uuid7(), organisation_id, project):
        raise CannotBootstrap(
            f"the project {project} of the organisation {name} is disabled: name another"
        )
    key = await make_full_key(connection, organisation_id, _ACTOR, _ACTOR)
    await append_audit_entry(
        connection,
        "Bootstrap",
        f"organisations/{organisation_id}",
        organisation_id=organisation_id,
        detail={"organisation": name, "project": project, "api_key": key.id},
        actor=_ACTOR,
    )
    return FirstKey(name, project, key.text)


async def make_full_key(
    connection: "asyncpg.Connection[Any]", organisation_id: UUID, name: str, made_by: str
) -> ApiKey:
    """Make a key of all permissions in all projects of an organisation."""
    key = new_api_key()
    await connection.execute(
        _KEY, key.id, organisation_id, name, key.secret_hash, sorted(ALL_PERMISSIONS), made_by
    )
    return key


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or parse_queue_id(name) is not None:
        raise CannotBootstrap(
            f"{name!r} is no name: write up to 100 letters, digits and . _ - : /, not a UUID"
        )
