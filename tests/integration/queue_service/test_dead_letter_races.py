"""Changes of dead-letter queues, and deletions, that could each be right but not both."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.support.queue_replicas import Replica
from tests.support.races import at_once, reasons
from tests.support.rows import insert_project, insert_queue
from tests.support.waiting import until_blocked

from queue_service.queries import leads_to, lock_dead_letters
from taskforge.v1 import queue_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.errors import FailedPrecondition, NotFound, TaskForgeError
from taskforge_core.ids import DEFAULT_PROJECT_ID

Replicas = tuple[Replica, Replica]


def send(replica: Replica, queue: str, target: UUID) -> Coroutine[Any, Any, queue_pb2.Queue]:
    """Give a queue its dead-letter queue."""
    return replica.administrator.update(
        pb.UpdateQueueRequest(
            queue=queue,
            settings=queue_pb2.QueueSettings(dead_letter_queue_id=str(target)),
            update_mask=FieldMask(paths=["settings.dead_letter_queue_id"]),
        )
    )


@asynccontextmanager
async def turn(
    database: Database, *, succeeds: bool = True
) -> AsyncIterator[tuple[AsyncConnection, int]]:
    """Another call that has the project's turn: its transaction, ended at last, and pid."""
    async with database.engine.connect() as connection:
        await lock_dead_letters(connection, DEFAULT_PROJECT_ID)
        pid: int = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        yield connection, pid
        await (connection.commit() if succeeds else connection.rollback())


async def set_target(connection: AsyncConnection, queue_id: UUID, target_id: UUID) -> None:
    await connection.execute(
        text("UPDATE taskforge.queues SET dead_letter_queue_id = :target WHERE id = :id"),
        {"target": target_id, "id": queue_id},
    )


async def test_a_change_sees_the_other_half_of_a_cycle_that_it_waited_for(
    replica: Replica, database: Database
) -> None:
    first, second, third = [await insert_queue(database.hot, name) for name in "abc"]
    await send(replica, "a", second)
    async with turn(database) as (connection, pid):
        await set_target(connection, second, third)
        closing = asyncio.create_task(send(replica, "c", first))
        await until_blocked(database.hot, pid)
    with pytest.raises(FailedPrecondition) as caught:
        await closing
    assert caught.value.reason == "DEAD_LETTER_CYCLE"


async def test_a_change_is_right_when_the_other_half_was_taken_back(
    replica: Replica, database: Database
) -> None:
    first, second = [await insert_queue(database.hot, name) for name in "ab"]
    async with turn(database, succeeds=False) as (connection, pid):
        await set_target(connection, first, second)
        other_way = asyncio.create_task(send(replica, "b", first))
        await until_blocked(database.hot, pid)
    assert (await other_way).settings.dead_letter_queue_id == str(first)


async def test_of_changes_that_would_make_a_cycle_together_exactly_one_is_refused(
    replicas: Replicas, database: Database
) -> None:
    for length in (2, 3, 5):
        for round_ in range(5):
            names = [f"{length}-{round_}-{place}" for place in range(length)]
            ids = [await insert_queue(database.hot, name) for name in names]
            outcomes = await at_once(
                [
                    send(replica, name, target)
                    for replica, name, target in zip(
                        cycle(replicas), names, [*ids[1:], ids[0]], strict=False
                    )
                ]
            )
            assert reasons(outcomes) == ["DEAD_LETTER_CYCLE"]


async def test_a_delete_sees_who_named_the_queue_while_it_waited(
    replica: Replica, database: Database
) -> None:
    queue_id, dead = [await insert_queue(database.hot, name) for name in ("emails", "dead")]
    async with turn(database) as (connection, pid):
        await set_target(connection, queue_id, dead)
        deleting = asyncio.create_task(
            replica.administrator.delete(pb.DeleteQueueRequest(queue="dead"))
        )
        await until_blocked(database.hot, pid)
    with pytest.raises(FailedPrecondition) as caught:
        await deleting
    assert caught.value.reason == "QUEUE_IN_USE"
    assert caught.value.metadata == {"queue": "dead", "used_by": "emails"}


@pytest.mark.parametrize("verb", ["create", "update"])
async def test_a_call_that_names_a_queue_sees_its_deletion_that_it_waited_for(
    replica: Replica, database: Database, verb: str
) -> None:
    await insert_queue(database.hot, "emails")
    dead = await insert_queue(database.hot, "dead")
    settings = queue_pb2.QueueSettings(dead_letter_queue_id=str(dead))
    naming = (
        replica.administrator.create(pb.CreateQueueRequest(name="new", settings=settings))
        if verb == "create"
        else send(replica, "emails", dead)
    )
    async with turn(database) as (connection, pid):
        await connection.execute(
            text("UPDATE taskforge.queues SET deleted_at = clock_timestamp() WHERE id = :id"),
            {"id": dead},
        )
        waiting = asyncio.create_task(naming)
        await until_blocked(database.hot, pid)
    with pytest.raises(NotFound) as caught:
        await waiting
    assert caught.value.metadata == {"queue": str(dead)}


async def test_a_delete_and_a_naming_at_once_never_both_succeed(
    replicas: Replicas, database: Database
) -> None:
    first, second = replicas
    for turn_ in range(20):
        await insert_queue(database.hot, f"emails {turn_}")
        dead = await insert_queue(database.hot, f"dead {turn_}")
        settings = queue_pb2.QueueSettings(dead_letter_queue_id=str(dead))
        outcomes = await at_once(
            [
                first.administrator.delete(pb.DeleteQueueRequest(queue=str(dead))),
                second.administrator.create(
                    pb.CreateQueueRequest(name=f"new-{turn_}", settings=settings)
                ),
                send(second, f"emails {turn_}", dead),
            ]
        )
        deleted, created, updated = [
            outcome.reason if isinstance(outcome, TaskForgeError) else "done"
            for outcome in outcomes
        ]
        if deleted == "done":
            assert (created, updated) == ("QUEUE_NOT_FOUND", "QUEUE_NOT_FOUND")
        else:
            assert deleted == "QUEUE_IN_USE"
            assert "done" in {created, updated}


async def test_projects_do_not_wait_for_each_other(replica: Replica, database: Database) -> None:
    other = await insert_project(database.hot)
    await insert_queue(database.hot, "emails", project_id=other)
    dead = await insert_queue(database.hot, "dead", project_id=other)
    async with turn(database):
        changed = await replica.administrator.update(
            pb.UpdateQueueRequest(
                project_id=str(other),
                queue="emails",
                settings=queue_pb2.QueueSettings(dead_letter_queue_id=str(dead)),
                update_mask=FieldMask(paths=["settings.dead_letter_queue_id"]),
            )
        )
    assert changed.settings.dead_letter_queue_id == str(dead)


async def test_changes_without_a_dead_letter_queue_wait_for_nobody(
    replica: Replica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with turn(database):
        await replica.administrator.pause(pb.PauseQueueRequest(queue="emails"))
        await replica.administrator.create(pb.CreateQueueRequest(name="new"))


async def test_the_search_for_a_cycle_ends_where_one_was_made_past_the_service(
    replica: Replica, database: Database
) -> None:
    first, second = [await insert_queue(database.hot, name) for name in "ab"]
    outside = await insert_queue(database.hot, "c")
    async with database.engine.begin() as connection:
        await set_target(connection, first, second)
        await set_target(connection, second, first)
        assert await leads_to(connection, DEFAULT_PROJECT_ID, first, second)
        assert not await leads_to(connection, DEFAULT_PROJECT_ID, first, outside)
    assert (await send(replica, "c", first)).settings.dead_letter_queue_id == str(first)


async def test_a_deleted_queue_leads_nowhere(replica: Replica, database: Database) -> None:
    """It gets no job, so none can come through it."""
    first, gone = [await insert_queue(database.hot, name) for name in ("first", "gone")]
    async with database.engine.begin() as connection:
        await set_target(connection, gone, first)
        assert await leads_to(connection, DEFAULT_PROJECT_ID, gone, first)
        await connection.execute(
            text("UPDATE taskforge.queues SET deleted_at = clock_timestamp() WHERE id = :id"),
            {"id": gone},
        )
        assert not await leads_to(connection, DEFAULT_PROJECT_ID, gone, first)
