"""The key of `taskforge dev` and `taskforge demo`: made once a database, kept in a file."""

import os
from pathlib import Path
from typing import Any

import asyncpg

from taskforge_core.api_keys import ApiKey, parse_api_key
from taskforge_core.auditing import append_audit_entry
from taskforge_core.bootstrapping import make_full_key
from taskforge_core.ids import DEFAULT_ORGANISATION_ID

_ACTOR = "taskforge dev"
_NAME = "local"
_MINE_ALONE = 0o600


class KeyRefused(Exception):
    """No key was made, since others use the database; the message says how one knows."""


async def ensure_local_key(dsn: str, file: Path, *, shared: bool = False) -> str:
    """The key in the file if it is good in this database, else a new one, which is written there.

    It has all permissions in the organisation `default`. The file can be read by its owner alone.

    Args:
        dsn: The database, which must have been migrated.
        file: Where the key is kept.
        shared: Others may use the database. No key is made where it would rule more than what is a
            developer's own: in an organisation that manages all others, or whose keys others have.

    Raises:
        KeyRefused: The database is shared indeed; nothing was made.
        OSError: The file cannot be read or written, or the database is not there.
        asyncpg.PostgresError: The database refused a statement.
    """
    connection = await asyncpg.connect(dsn)
    try:
        known = _read(file)
        if known is not None and await _is_good(connection, known):
            return known.text
        async with connection.transaction():
            # Locked: it does not become an operator between the look and the key.
            is_operator = await connection.fetchval(_IS_OPERATOR, DEFAULT_ORGANISATION_ID)
            if shared and is_operator:
                raise KeyRefused("the organisation default of this database manages all others")
            if shared and await connection.fetchval(_IS_USED, DEFAULT_ORGANISATION_ID, _ACTOR):
                raise KeyRefused("others have keys of the organisation default of this database")
            key = await _make(connection)
            # Before the transaction ends: a key that cannot be kept is none.
            _write(file, key)
    finally:
        await connection.close()
    return key.text


_IS_OPERATOR = "SELECT is_operator FROM taskforge.organisations WHERE id = $1 FOR SHARE"

_IS_USED = """
SELECT EXISTS (
    SELECT FROM taskforge.api_keys
    WHERE organisation_id = $1 AND created_by <> $2 AND revoked_at IS NULL
      AND (expires_at IS NULL OR expires_at > clock_timestamp())
)
"""


async def _make(connection: "asyncpg.Connection[Any]") -> ApiKey:
    key = await make_full_key(connection, DEFAULT_ORGANISATION_ID, _NAME, _ACTOR)
    await append_audit_entry(
        connection,
        "CreateApiKey",
        f"api_keys/{key.id}",
        organisation_id=DEFAULT_ORGANISATION_ID,
        detail={"name": _NAME},
        actor=_ACTOR,
    )
    return key


async def _is_good(connection: asyncpg.Connection, key: ApiKey) -> bool:
    secret_hash = await connection.fetchval(
        "SELECT secret_hash FROM taskforge.api_keys WHERE id = $1 AND revoked_at IS NULL"
        " AND (expires_at IS NULL OR expires_at > clock_timestamp())",
        key.id,
    )
    return secret_hash is not None and key.proves(secret_hash)


def _read(file: Path) -> ApiKey | None:
    try:
        return parse_api_key(file.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return None


def _write(file: Path, key: ApiKey) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Never readable by others, not even for a moment; and whole, or not there at all.
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MINE_ALONE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as written:
        written.write(f"{key.text}\n")
    fresh.replace(file)
