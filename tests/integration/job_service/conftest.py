"""The use cases of replicas, over the test's own database."""

from collections.abc import AsyncIterator

import pytest
from tests.support.job_use_cases import JobUseCases, job_use_cases

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
