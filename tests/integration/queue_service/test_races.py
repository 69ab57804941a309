"""Calls that change the same queue at once, from two replicas."""

import asyncio
from itertools import cycle
from uuid import UUID

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tests.support.queue_replicas import Replica
from tests.support.races import at_once, reasons
from tests.support.rows import insert_jobs, insert_queue
from tests.support.waiting import until_blocked

from taskforge.v1 import queue_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.errors import AlreadyExists, FailedPrecondition, NotFound
from taskforge_core.ids import DEFAULT_PROJECT_ID, uuid7

Replicas = tuple[Replica, Replica]


async def test_of_many_creates_of_one_name_exactly_one_succeeds(
    replicas: Replicas, database: Database
) -> None:
    request = pb.CreateQueueRequest(name="emails")
    outcomes = await at_once(
        [replica.administrator.create(request) for replica, _ in zip(cycle(replicas), range(16))]
    )
    assert reasons(outcomes) == ["QUEUE_NAME_TAKEN"] * 15
    [made] = [outcome for outcome in outcomes if isinstance(outcome, queue_pb2.Queue)]
    rows = await database.hot.fetch("SELECT id FROM taskforge.queues")
    assert [row["id"] for row in rows] == [UUID(made.id)]


async def test_a_create_waits_for_another_of_the_name_and_succeeds_if_it_is_rolled_back(
    replica: Replica, database: Database
) -> None:
    async with database.hot.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await insert_queue(connection, "emails")
        creating = asyncio.create_task(
            replica.administrator.create(pb.CreateQueueRequest(name="emails"))
        )
        await until_blocked(database.hot, connection.get_server_pid())
        await transaction.rollback()
    assert (await creating).name == "emails"


async def test_of_two_renames_to_one_name_exactly_one_succeeds(
    replicas: Replicas, database: Database
) -> None:
    for name in ("first", "second"):
        await insert_queue(database.hot, name)
    outcomes = await at_once(
        [
            replica.administrator.update(
                pb.UpdateQueueRequest(
                    queue=name, name="letters", update_mask=FieldMask(paths=["name"])
                )
            )
            for replica, name in zip(replicas, ("first", "second"), strict=True)
        ]
    )
    assert reasons(outcomes) == ["QUEUE_NAME_TAKEN"]


async def test_updates_of_different_fields_do_not_undo_each_other(
    replicas: Replicas, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    requests = [
        pb.UpdateQueueRequest(
            queue="emails", priority=7, update_mask=FieldMask(paths=["priority"])
        ),
        pb.UpdateQueueRequest(
            queue="emails", description="new", update_mask=FieldMask(paths=["description"])
        ),
        pb.UpdateQueueRequest(
            queue=str(queue_id),
            settings=queue_pb2.QueueSettings(max_retries=9),
            update_mask=FieldMask(paths=["settings.max_retries"]),
        ),
        pb.UpdateQueueRequest(queue=str(queue_id), update_mask=FieldMask(paths=["is_active"])),
    ]
    outcomes = await at_once(
        [
            replica.administrator.update(request)
            for replica, request in zip(cycle(replicas), requests)
        ]
    )
    assert reasons(outcomes) == []
    queue = await replicas[0].browser.get(pb.GetQueueRequest(queue="emails"))
    assert (queue.priority, queue.description, queue.settings.max_retries) == (7, "new", 9)
    assert not queue.is_active


@pytest.mark.parametrize("verb", ["pause", "delete"])
async def test_a_call_that_waited_for_a_delete_finds_no_queue(
    replica: Replica, database: Database, verb: str
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    call = (
        replica.administrator.pause(pb.PauseQueueRequest(queue="emails"))
        if verb == "pause"
        else replica.administrator.delete(pb.DeleteQueueRequest(queue="emails"))
    )
    async with database.hot.acquire() as connection, connection.transaction():
        await connection.execute(
            "UPDATE taskforge.queues SET deleted_at = clock_timestamp()"
            " WHERE project_id = $1 AND id = $2",
            DEFAULT_PROJECT_ID,
            queue_id,
        )
        waiting = asyncio.create_task(call)
        await until_blocked(database.hot, connection.get_server_pid())
    with pytest.raises(NotFound):
        await waiting


async def test_of_many_deletes_exactly_one_succeeds(replicas: Replicas, database: Database) -> None:
    await insert_queue(database.hot, "emails")
    request = pb.DeleteQueueRequest(queue="emails")
    outcomes = await at_once(
        [replica.administrator.delete(request) for replica, _ in zip(cycle(replicas), range(8))]
    )
    assert reasons(outcomes) == ["QUEUE_NOT_FOUND"] * 7


async def test_a_job_committed_before_a_delete_prevents_it(
    replica: Replica, database: Database
) -> None:
    """Also a job that is committed while the delete waits for the queue's row."""
    queue_id = await insert_queue(database.hot, "emails")
    async with database.hot.acquire() as connection, connection.transaction():
        await connection.execute(
            "SELECT 1 FROM taskforge.queues WHERE project_id = $1 AND id = $2 FOR UPDATE",
            DEFAULT_PROJECT_ID,
            queue_id,
        )
        deleting = asyncio.create_task(
            replica.administrator.delete(pb.DeleteQueueRequest(queue="emails"))
        )
        await until_blocked(database.hot, connection.get_server_pid())
        await insert_jobs(connection, queue_id)
    with pytest.raises(FailedPrecondition) as caught:
        await deleting
    assert caught.value.metadata["unfinished_jobs"] == "1"


async def test_a_delete_does_not_wait_for_inserts(replica: Replica, database: Database) -> None:
    """What such an insert leaves in the deleted queue is the scheduler's to cancel."""
    queue_id = await insert_queue(database.hot, "emails")
    async with database.hot.acquire() as connection, connection.transaction():
        await insert_jobs(connection, queue_id)
        await replica.administrator.delete(pb.DeleteQueueRequest(queue="emails"))
    with pytest.raises(NotFound):
        await replica.browser.get(pb.GetQueueRequest(queue="emails"))


async def test_a_delete_and_an_insert_at_once_never_end_in_contradiction(
    replica: Replica, database: Database
) -> None:
    for turn in range(30):
        queue_id = await insert_queue(database.hot, f"q{turn}")
        request = pb.DeleteQueueRequest(queue=f"q{turn}")
        deleted, inserted = await at_once(
            [replica.administrator.delete(request), insert_into_open_queue(database, queue_id)]
        )
        if isinstance(deleted, FailedPrecondition):
            # Refused: the job that it saw is there, and the queue goes on.
            assert inserted == 1
            assert await insert_into_open_queue(database, queue_id) == 1
        else:
            # Deleted: a job may have slipped in, and none can come after.
            assert deleted is None
            assert inserted in {0, 1}
            assert await insert_into_open_queue(database, queue_id) == 0


async def test_a_name_can_be_taken_only_after_its_delete(
    replicas: Replicas, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    first, second = replicas
    deleted, created = await at_once(
        [
            first.administrator.delete(pb.DeleteQueueRequest(queue="emails")),
            second.administrator.create(pb.CreateQueueRequest(name="emails")),
        ]
    )
    assert deleted is None
    live = await database.hot.fetchval(
        "SELECT count(*) FROM taskforge.queues WHERE name = 'emails' AND deleted_at IS NULL"
    )
    assert live == (0 if isinstance(created, AlreadyExists) else 1)


async def insert_into_open_queue(database: Database, queue_id: UUID) -> int:
    """How services insert: joined with the queue's row, so that a deleted queue takes nothing."""
    status = await database.hot.execute(
        "INSERT INTO taskforge.jobs (project_id, id, queue_id, status, priority, created_at,"
        " updated_at, max_attempts, payload_bytes, job_type, payload)"
        " SELECT project_id, $3, id, 1, 0, clock_timestamp(), clock_timestamp(), 3, 2, 'test', '{}'"
        " FROM taskforge.queues WHERE project_id = $1 AND id = $2 AND deleted_at IS NULL",
        DEFAULT_PROJECT_ID,
        queue_id,
        uuid7(),
    )
    return int(status.removeprefix("INSERT 0 "))
