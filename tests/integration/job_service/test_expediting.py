"""Eager dispatch: what is leased as it is created, and what comes after it."""

import asyncio
from datetime import timedelta

from tests.support.creations import create, spec
from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases, is_woken
from tests.support.leases import miscounts
from tests.support.rows import insert_queue
from tests.support.waiting import eventually
from tests.support.waiting_calls import create_together, statuses, waiting

from job_service.demanding import Demand
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database


async def test_a_job_is_leased_in_the_statement_that_creates_it(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q", timeout=timedelta(seconds=50))
    call = demand(max_in_flight=2)
    await waiting(replica, call)
    job = await create(replica, priority=3, labels={"a": "b"})
    assert job.status == job_pb2.JOB_STATUS_PENDING
    [leased] = call.outbox
    message = leased.message.job
    assert (message.id, message.status) == (job.id, job_pb2.JOB_STATUS_PROCESSING)
    row = await database.hot.fetchrow("SELECT * FROM taskforge.jobs")
    assert row is not None
    assert (row["status"], row["attempt_count"], row["lease_seq"]) == (3, 1, leased.lease_seq)
    assert row["session_id"] == call.session_id
    assert row["started_at"] == row["created_at"]
    assert row["timeout_at"] == row["started_at"] + timedelta(seconds=50)
    assert call.credit == 1
    assert await miscounts(database.hot) == []


async def test_all_that_come_together_are_leased_the_best_first_and_dealt_in_turn(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    calls = [demand(max_in_flight=5), demand(max_in_flight=5)]
    await waiting(replica, *calls)
    await create_together(replica, *(spec(priority=priority) for priority in (1, 3, 5, 2, 4, 0)))
    priorities = [[leased.message.job.priority for leased in call.outbox] for call in calls]
    assert sorted(priorities) == [[4, 2, 0], [5, 3, 1]]
    assert set((await statuses(database)).values()) == {3}
    assert await miscounts(database.hot) == []


async def test_the_first_job_of_a_session_starts_its_clock(
    replica: JobUseCases, database: Database, call: Demand
) -> None:
    await database.hot.execute("UPDATE taskforge.sessions SET expires_at = '2026-01-01'")
    await create(replica)
    expires_at = await database.hot.fetchval("SELECT expires_at FROM taskforge.sessions")
    [leased] = call.outbox
    assert leased.message.expires_at.ToMicroseconds() == round(expires_at.timestamp() * 1_000_000)
    assert await database.hot.fetchval(
        "SELECT expires_at > clock_timestamp() FROM taskforge.sessions"
    )


async def test_what_no_call_takes_waits_and_the_rest_is_leased(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    await insert_queue(database.hot, "other")
    call = demand(queue_ids=(queue_id,), job_types=("send",))
    await waiting(replica, call)
    made = await create_together(
        replica, spec(), job_pb2.JobSpec(queue="q", job_type="print"), spec("other")
    )
    assert [outcome.status for outcome in made] == [3, 1, 1]
    assert [leased.id for leased in call.outbox] == [made[0].draft.id]
    assert await miscounts(database.hot) == []


async def test_a_repeated_creation_is_leased_once(
    replica: JobUseCases, database: Database, call: Demand
) -> None:
    first, second = await asyncio.gather(*(create(replica, request_id="r") for _ in range(2)))
    assert first.id == second.id
    assert (await create(replica, request_id="r")).id == first.id
    assert [leased.message.job.id for leased in call.outbox] == [first.id]
    assert await miscounts(database.hot) == []


# -- What comes after it -------------------------------------------------------------------------


async def test_room_leads_to_a_pass_once_a_job_had_to_wait(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    call = demand(max_in_flight=1)
    group = await waiting(replica, call)
    await create(replica)
    # There is no room for this one, and nobody was woken for it.
    second = await create(replica)
    assert not is_woken(group)
    [first] = replica.deliver(call)
    done = pb.Settlement(lease_token=first.message.lease_token, success=pb.Success(result="{}"))
    await replica.settler.settle(done)
    assert is_woken(group)
    await group.run_once()
    assert [leased.message.job.id for leased in call.outbox] == [second.id]


async def test_a_session_that_was_locked_is_looked_at_again_soon(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    call = demand()
    group = await waiting(replica, call)
    async with database.hot.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM taskforge.sessions FOR UPDATE")
        job = await create(replica)

    async def woken() -> bool:
        return is_woken(group)

    await eventually(woken, "the session is looked at again")
    await group.run_once()
    assert [leased.message.job.id for leased in call.outbox] == [job.id]
