"""The services as their callers see them: a stub each, of a real server on a unix socket."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.servers import serving
from tests.support.stubs import QueueStub

from queue_service.__main__ import compose as compose_queue_service
from taskforge.v1.queue_service_pb2_grpc import QueueServiceStub
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier


@pytest.fixture
async def queue_stub(database: Database, open_folder: Path) -> AsyncIterator[QueueStub]:
    """Calls of QueueService, over the test's own database."""
    notifier = Notifier(database.hot, origin="queue_service")
    service = compose_queue_service(database, notifier)
    async with serving(database, service, open_folder, "queue") as channel:
        yield QueueServiceStub(channel)
    await notifier.flushed()
