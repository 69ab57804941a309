"""Eager dispatch: what is leased as it is created, and what stands against it."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases
from tests.support.leases import miscounts
from tests.support.rows import insert_jobs, insert_queue

from job_service.demanding import Demand, Leased
from job_service.grouping import Group
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID


async def create(replica: JobUseCases, queue: str = "q", **fields: Any) -> job_pb2.Job:
    spec = job_pb2.JobSpec(queue=queue, job_type="send", payload='{"to": "a"}', **fields)
    return await replica.enqueuer.create(pb.CreateJobRequest(job=spec))


async def waiting(replica: JobUseCases, *calls: Demand) -> Group:
    """Open the calls, all of one subscription; they have found that nothing is ready."""
    await replica.open(*calls)
    group = replica.group(*calls)
    replica.dispatcher._groups[group.subscription] = group
    await group.run_once()
    assert group.found_nothing
    return group


async def statuses(database: Database) -> dict[str, int]:
    rows = await database.hot.fetch("SELECT id::text AS id, status FROM taskforge.jobs")
    return {row["id"]: row["status"] for row in rows}


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


async def test_all_that_come_together_are_leased_and_dealt_in_turn(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    calls = [demand(max_in_flight=5), demand(max_in_flight=5)]
    await waiting(replica, *calls)
    jobs = await asyncio.gather(*(create(replica) for _ in range(6)))
    got = [leased.message.job.id for call in calls for leased in call.outbox]
    assert sorted(got) == sorted(job.id for job in jobs)
    assert all(call.outbox for call in calls)
    assert set((await statuses(database)).values()) == {3}
    assert await miscounts(database.hot) == []


async def test_the_first_job_of_a_session_starts_its_clock(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    call = demand()
    await waiting(replica, call)
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
    due = job_pb2.JobSpec(queue="q", job_type="send")
    due.scheduled_for.GetCurrentTime()
    due.scheduled_for.seconds += 60
    specs = [
        job_pb2.JobSpec(queue="q", job_type="send"),
        job_pb2.JobSpec(queue="q", job_type="print"),
        job_pb2.JobSpec(queue="other", job_type="send"),
        due,
    ]
    jobs = await asyncio.gather(
        *(replica.enqueuer.create(pb.CreateJobRequest(job=spec)) for spec in specs)
    )
    found = await statuses(database)
    assert [found[job.id] for job in jobs] == [3, 1, 1, 2]
    assert [leased.message.job.id for leased in call.outbox] == [jobs[0].id]
    assert await miscounts(database.hot) == []


async def test_a_repeated_creation_is_leased_once(replica: JobUseCases, database: Database) -> None:
    await insert_queue(database.hot, "q")
    call = demand()
    await waiting(replica, call)
    first, second = await asyncio.gather(*(create(replica, request_id="r") for _ in range(2)))
    assert first.id == second.id
    assert (await create(replica, request_id="r")).id == first.id
    assert [leased.message.job.id for leased in call.outbox] == [first.id]
    assert await miscounts(database.hot) == []


# -- What stands against it ----------------------------------------------------------------------


async def assert_waits(replica: JobUseCases, database: Database, call: Demand) -> None:
    """A new job is created, and waits."""
    before = len(call.outbox)
    job = await create(replica)
    assert (await statuses(database))[job.id] == 1
    assert len(call.outbox) == before
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize(
    ("queue_priority", "priority", "waits"),
    [(0, 0, True), (5, 0, True), (5, 9, True), (6, 0, True), (4, 9, False)],
)
async def test_no_job_that_may_rank_before_it_is_overtaken(
    replica: JobUseCases,
    database: Database,
    typed: bool,
    queue_priority: int,
    priority: int,
    waits: bool,
) -> None:
    """It came by another replica, and nobody here knows of it."""
    own = await insert_queue(database.hot, "q", priority=5)
    other = (
        own
        if queue_priority == 0
        else await insert_queue(database.hot, "other", priority=queue_priority)
    )
    call = demand(job_types=("send",) if typed else ())
    await waiting(replica, call)
    await insert_jobs(database.hot, other, priorities=[priority], job_type="send")
    if waits:
        await assert_waits(replica, database, call)
    else:
        await create(replica)
        assert len(call.outbox) == 1


async def test_jobs_that_are_not_for_the_calls_do_not_hold_it_up(
    replica: JobUseCases, database: Database
) -> None:
    own = await insert_queue(database.hot, "q")
    other = await insert_queue(database.hot, "other", priority=9)
    paused = await insert_queue(database.hot, "paused", priority=9, is_active=False)
    call = demand(queue_ids=(own, paused), job_types=("send",))
    await waiting(replica, call)
    await insert_jobs(database.hot, own, job_type="print")
    await insert_jobs(database.hot, other, job_type="send")
    await insert_jobs(database.hot, paused, job_type="send")
    await create(replica)
    assert len(call.outbox) == 1


@pytest.mark.parametrize(
    "change",
    [
        "max_concurrent_jobs = 5",
        "rate_limit_per_minute = 5",
        "is_active = false",
        "delays_by_priority = true",
    ],
)
async def test_the_queues_rules_are_those_of_the_moment(
    replica: JobUseCases, database: Database, change: str
) -> None:
    """The replica knows the queue as it was."""
    await insert_queue(database.hot, "q")
    call = demand()
    await waiting(replica, call)
    await replica.routes.find(DEFAULT_PROJECT_ID, "q")
    await database.hot.execute(f"UPDATE taskforge.queues SET {change}")
    job = await create(replica)
    assert (await statuses(database))[job.id] in (1, 2)
    assert call.outbox == []
    assert await miscounts(database.hot) == []


async def test_the_first_claim_under_a_new_limit_keeps_it_off(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    call = demand()
    await waiting(replica, call)
    async with database.hot.acquire() as connection, connection.transaction():
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended($1::text, 0))", str(queue_id)
        )
        await assert_waits(replica, database, call)


@pytest.mark.parametrize(
    "change",
    [
        "call_id = gen_random_uuid()",
        "draining = true",
        "must_heartbeat = true",
        "max_in_flight = 3",
    ],
)
async def test_a_session_that_stands_otherwise_gets_nothing(
    replica: JobUseCases, database: Database, change: str
) -> None:
    await insert_queue(database.hot, "q")
    call = demand(max_in_flight=10)
    await waiting(replica, call)
    await database.hot.execute(f"UPDATE taskforge.sessions SET {change}")
    await assert_waits(replica, database, call)
    # And its call knows now.
    assert call.is_replaced or not call.may_take or call.max_in_flight == 3


async def test_a_locked_session_holds_nobody_up(replica: JobUseCases, database: Database) -> None:
    await insert_queue(database.hot, "q")
    call = demand()
    await waiting(replica, call)
    async with database.hot.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM taskforge.sessions FOR UPDATE")
        await assert_waits(replica, database, call)


@pytest.mark.parametrize("limits", [{"max_in_flight": 2}, {"max_in_flight_bytes": 25}])
async def test_where_there_is_not_room_for_all_that_come_together_claims_decide(
    replica: JobUseCases, database: Database, limits: dict[str, int]
) -> None:
    await insert_queue(database.hot, "q")
    call = demand(**limits)  # type: ignore[arg-type]
    await waiting(replica, call)
    # The first one begins at once, and the others come together behind it.
    jobs = await asyncio.gather(*(create(replica) for _ in range(3)))
    found = await statuses(database)
    assert [found[job.id] for job in jobs] == [3, 1, 1]
    assert [leased.message.job.id for leased in call.outbox] == [jobs[0].id]


async def test_while_a_claim_deals_to_the_calls_nobody_else_does(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    call = demand()
    group = await waiting(replica, call)
    async with group.turn:
        await assert_waits(replica, database, call)


async def test_a_call_that_ends_meanwhile_gives_back_what_it_was_leased(
    replica: JobUseCases, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await insert_queue(database.hot, "q")
    given_back: list[Leased] = []
    call = demand(give_back=given_back.extend)
    await waiting(replica, call)
    insert = replica.enqueuer._inserter.insert

    async def insert_and_end(*arguments: Any) -> Any:
        outcomes = await insert(*arguments)
        replica.dispatcher.remove(call)
        return outcomes

    monkeypatch.setattr(replica.enqueuer._inserter, "insert", insert_and_end)
    job = await create(replica)
    assert [str(leased.id) for leased in given_back] == [job.id]


async def test_jobs_beyond_the_projects_quota_are_refused_as_ever(
    replica: JobUseCases, database: Database
) -> None:
    """Near its quota a project creates in a longer transaction; leases go out after its commit."""
    await insert_queue(database.hot, "q")
    await database.hot.execute("UPDATE taskforge.projects SET max_unfinished_jobs = 2")
    call = demand()
    await waiting(replica, call)
    outcomes: Sequence[Any] = await asyncio.gather(
        *(create(replica) for _ in range(4)), return_exceptions=True
    )
    made = [each.id for each in outcomes if isinstance(each, job_pb2.Job)]
    assert len(made) == 2
    assert [leased.message.job.id for leased in call.outbox] == made
    assert await statuses(database) == dict.fromkeys(made, 3)
    assert await miscounts(database.hot) == []
