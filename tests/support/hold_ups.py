"""Statements that are held up in their middle, so that others can come between."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

_LOCK = 77


@asynccontextmanager
async def held_up_behind(pool: "asyncpg.Pool[Any]", event: str) -> AsyncIterator[Any]:
    """Whatever statement does this waits at its end for the transaction of this connection.

    Args:
        pool: Of the test's own database.
        event: As a trigger has it: `INSERT ON taskforge.queue_deltas`.
    """
    await pool.execute(
        f"""
        CREATE FUNCTION taskforge.wait() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock({_LOCK}); RETURN NULL; END $$;
        CREATE TRIGGER wait AFTER {event} FOR EACH STATEMENT EXECUTE FUNCTION taskforge.wait()
        """
    )
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        yield connection
