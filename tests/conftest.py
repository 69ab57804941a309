"""Fixtures of all tests: a real Postgres, and a migrated database of its own for each test.

The server is the one that `TASKFORGE_DATABASE_URL` names, else one from the binaries in the folder
that `--postgres-binaries` names, else the embedded one. It is started when a test first asks for it
(each worker of pytest-xdist has its own). Every test's database is a copy of one
migrated template.
"""

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.other_postgres import other_postgres

from taskforge_core.database import Database
from taskforge_core.embedded import EmbeddedPostgres
from taskforge_core.migrating import migrate
from taskforge_core.settings import Settings

T = TypeVar("T")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres-binaries",
        type=Path,
        metavar="FOLDER",
        help="test on the Postgres with these binaries, such as /usr/lib/postgresql/15/bin",
    )


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a loop of its own, beside the loop of the tests."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def with_database(dsn: str, name: str) -> str:
    """The same server's address with another database."""
    return urlsplit(dsn)._replace(path=f"/{name}").geturl()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that the user of an embedded Postgres may enter, also when we are root."""
    folder = Path(tempfile.mkdtemp(prefix="taskforge-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server on which databases may be made."""
    if named := os.environ.get("TASKFORGE_DATABASE_URL"):
        yield named
        return
    binaries: Path | None = request.config.getoption("--postgres-binaries")
    if binaries is not None:
        with other_postgres(binaries) as address:
            yield address
        return
    folder = Path(tempfile.mkdtemp(prefix="taskforge-test-"))
    folder.chmod(0o755)
    try:
        with EmbeddedPostgres(
            folder,
            fsync=False,
            settings={"synchronous_commit": "off", "max_wal_size": "4GB", "autovacuum": "off"},
        ) as postgres:
            yield postgres.dsn
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> Iterator[str]:
    """The name of a migrated database, made once, that nobody is connected to."""
    name = f"taskforge_template_{uuid.uuid4().hex}"
    run_apart(execute(postgres_url, f"CREATE DATABASE {name}"))
    run_apart(migrate(with_database(postgres_url, name)))
    yield name
    run_apart(execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A database of the test's own that nothing was done to."""
    name = f"taskforge_test_{uuid.uuid4().hex}"
    run_apart(execute(postgres_url, f"CREATE DATABASE {name}"))
    yield with_database(postgres_url, name)
    run_apart(execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = f"taskforge_test_{uuid.uuid4().hex}"
    create = f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY file_copy"
    run_apart(execute(postgres_url, create))
    yield with_database(postgres_url, name)
    run_apart(execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings that name the test's own database, whatever the environment says.

    Whoever calls may do everything: the engine's rules are what most tests are about.
    """
    return Settings(database_url=database_url, listen_url=None, authentication="off")


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """The test's own database, opened."""
    opened = await Database.open(settings, application_name="taskforge:test")
    yield opened
    await opened.close()
