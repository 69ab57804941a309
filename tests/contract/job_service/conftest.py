"""What the tests of quotas share."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.support.job_replicas import JobReplica, job_replica, until_connected
from tests.support.quotas import Client, client

from taskforge_core.database import Database
from taskforge_core.settings import Settings


@pytest.fixture
async def replicas(
    settings: Settings, open_folder: Path
) -> AsyncIterator[tuple[JobReplica, JobReplica]]:
    guarded = settings.model_copy(update={"authentication": "on"})
    async with (
        job_replica(guarded, open_folder, "a") as first,
        job_replica(guarded, open_folder, "b") as second,
    ):
        await until_connected(first, second)
        yield first, second


@pytest.fixture
async def acme(
    database: Database, replicas: tuple[JobReplica, JobReplica]
) -> AsyncIterator[Client]:
    """The tenant that is limited."""
    async with AsyncExitStack() as stack:
        yield await client(stack, database, replicas, "acme")


@pytest.fixture
async def other(
    database: Database, replicas: tuple[JobReplica, JobReplica]
) -> AsyncIterator[Client]:
    """A tenant without quotas."""
    async with AsyncExitStack() as stack:
        yield await client(stack, database, replicas, "other")
