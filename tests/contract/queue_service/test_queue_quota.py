"""How many queues a project may have, over a real server."""

import asyncio

from grpc import StatusCode
from tests.support.queue_calls import make
from tests.support.refusals import expect_error
from tests.support.rows import insert_project
from tests.support.snapshots import unchanged
from tests.support.stubs import QueueStub

from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID


async def allow(database: Database, queues: int | None) -> None:
    await database.hot.execute(
        "UPDATE taskforge.projects SET max_queues = $1 WHERE id = $2", queues, DEFAULT_PROJECT_ID
    )


async def test_a_queue_too_many_is_refused_with_the_limit(
    queue_stub: QueueStub, database: Database
) -> None:
    await allow(database, 2)
    await make(queue_stub, "a")
    await make(queue_stub, "b")
    async with unchanged(database.hot):
        refusal = await expect_error(
            make(queue_stub, "c"), StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_QUEUES"
        )
    assert refusal.metadata == {"limit": "2"}
    assert refusal.retry_info is None
    other = str(await insert_project(database.hot))
    await queue_stub.CreateQueue(pb.CreateQueueRequest(project_id=other, name="c"))


async def test_a_deleted_queue_makes_room(queue_stub: QueueStub, database: Database) -> None:
    await allow(database, 1)
    await make(queue_stub, "a")
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="a"))
    await make(queue_stub, "b")
    listed = await queue_stub.ListQueues(pb.ListQueuesRequest())
    assert [queue.name for queue in listed.queues] == ["b"]


async def test_a_lower_quota_takes_no_queue_away(queue_stub: QueueStub, database: Database) -> None:
    for name in ("a", "b", "c"):
        await make(queue_stub, name)
    await allow(database, 1)
    await expect_error(make(queue_stub, "d"), StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_QUEUES")
    assert len((await queue_stub.ListQueues(pb.ListQueuesRequest())).queues) == 3
    await allow(database, None)
    await make(queue_stub, "d")


async def test_queues_that_are_made_at_once_are_no_more_than_may_be(
    queue_stub: QueueStub, database: Database
) -> None:
    await allow(database, 5)
    outcomes = await asyncio.gather(
        *(make(queue_stub, f"q{i}") for i in range(30)), return_exceptions=True
    )
    assert len([each for each in outcomes if not isinstance(each, BaseException)]) == 5
    assert len((await queue_stub.ListQueues(pb.ListQueuesRequest())).queues) == 5
