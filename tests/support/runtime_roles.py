"""Roles of the test's own. They belong to the whole server: each gets a name that no other has."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit

import asyncpg

from taskforge_core.granting import grant_runtime


@asynccontextmanager
async def role(database_url: str, name: str | None = None) -> AsyncIterator[str]:
    """A role that may log in and nothing else; its name. It goes, with all that it owns there."""
    name = name or f"taskforge_test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(database_url)
    try:
        quoted = await connection.fetchval("SELECT quote_ident($1)", name)
        await connection.execute(f"CREATE ROLE {quoted} LOGIN PASSWORD '{_PASSWORD}'")
        try:
            yield name
        finally:
            await connection.execute(f"DROP OWNED BY {quoted}; DROP ROLE {quoted}")
    finally:
        await connection.close()


@asynccontextmanager
async def runtime_role(database_url: str) -> AsyncIterator[str]:
    """A role that the services may run as; its name."""
    async with role(database_url) as name:
        await grant_runtime(database_url, name)
        yield name


_PASSWORD = uuid.uuid4().hex


def as_role(database_url: str, name: str) -> str:
    """The same database's address for one of these roles."""
    parts = urlsplit(database_url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(name, safe='')}:{_PASSWORD}@{host}").geturl()
