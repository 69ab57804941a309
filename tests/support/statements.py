"""Statements on a running system's database, from tests without an event loop."""

import asyncpg
from tests.conftest import run_apart


def fetch(dsn: str, statement: str, *values: object) -> list[asyncpg.Record]:
    """The rows of a statement; its tables are looked for in the schema `taskforge`."""

    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(dsn, server_settings={"search_path": "taskforge"})
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    return run_apart(run())
