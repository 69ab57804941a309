"""Eager dispatch: what stands against it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.creations import create, spec
from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases
from tests.support.leases import miscounts
from tests.support.rows import insert_jobs, insert_queue
from tests.support.waiting import eventually
from tests.support.waiting_calls import create_together, statuses, waiting

from job_service import expediting
from job_service.demanding import Demand, Leased
from job_service.queries import insert_leased_jobs
from taskforge.v1 import job_pb2
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID


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
    replica: JobUseCases, database: Database, call: Demand, change: str
) -> None:
    """The replica knows the queue as it was."""
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


async def test_a_locked_session_holds_nobody_up(
    replica: JobUseCases, database: Database, call: Demand
) -> None:
    async with database.hot.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM taskforge.sessions FOR UPDATE")
        await assert_waits(replica, database, call)


@pytest.mark.parametrize("limits", [{"max_in_flight": 1}, {"max_in_flight_bytes": 3}])
async def test_where_there_is_not_room_for_all_that_come_together_claims_decide(
    replica: JobUseCases, database: Database, limits: dict[str, int]
) -> None:
    await insert_queue(database.hot, "q")
    call = demand(**limits)  # type: ignore[arg-type]
    await waiting(replica, call)
    made = await create_together(replica, spec(), spec())
    assert [outcome.status for outcome in made] == [1, 1]
    assert call.outbox == []


async def test_a_job_that_needs_counting_is_not_overtaken_by_those_that_came_with_it(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    await insert_queue(database.hot, "high", priority=9, max_concurrent_jobs=5)
    call = demand()
    await waiting(replica, call)
    made = await create_together(replica, spec(), spec("high"))
    assert [outcome.status for outcome in made] == [1, 1]


async def test_a_job_of_a_past_time_is_not_overtaken_either(
    replica: JobUseCases, database: Database, call: Demand
) -> None:
    past = spec(priority=9)
    past.scheduled_for.FromSeconds(1_700_000_000)
    made = await create_together(replica, spec(), past)
    assert [outcome.status for outcome in made] == [1, 1]


async def test_who_had_to_wait_for_a_request_id_leases_nothing_by_what_it_knew_before(
    replica: JobUseCases, database: Database, call: Demand
) -> None:
    async with database.hot.acquire() as connection:
        other = connection.transaction()
        await other.start()
        await connection.execute(
            "INSERT INTO taskforge.request_ids (project_id, request_id, content_hash, job_ids)"
            " VALUES ($1, 'r', '', '{}')",
            DEFAULT_PROJECT_ID,
        )
        creating = asyncio.create_task(create(replica, request_id="r"))

        async def knows_too_little() -> bool:
            return bool(
                await database.hot.fetchval(
                    "SELECT bool_or(clock_timestamp() - query_start > interval '60 ms')"
                    " FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            )

        await eventually(knows_too_little, "it has waited for long")
        await other.rollback()
    job = await creating
    assert (await statuses(database))[job.id] == 1
    assert call.outbox == []


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

    async def insert_and_end(*arguments: Any) -> Any:
        answer = await insert_leased_jobs(*arguments)
        replica.dispatcher.remove(call)
        return answer

    monkeypatch.setattr(expediting, "insert_leased_jobs", insert_and_end)
    job = await create(replica)
    assert [str(leased.id) for leased in given_back] == [job.id]


async def test_what_is_leased_is_sent_whatever_becomes_of_those_that_came_with_it(
    replica: JobUseCases, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await insert_queue(database.hot, "q", max_payload_bytes=20)
    call = demand()
    await waiting(replica, call)

    async def fail(*_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(replica.enqueuer._inserter, "_explain", fail)
    large = spec()
    large.payload = '{"to": "somebody else"}'
    with pytest.raises(ConnectionResetError):
        await create_together(replica, spec(), large)
    assert [str(leased.id) for leased in call.outbox] == list(await statuses(database))


async def test_near_its_quota_a_project_creates_in_a_transaction_and_claims_follow_it(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    await database.hot.execute("UPDATE taskforge.projects SET max_unfinished_jobs = 2")
    call = demand()
    group = await waiting(replica, call)
    outcomes: Sequence[Any] = await asyncio.gather(
        *(create(replica) for _ in range(4)), return_exceptions=True
    )
    made = [each.id for each in outcomes if isinstance(each, job_pb2.Job)]
    assert len(made) == 2
    assert await statuses(database) == dict.fromkeys(made, 1)
    await group.run_once()
    assert [leased.message.job.id for leased in call.outbox] == made
    assert await miscounts(database.hot) == []
