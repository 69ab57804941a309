"""The use cases of two replicas, over the test's own database."""

from collections.abc import AsyncIterator

import pytest
from tests.support.queue_replicas import Replica, queue_replica

from taskforge_core.settings import Settings


@pytest.fixture
async def replicas(settings: Settings) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas."""
    async with (
        queue_replica(settings, "first") as first,
        queue_replica(settings, "second") as second,
    ):
        yield first, second


@pytest.fixture
def replica(replicas: tuple[Replica, Replica]) -> Replica:
    """One of them."""
    return replicas[0]
