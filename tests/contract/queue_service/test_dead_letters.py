"""Which queue can be the dead-letter queue of which, over a real server."""

from uuid import uuid4

import pytest
from grpc import StatusCode
from tests.support.queue_calls import get, make, update
from tests.support.refusals import expect_error
from tests.support.rows import insert_project, insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import QueueStub

from taskforge.v1 import queue_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database


def send_to(queue: str, target_id: str) -> pb.UpdateQueueRequest:
    """Give a queue a dead-letter queue; an empty id: take it away."""
    settings = queue_pb2.QueueSettings(dead_letter_queue_id=target_id)
    return update(queue, "settings.dead_letter_queue_id", settings=settings)


async def chain(stub: QueueStub, *names: str) -> list[queue_pb2.Queue]:
    """Queues of which each has the one before it as its dead-letter queue."""
    queues: list[queue_pb2.Queue] = []
    for name in names:
        settings = {"dead_letter_queue_id": queues[-1].id} if queues else {}
        queues.append(await make(stub, name, **settings))
    return queues


async def test_a_queue_is_made_with_a_dead_letter_queue(queue_stub: QueueStub) -> None:
    dead, emails = await chain(queue_stub, "dead", "emails")
    assert emails.settings.dead_letter_queue_id == dead.id
    assert await get(queue_stub, "emails") == emails


async def test_a_dead_letter_queue_is_given_exchanged_and_taken_away(
    queue_stub: QueueStub,
) -> None:
    await make(queue_stub)
    for name in ("dead", "other"):
        target = await make(queue_stub, name)
        changed = (await queue_stub.UpdateQueue(send_to("emails", target.id.upper()))).queue
        assert changed.settings.dead_letter_queue_id == target.id
        again = await queue_stub.UpdateQueue(send_to("emails", target.id))
        assert again.queue == changed
    cleared = (await queue_stub.UpdateQueue(send_to("emails", ""))).queue
    assert cleared.settings == queue_pb2.QueueSettings()


async def test_many_queues_may_share_a_dead_letter_queue_and_it_may_have_one_itself(
    queue_stub: QueueStub,
) -> None:
    _, dead, _ = await chain(queue_stub, "deader", "dead", "emails")
    letters = await make(queue_stub, "letters", dead_letter_queue_id=dead.id)
    assert letters.settings.dead_letter_queue_id == dead.id


async def test_a_dead_letter_queue_that_is_not_there_is_refused(
    queue_stub: QueueStub, database: Database
) -> None:
    await make(queue_stub)
    deleted = await make(queue_stub, "deleted")
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="deleted"))
    foreign = await insert_queue(
        database.hot, "theirs", project_id=await insert_project(database.hot)
    )
    async with unchanged(database.hot):
        for target in (deleted.id, str(foreign), str(uuid4())):
            settings = queue_pb2.QueueSettings(dead_letter_queue_id=target)
            for call in (
                queue_stub.CreateQueue(pb.CreateQueueRequest(name="new", settings=settings)),
                queue_stub.UpdateQueue(send_to("emails", target)),
                queue_stub.UpdateQueue(update("emails", "settings", settings=settings)),
            ):
                refusal = await expect_error(call, StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")
                assert refusal.metadata == {"queue": target}


@pytest.mark.parametrize("length", [1, 2, 5])
async def test_a_dead_letter_queue_that_leads_back_is_refused(
    queue_stub: QueueStub, database: Database, length: int
) -> None:
    queues = await chain(queue_stub, *(f"q{number}" for number in range(length)))
    first, last = queues[0], queues[-1]
    async with unchanged(database.hot):
        for request in (
            send_to("q0", last.id),
            update(
                "q0", "settings", settings=queue_pb2.QueueSettings(dead_letter_queue_id=last.id)
            ),
        ):
            refusal = await expect_error(
                queue_stub.UpdateQueue(request),
                StatusCode.FAILED_PRECONDITION,
                "DEAD_LETTER_CYCLE",
            )
            assert refusal.metadata == {"queue": "q0", "dead_letter_queue": last.id}
            [violation] = refusal.preconditions
            assert violation.subject == f"queues/{last.id}"
    # Not a cycle once a link is taken away.
    if length > 1:
        await queue_stub.UpdateQueue(send_to("q1", ""))
        changed = (await queue_stub.UpdateQueue(send_to("q0", last.id))).queue
        assert changed.id == first.id
        assert changed.settings.dead_letter_queue_id == last.id


async def test_other_changes_do_not_look_at_the_dead_letter_queue(queue_stub: QueueStub) -> None:
    dead, _ = await chain(queue_stub, "dead", "emails")
    changed = (await queue_stub.UpdateQueue(update("emails", "priority", priority=3))).queue
    assert changed.settings.dead_letter_queue_id == dead.id


async def test_a_dead_letter_queue_cannot_be_deleted_while_a_queue_names_it(
    queue_stub: QueueStub, database: Database
) -> None:
    dead, _ = await chain(queue_stub, "dead", "letters")
    await make(queue_stub, "emails", dead_letter_queue_id=dead.id)
    async with unchanged(database.hot):
        refusal = await expect_error(
            queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue=dead.id)),
            StatusCode.FAILED_PRECONDITION,
            "QUEUE_IN_USE",
        )
    assert refusal.metadata == {"queue": "dead", "used_by": "emails"}
    [violation] = refusal.preconditions
    assert violation.subject == f"queues/{dead.id}"
    # Neither a deleted queue nor one that names another keeps it.
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="emails"))
    await queue_stub.UpdateQueue(send_to("letters", ""))
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="dead"))


async def test_a_queue_that_only_has_a_dead_letter_queue_can_be_deleted(
    queue_stub: QueueStub,
) -> None:
    await chain(queue_stub, "dead", "emails")
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="emails"))
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="dead"))
