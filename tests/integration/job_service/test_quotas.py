"""The statements and the counting behind quotas, without a server."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from tests.support.creations import at_once, create, create_batch, job_ids, spec
from tests.support.job_use_cases import JobUseCases
from tests.support.rows import insert_jobs, insert_queue
from tests.support.waiting import until_blocked

from job_service import budgeting, crowding
from job_service.budgeting import JobBudgets
from job_service.queries import count_backlog, lock_backlog, withdraw_jobs
from taskforge_core.database import Database
from taskforge_core.errors import ResourceExhausted
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.statuses import JobStatus

PROJECT = DEFAULT_PROJECT_ID


async def allow(database: Database, **quotas: int) -> None:
    for name, value in quotas.items():
        await database.hot.execute(
            f"UPDATE taskforge.projects SET {name} = $1 WHERE id = $2", value, PROJECT
        )


async def set_budget(database: Database, room: float, *, age: float = 0) -> None:
    await database.hot.execute(
        "INSERT INTO taskforge.job_budgets"
        " VALUES ($1, $2, clock_timestamp() - $3 * interval '1 s', 0)"
        " ON CONFLICT (project_id) DO UPDATE"
        " SET (room, counted_at) = (excluded.room, excluded.counted_at)",
        PROJECT,
        room,
        age,
    )


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first lines of the statements that ran on hot connections."""
    texts: list[str] = []
    fetch = asyncpg.Connection.fetch

    async def observed(connection: Any, query: str, *args: Any, **options: Any) -> Any:
        texts.append(query.partition("\n")[0])
        return await fetch(connection, query, *args, **options)

    monkeypatch.setattr(asyncpg.Connection, "fetch", observed)
    return texts


# -- The budget ---------------------------------------------------------------------------------


BEHIND = -3600
"""The age of a budget that gets nothing while a test runs, however slow the machine is."""


@pytest.mark.parametrize(
    ("room", "age", "wanted", "first", "granted", "left"),
    [
        (None, 0, 10, 1, 10, 90),
        (None, 0, 130, 1, 100, 0),
        (None, 0, 250, 250, 250, -150),
        (0.0, BEHIND, 1, 1, 0, 0),
        (5.5, BEHIND, 20, 1, 5, 0.5),
        (5.5, BEHIND, 20, 6, 0, 5.5),
        (0.0, 0.5, 10, 1, 10, 40),
        (0.0, 3600, 10, 1, 10, 90),
        (-150.0, 1, 10, 1, 0, -50),
        (99.0, BEHIND, 250, 250, 0, 99),
        # A clock that was set back gives nothing and takes nothing.
        (50.0, BEHIND, 10, 1, 10, 40),
    ],
)
async def test_what_a_withdrawal_gets(
    database: Database,
    room: float | None,
    age: float,
    wanted: int,
    first: int,
    granted: int,
    left: float,
) -> None:
    if room is not None:
        await set_budget(database, room, age=age)
    got, remains = await withdraw_jobs(database.hot, PROJECT, 100, wanted, first)
    assert got == granted
    # The clock runs on: a second's worth if the machine is very slow.
    assert left <= remains <= left + 50


async def test_withdrawals_at_once_get_no_more_than_there_is(database: Database) -> None:
    await set_budget(database, 30, age=0)
    # One job in a thousand seconds comes in meanwhile.
    answers = await asyncio.gather(
        *(withdraw_jobs(database.hot, PROJECT, 30, 7, 1) for _ in range(8))
    )
    assert 30 <= sum(granted for granted, _ in answers) <= 30 * 2


async def test_calls_that_come_together_share_one_withdrawal(
    database: Database, ran: list[str]
) -> None:
    budgets = JobBudgets(database)
    outcomes = await asyncio.gather(
        *(budgets.charge(PROJECT, 50, 1) for _ in range(200)), return_exceptions=True
    )
    assert 50 <= outcomes.count(None) < 100
    # Two start at once; then all that came meanwhile.
    assert len(ran) <= 4
    refused = [each for each in outcomes if each is not None]
    assert all(isinstance(each, ResourceExhausted) for each in refused)


async def test_a_refused_call_asks_the_database_no_more_until_there_can_be_room(
    database: Database, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr("job_service.budgeting.time.monotonic", lambda: clock)
    await set_budget(database, -1000)
    budgets = JobBudgets(database)
    with pytest.raises(ResourceExhausted):
        await budgets.charge(PROJECT, 100, 1)
    ran.clear()
    for _ in range(1000):
        with pytest.raises(ResourceExhausted) as caught:
            await budgets.charge(PROJECT, 100, 1)
    assert ran == []
    assert caught.value.retry_after is not None
    clock += caught.value.retry_after.total_seconds()
    await set_budget(database, 1)
    await budgets.charge(PROJECT, 100, 1)
    assert len(ran) == 1


async def test_a_small_deficit_is_asked_about_twenty_times_a_second_at_most(
    database: Database, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr("job_service.budgeting.time.monotonic", lambda: clock)
    await set_budget(database, 0)
    budgets = JobBudgets(database)
    for _ in range(100):
        await set_budget(database, 0)
        with pytest.raises(ResourceExhausted):
            await budgets.charge(PROJECT, 1_000_000, 1_000_000)
        clock += 0.01
    asked = sum(text.startswith("-- Takes from a project's budget") for text in ran)
    assert asked <= 1 / budgeting.PAUSE_SECONDS


async def test_what_was_paid_back_is_used_first_and_lapses(
    database: Database, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr("job_service.budgeting.time.monotonic", lambda: clock)
    budgets = JobBudgets(database)
    await budgets.charge(PROJECT, 10, 2)
    budgets.refund(PROJECT, 2)
    ran.clear()
    await budgets.charge(PROJECT, 10, 1)
    assert ran == []
    clock += 2
    await budgets.charge(PROJECT, 10, 1)
    assert len(ran) == 1


async def test_refused_calls_that_may_be_repetitions_are_looked_for_together(
    replica: JobUseCases, database: Database, ran: list[str]
) -> None:
    await allow(database, max_jobs_per_second=1)
    await insert_queue(database.hot, "q")
    first = await create(replica, request_id="known")
    await set_budget(database, -1000)
    assert await at_once(replica, [spec()]) == ["JOB_RATE_EXCEEDED"]
    ran.clear()
    specs = [spec(request_id=f"new {place}") for place in range(200)]
    outcomes = await at_once(replica, [*specs, spec(request_id="known")])
    assert outcomes[:-1] == ["JOB_RATE_EXCEEDED"] * 200
    assert outcomes[-1] == first.id
    asked = [text for text in ran if text.startswith("-- Reads what earlier creations")]
    # One for all, and that of the insert which met the repetition.
    assert len(asked) <= 3


# -- Unfinished jobs ----------------------------------------------------------------------------


async def test_the_backlog_is_counted_folded_or_not(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q")
    for status in JobStatus:
        if status in {JobStatus.PENDING, JobStatus.SCHEDULED}:
            await insert_jobs(database.hot, queue_id, status, priorities=[0, 1, 2])
    await database.hot.execute(
        "INSERT INTO taskforge.queue_counts VALUES ($1, $2, 3, 10), ($1, $2, 4, 100),"
        " ($3, $2, 1, 1000)",
        PROJECT,
        queue_id,
        uuid4(),
    )
    assert await count_backlog(database.hot, PROJECT) == 6 + 10


async def test_far_from_its_quota_a_project_is_counted_now_and_then_only(
    replica: JobUseCases,
    database: Database,
    ran: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crowding, "FAR", 20)
    monkeypatch.setattr(crowding, "COUNTED_FOR_SECONDS", 3600)
    await allow(database, max_unfinished_jobs=30)
    await insert_queue(database.hot, "q")
    await create(replica)
    ran.clear()
    for _ in range(8):
        await create(replica)
    assert len(ran) == 8
    ran.clear()
    await create(replica)
    assert any("near its quota" in text or "one transaction at a time" in text for text in ran)
    outcomes = await at_once(replica, [spec()] * 50)
    assert outcomes.count("TOO_MANY_UNFINISHED_JOBS") == 30
    assert len(await job_ids(database)) == 30


async def test_jobs_that_do_not_fit_are_refused_among_those_that_ride_together(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    await allow(database, max_unfinished_jobs=10)
    await insert_queue(database.hot, "q")
    first = await create(replica, request_id="known")
    await at_once(second_replica, [spec()] * 7)
    specs = [spec(), spec(), spec(request_id="known"), spec(), spec(request_id="known")]
    outcomes = await at_once(replica, specs)
    assert outcomes[2] == outcomes[4] == first.id
    assert outcomes.count("TOO_MANY_UNFINISHED_JOBS") == 1
    assert len(await job_ids(database)) == 10


async def test_near_its_quota_a_project_creates_in_one_transaction_at_a_time(
    replica: JobUseCases, database: Database
) -> None:
    await allow(database, max_unfinished_jobs=1)
    queue_id = await insert_queue(database.hot, "q")
    async with database.hot.acquire() as other, other.transaction():
        await lock_backlog(other, PROJECT)
        await insert_jobs(other, queue_id)
        creation = asyncio.create_task(at_once(replica, [spec()]))
        await until_blocked(database.hot, other.get_server_pid())
    # It counts what the other one has created, which nobody could see when it began.
    assert await creation == ["TOO_MANY_UNFINISHED_JOBS"]
    assert len(await job_ids(database)) == 1


async def test_what_was_undone_leaves_its_room(replica: JobUseCases, database: Database) -> None:
    await allow(database, max_unfinished_jobs=2)
    await insert_queue(database.hot, "q")
    with pytest.raises(Exception, match="nowhere"):
        await create_batch(replica, [spec(), spec("nowhere")], all_or_nothing=True)
    assert len(await create_batch(replica, [spec()] * 2)) == 2
    assert len(await job_ids(database)) == 2


# -- Nothing for nothing ------------------------------------------------------------------------


async def test_projects_without_quotas_pay_no_statement(
    replica: JobUseCases, database: Database, ran: list[str]
) -> None:
    await insert_queue(database.hot, "q")
    await create(replica)
    ran.clear()
    await create(replica)
    await create(replica, request_id="r")
    assert [text.startswith("-- Creates jobs") for text in ran] == [True] * 2
    ran.clear()
    await create_batch(replica, [spec()] * 5)
    assert [text.startswith("-- Creates jobs") for text in ran] == [True]


async def test_a_quota_that_is_taken_away_binds_no_more(
    replica: JobUseCases, database: Database
) -> None:
    await allow(database, max_unfinished_jobs=1)
    await insert_queue(database.hot, "q")
    await create(replica)
    assert await at_once(replica, [spec()]) == ["TOO_MANY_UNFINISHED_JOBS"]
    await database.hot.execute("UPDATE taskforge.projects SET max_unfinished_jobs = NULL")
    await replica.enqueuer._projects.refresh()
    assert len(await create_batch(replica, [spec()] * 3)) == 3
