"""The key of `taskforge dev` and `taskforge demo`: made once a database, kept in a file."""

import os
from pathlib import Path

import asyncpg

from taskforge_core.api_keys import ApiKey, parse_api_key
from taskforge_core.bootstrapping import make_full_key
from taskforge_core.ids import DEFAULT_ORGANISATION_ID

_MINE_ALONE = 0o600


async def ensure_local_key(dsn: str, file: Path) -> str:
    """The key in the file if it is good in this database, else a new one, which is written there.

    It has all permissions in the organisation `default`. The file can be read by its owner alone.

    Raises:
        OSError: The file cannot be read or written, or the database is not there.
        asyncpg.PostgresError: The database refused a statement.
    """
    connection = await asyncpg.connect(dsn)
    try:
        known = _read(file)
        if known is not None and await _is_good(connection, known):
            return known.text
        key = await make_full_key(connection, DEFAULT_ORGANISATION_ID, "local", "taskforge dev")
    finally:
        await connection.close()
    _write(file, key)
    return key.text


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
