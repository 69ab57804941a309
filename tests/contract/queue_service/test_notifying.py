"""What QueueService tells the other processes, and that it does so after the commit."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from tests.support.stubs import QueueStub

from taskforge.v1 import queue_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.notifications import Listener
from taskforge_core.settings import Settings

QUEUES = ("queues", (str(DEFAULT_PROJECT_ID),))


class Heard:
    """What another process hears."""

    def __init__(self) -> None:
        self._topics: asyncio.Queue[tuple[str, tuple[str, ...]]] = asyncio.Queue()

    def __call__(self, topic: str, keys: Sequence[str]) -> None:
        self._topics.put_nowait((topic, tuple(keys)))

    async def next(self) -> tuple[str, tuple[str, ...]]:
        async with asyncio.timeout(10):
            return await self._topics.get()


@pytest.fixture
async def heard(settings: Settings) -> AsyncIterator[Heard]:
    heard = Heard()
    listener = Listener(settings, heard, origin="another process")
    listener.start()
    async with asyncio.timeout(10):
        await listener.connected.wait()
    yield heard
    await listener.stop()


async def test_each_change_of_a_queue_drops_what_others_remember(
    queue_stub: QueueStub, heard: Heard
) -> None:
    await queue_stub.CreateQueue(pb.CreateQueueRequest(name="emails"))
    assert await heard.next() == QUEUES
    await queue_stub.UpdateQueue(
        pb.UpdateQueueRequest(queue="emails", priority=3, update_mask=FieldMask(paths=["priority"]))
    )
    assert await heard.next() == QUEUES
    await queue_stub.PauseQueue(pb.PauseQueueRequest(queue="emails"))
    assert await heard.next() == QUEUES
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="emails"))
    assert await heard.next() == QUEUES


async def test_resuming_wakes_those_who_wait_for_work(queue_stub: QueueStub, heard: Heard) -> None:
    queue = (await queue_stub.CreateQueue(pb.CreateQueueRequest(name="emails"))).queue
    await heard.next()
    await queue_stub.PauseQueue(pb.PauseQueueRequest(queue="emails"))
    await heard.next()
    await queue_stub.ResumeQueue(pb.ResumeQueueRequest(queue="emails"))
    assert {await heard.next(), await heard.next()} == {QUEUES, ("ready", (queue.id,))}


@pytest.mark.parametrize(
    "paths",
    [("settings",), ("settings.max_concurrent_jobs",), ("settings.rate_limit_per_minute",)],
)
async def test_other_rules_wake_those_who_wait_for_work(
    queue_stub: QueueStub, heard: Heard, paths: tuple[str, ...]
) -> None:
    """A higher limit may let jobs go that nobody was waiting for."""
    low = queue_pb2.QueueSettings(max_concurrent_jobs=1, rate_limit_per_minute=1)
    request = pb.CreateQueueRequest(name="emails", settings=low)
    queue = (await queue_stub.CreateQueue(request)).queue
    assert await heard.next() == QUEUES
    await queue_stub.UpdateQueue(
        pb.UpdateQueueRequest(
            queue="emails",
            settings=queue_pb2.QueueSettings(max_concurrent_jobs=2, rate_limit_per_minute=2),
            update_mask=FieldMask(paths=paths),
        )
    )
    assert {await heard.next(), await heard.next()} == {QUEUES, ("ready", (queue.id,))}


async def test_opening_by_a_time_that_has_passed_wakes_those_who_wait_for_work(
    queue_stub: QueueStub, heard: Heard
) -> None:
    queue = (await queue_stub.CreateQueue(pb.CreateQueueRequest(name="emails"))).queue
    await heard.next()
    await queue_stub.PauseQueue(pb.PauseQueueRequest(queue="emails"))
    await heard.next()
    past = Timestamp(seconds=1)
    await queue_stub.PauseQueue(pb.PauseQueueRequest(queue="emails", resume_at=past))
    assert {await heard.next(), await heard.next()} == {QUEUES, ("ready", (queue.id,))}


async def test_what_changes_nothing_for_jobs_is_not_told(
    queue_stub: QueueStub, heard: Heard
) -> None:
    await queue_stub.CreateQueue(pb.CreateQueueRequest(name="emails"))
    assert await heard.next() == QUEUES
    await queue_stub.ResumeQueue(pb.ResumeQueueRequest(queue="emails"))
    await queue_stub.UpdateQueue(
        pb.UpdateQueueRequest(
            queue="emails", description="new", update_mask=FieldMask(paths=["description"])
        )
    )
    await queue_stub.PauseQueue(pb.PauseQueueRequest(queue="emails"))
    assert await heard.next() == QUEUES
    await queue_stub.ResumeQueue(pb.ResumeQueueRequest(queue="emails"))
    # Only the pause was told before: the resumption comes next, with nothing in between.
    assert {(await heard.next())[0], (await heard.next())[0]} == {"queues", "ready"}
