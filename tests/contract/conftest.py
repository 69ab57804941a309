"""The services as their callers see them: a stub each, of a real server on a unix socket."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.job_replicas import JobReplica, job_replica, until_connected
from tests.support.rpcs import Contract, guarded_contract
from tests.support.servers import serving
from tests.support.stubs import JobStub, QueueStub

from queue_service.__main__ import compose as compose_queue_service
from taskforge.v1.queue_service_pb2_grpc import QueueServiceStub
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier
from taskforge_core.projects import Projects
from taskforge_core.settings import Settings


@pytest.fixture
async def queue_stub(database: Database, open_folder: Path) -> AsyncIterator[QueueStub]:
    """Calls of QueueService, over the test's own database."""
    notifier = Notifier(database.hot, origin="queue_service")
    service = compose_queue_service(database, Projects(database), notifier)
    async with serving(database, service, open_folder, "queue") as channel:
        yield QueueServiceStub(channel)
    await notifier.flushed()


@pytest.fixture
async def replica(settings: Settings, open_folder: Path) -> AsyncIterator[JobReplica]:
    """A replica of job_service over the test's own database."""
    async with job_replica(settings, open_folder, "job") as replica:
        yield replica


@pytest.fixture
async def other_replica(
    settings: Settings, open_folder: Path, replica: JobReplica
) -> AsyncIterator[JobReplica]:
    """A second replica over the same database; both hear each other."""
    async with job_replica(settings, open_folder, "job-b") as other:
        await until_connected(replica, other)
        yield other


@pytest.fixture
async def contract(
    settings: Settings, database: Database, open_folder: Path
) -> AsyncIterator[Contract]:
    """Calls of any RPC, of servers that ask for a credential."""
    async with guarded_contract(settings, database, open_folder) as contract:
        yield contract


@pytest.fixture
def job_stub(replica: JobReplica) -> JobStub:
    """Calls of JobService."""
    return replica.stub


@pytest.fixture
def other_stub(other_replica: JobReplica) -> JobStub:
    """Calls of JobService, answered by the second replica."""
    return other_replica.stub


@pytest.fixture
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lease calls that are opened from now on look for jobs only when they are told to."""
    monkeypatch.setattr("job_service.grouping.POLL", timedelta(hours=1))
    # A stream that is compared with its session's rows looks around as well.
    monkeypatch.setattr("job_service.streaming.REFRESH_SECONDS", 3600)
