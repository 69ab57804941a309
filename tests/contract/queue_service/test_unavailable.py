"""What callers meet while the database is away or too busy: a refusal that is safe to repeat."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc import StatusCode
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.servers import serving
from tests.support.stubs import QueueStub

from queue_service.__main__ import compose
from taskforge.v1 import job_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge.v1.queue_service_pb2_grpc import QueueServiceStub
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.notifications import Notifier
from taskforge_core.projects import Projects
from taskforge_core.settings import Settings


async def stub_with(settings: Settings, folder: Path) -> AsyncIterator[QueueStub]:
    database = await Database.open(settings)
    notifier = Notifier(database.hot, origin="queue_service")
    async with serving(
        database, compose(database, Projects(database), notifier), folder, "queue"
    ) as channel:
        yield QueueServiceStub(channel)
    await notifier.flushed()
    await database.close()


@pytest.fixture
async def impatient_stub(settings: Settings, open_folder: Path) -> AsyncIterator[QueueStub]:
    """Calls of a server that waits for locks for a tenth of a second."""
    impatient = settings.model_copy(update={"lock_timeout": timedelta(milliseconds=100)})
    async for stub in stub_with(impatient, open_folder):
        yield stub


@pytest.fixture
async def lonely_stub(open_folder: Path) -> AsyncIterator[QueueStub]:
    """Calls of a server whose database is not there."""
    settings = Settings(
        database_url=f"postgresql://nobody@/none?host={open_folder}", authentication="off"
    )
    async for stub in stub_with(settings, open_folder):
        yield stub


async def test_a_queue_that_another_transaction_keeps_locked_can_be_tried_again(
    impatient_stub: QueueStub, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    async with database.hot.acquire() as connection, connection.transaction():
        await connection.execute(
            "SELECT 1 FROM taskforge.queues WHERE project_id = $1 AND id = $2 FOR UPDATE",
            DEFAULT_PROJECT_ID,
            queue_id,
        )
        for call in (
            impatient_stub.PauseQueue(pb.PauseQueueRequest(queue="emails")),
            impatient_stub.DeleteQueue(pb.DeleteQueueRequest(queue="emails")),
        ):
            refusal = await expect_error(call, StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
            assert refusal.retry_info is not None
            assert refusal.retry_info.retry_delay.ToTimedelta() > timedelta(0)
        # Reading waits for nobody.
        await impatient_stub.GetQueueStats(pb.GetQueueStatsRequest(queue="emails"))
    await impatient_stub.PauseQueue(pb.PauseQueueRequest(queue="emails"))


async def test_without_a_database_every_call_can_be_tried_again(lonely_stub: QueueStub) -> None:
    mask = FieldMask(paths=["priority"])
    await asyncio.gather(
        *(
            expect_error(call, StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
            for call in (
                lonely_stub.CreateQueue(pb.CreateQueueRequest(name="emails")),
                lonely_stub.GetQueue(pb.GetQueueRequest(queue="emails")),
                lonely_stub.ListQueues(pb.ListQueuesRequest()),
                lonely_stub.UpdateQueue(pb.UpdateQueueRequest(queue="emails", update_mask=mask)),
                lonely_stub.DeleteQueue(pb.DeleteQueueRequest(queue="emails")),
                lonely_stub.PauseQueue(pb.PauseQueueRequest(queue="emails")),
                lonely_stub.ResumeQueue(pb.ResumeQueueRequest(queue="emails")),
                lonely_stub.GetQueueStats(pb.GetQueueStatsRequest(queue="emails")),
                lonely_stub.PurgeQueue(
                    pb.PurgeQueueRequest(queue="emails", statuses=[job_pb2.JOB_STATUS_PENDING])
                ),
                lonely_stub.RedriveJobs(pb.RedriveJobsRequest(queue="emails")),
            )
        )
    )
