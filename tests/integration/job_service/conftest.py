"""The use cases of replicas, over the test's own database."""

from collections.abc import AsyncIterator

import pytest
from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases, job_use_cases
from tests.support.rows import insert_queue
from tests.support.waiting_calls import waiting

from job_service.demanding import Demand
from taskforge_core.database import Database
from taskforge_core.settings import Settings


@pytest.fixture
async def replica(settings: Settings) -> AsyncIterator[JobUseCases]:
    """One replica."""
    async with job_use_cases(settings, "first") as made:
        yield made


@pytest.fixture
async def second_replica(settings: Settings) -> AsyncIterator[JobUseCases]:
    """Another one."""
    async with job_use_cases(settings, "second") as made:
        yield made


@pytest.fixture
async def call(replica: JobUseCases, database: Database) -> Demand:
    """One that waits for jobs of the only queue."""
    await insert_queue(database.hot, "q")
    waiting_call = demand()
    await waiting(replica, waiting_call)
    return waiting_call
