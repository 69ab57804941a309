"""insert_jobs: what the queue's rules and the request ids let in, and that nothing else stays."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from asyncpg import Record
from google.protobuf.timestamp_pb2 import Timestamp
from tests.support.explaining import PLAN_MODES, Explainer, PlanMode
from tests.support.leases import miscounts
from tests.support.rows import insert_project, insert_queue
from tests.support.snapshots import unchanged
from tests.support.waiting import until_blocked

from job_service.drafting import Draft, draft
from job_service.inserting import _columns
from job_service.queries import find_requests, insert_jobs, remember_request
from taskforge.v1 import job_pb2
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import Executor
from taskforge_core.statuses import JobStatus

DEFAULT_MAX_PAYLOAD = 262_144


def drafted(queue_id: UUID, count: int = 1, **fields: Any) -> list[Draft]:
    spec = job_pb2.JobSpec(queue="q", job_type="send", **fields)
    return [draft(spec, queue_id, "job") for _ in range(count)]


async def insert(
    executor: Executor, drafts: Sequence[Draft], project_id: UUID = DEFAULT_PROJECT_ID
) -> dict[UUID, Record]:
    """What was made, by id."""
    rows = await insert_jobs(executor, project_id, _columns(drafts))
    return {job_id: row for row in rows for job_id in row["ids"]}


async def stored(database: Database, made: Draft) -> Record:
    rows: list[Record] = await database.hot.fetch(
        "SELECT * FROM taskforge.jobs WHERE project_id = $1 AND id = $2",
        DEFAULT_PROJECT_ID,
        made.id,
    )
    return rows[0]


# -- What is made -------------------------------------------------------------------------------


async def test_a_job_is_stored_as_it_was_described(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q")
    [made] = drafted(
        queue_id,
        payload='{"b": 1,  "a": "é"}',
        priority=7,
        max_attempts=5,
        labels={"k": "v"},
        traceparent="00-abc",
        tracestate="x=y",
    )
    rows = await insert(database.hot, [made])
    row = await stored(database, made)
    assert rows[made.id]["status"] == row["status"] == 1
    assert rows[made.id]["max_attempts"] == row["max_attempts"] == 5
    # The text as sent, spaces and order included.
    assert row["payload"] == '{"b": 1,  "a": "é"}'
    assert (row["payload_bytes"], row["priority"], row["attempt_count"]) == (20, 7, 0)
    assert (row["labels"], row["traceparent"], row["tracestate"]) == (
        '{"k": "v"}',
        "00-abc",
        "x=y",
    )
    assert row["created_at"] == row["updated_at"]
    assert rows[made.id]["created_at"] == (row["created_at"] - EPOCH) // MICROSECOND
    assert row["lease_seq"] is row["session_id"] is row["started_at"] is None


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("max_retries", "max_attempts", "expected"),
    [(None, None, 3), (0, None, 1), (9, None, 10), (0, 7, 7), (None, 1, 1), (99, None, 100)],
)
async def test_attempts_are_the_jobs_own_else_the_queues_else_three(
    database: Database, max_retries: int | None, max_attempts: int | None, expected: int
) -> None:
    queue_id = await insert_queue(database.hot, "q", max_retries=max_retries)
    [made] = drafted(queue_id, max_attempts=max_attempts)
    rows = await insert(database.hot, [made])
    assert rows[made.id]["max_attempts"] == expected
    assert (await stored(database, made))["max_attempts"] == expected


async def test_only_a_job_for_later_is_scheduled_by_the_databases_clock(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q")
    now: datetime = await database.hot.fetchval("SELECT clock_timestamp()")
    statuses = {}
    for name, moment in {
        "never": None,
        "past": now - timedelta(days=1),
        "now": now,
        "later": now + timedelta(days=1),
        "end of time": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    }.items():
        [made] = drafted(queue_id, scheduled_for=moment)
        rows = await insert(database.hot, [made])
        statuses[name] = rows[made.id]["status"]
        assert (await stored(database, made))["scheduled_for"] == moment
    assert statuses == {"never": 1, "past": 1, "now": 1, "later": 2, "end of time": 2}
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("mode", PLAN_MODES)
@pytest.mark.parametrize(("count", "queues"), [(1, 1), (50, 3), (1000, 1), (1000, 20)])
async def test_jobs_of_one_batch_are_in_the_order_of_the_request(
    database: Database, mode: PlanMode, count: int, queues: int
) -> None:
    """One created_at for all, so that their ids, which ascend, decide."""
    queue_ids = [await insert_queue(database.hot, f"q{place}") for place in range(queues)]
    drafts = [drafted(queue_ids[place % queues])[0] for place in range(count)]
    async with Explainer(database.hot, mode) as explainer:
        rows = await insert(explainer, drafts)
        in_order = await explainer._connection.fetch(
            "SELECT id FROM taskforge.jobs ORDER BY created_at, id"
        )
    assert len({row["created_at"] for row in rows.values()}) == 1
    assert [row["id"] for row in in_order] == [made.id for made in drafts]


async def test_counts_are_written_with_the_jobs(database: Database) -> None:
    first = await insert_queue(database.hot, "first")
    second = await insert_queue(database.hot, "second")
    later = datetime.now(UTC) + timedelta(days=1)
    drafts = drafted(first, 3) + drafted(second, 2) + drafted(first, 4, scheduled_for=later)
    await insert(database.hot, drafts)
    deltas = await database.hot.fetch("SELECT queue_id, status, n FROM taskforge.queue_deltas")
    assert {tuple(row) for row in deltas} == {(first, 1, 3), (first, 2, 4), (second, 1, 2)}
    assert await miscounts(database.hot) == []


# -- What the queue's rules refuse --------------------------------------------------------------


@pytest.mark.parametrize("state", ["paused", "deleted", "unknown", "none", "another project's"])
async def test_a_queue_that_takes_no_jobs_gets_none_and_nothing_is_written(
    database: Database, state: str
) -> None:
    now = datetime.now(UTC)
    match state:
        case "paused":
            queue_id = await insert_queue(database.hot, "q", is_active=False, accepts_jobs=False)
        case "deleted":
            queue_id = await insert_queue(database.hot, "q", deleted_at=now)
        case "another project's":
            project_id = await insert_project(database.hot)
            queue_id = await insert_queue(database.hot, "q", project_id=project_id)
        case _:
            queue_id = UUID(int=1)
    drafts = drafted(queue_id, 2) + drafted(queue_id, request_id="r")
    if state == "none":
        drafts = [draft(made.spec, None, "job") for made in drafts]
    async with unchanged(database.hot):
        assert await insert(database.hot, drafts) == {}


@pytest.mark.parametrize("limit", [None, 1000, 1_048_576])
async def test_a_payload_may_have_what_the_queue_takes_and_not_a_byte_more(
    database: Database, limit: int | None
) -> None:
    queue_id = await insert_queue(database.hot, "q", max_payload_bytes=limit)
    largest = limit or DEFAULT_MAX_PAYLOAD
    fitting, too_large = (
        drafted(queue_id, payload='"' + "x" * (largest - 2 + more) + '"')[0] for more in (0, 1)
    )
    assert set(await insert(database.hot, [too_large, fitting])) == {fitting.id}


async def test_refused_jobs_do_not_keep_their_neighbours_out(database: Database) -> None:
    open_queue = await insert_queue(database.hot, "open")
    paused = await insert_queue(database.hot, "paused", is_active=False, accepts_jobs=False)
    drafts = [drafted(queue_id)[0] for queue_id in (open_queue, paused, open_queue, UUID(int=9))]
    assert set(await insert(database.hot, drafts)) == {drafts[0].id, drafts[2].id}
    assert await miscounts(database.hot) == []


CLOSE = "UPDATE taskforge.queues SET is_active = false, accepts_jobs = false"
OPEN = "UPDATE taskforge.queues SET is_active = true, accepts_jobs = true"


async def test_a_paused_queue_that_keeps_accepting_takes_jobs(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q", is_active=False, accepts_jobs=True)
    [made] = drafted(queue_id)
    assert set(await insert(database.hot, [made])) == {made.id}
    assert await miscounts(database.hot) == []


async def test_a_pause_binds_the_insert_that_begins_after_its_commit(database: Database) -> None:
    """Also one on a connection that used the open queue a moment ago, in an open transaction."""
    queue_id = await insert_queue(database.hot, "q")
    async with database.hot.acquire() as connection, connection.transaction():
        assert await insert(connection, drafted(queue_id))
        await database.hot.execute(CLOSE)
        assert not await insert(connection, drafted(queue_id))
        await database.hot.execute(OPEN)
        assert await insert(connection, drafted(queue_id))


# -- Request ids --------------------------------------------------------------------------------


async def test_a_request_id_is_remembered_with_its_job_and_content(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q")
    [made] = drafted(queue_id, request_id="r")
    assert set(await insert(database.hot, [made])) == {made.id}
    [row] = await find_requests(database.hot, DEFAULT_PROJECT_ID, ["r", "other"])
    assert (row["request_id"], row["content_hash"]) == ("r", made.content_hash)
    assert row["job_ids"] == [made.id]
    assert row["errors"] is None


async def test_a_known_request_id_makes_no_second_job(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q")
    await insert(database.hot, drafted(queue_id, request_id="r"))
    async with unchanged(database.hot):
        assert await insert(database.hot, drafted(queue_id, request_id="r")) == {}


@pytest.mark.parametrize("mode", PLAN_MODES)
@pytest.mark.parametrize("distinct", [1, 7, 150])
async def test_of_equal_request_ids_in_one_batch_the_first_wins(
    database: Database, mode: PlanMode, distinct: int
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    drafts = [
        drafted(queue_id, request_id=f"r{place % distinct}", priority=place % 10)[0]
        for place in range(300)
    ]
    async with Explainer(database.hot, mode) as explainer:
        rows = await insert(explainer, drafts)
        counted = await explainer._connection.fetchval("SELECT sum(n) FROM taskforge.queue_deltas")
    assert set(rows) == {made.id for made in drafts[:distinct]}
    assert counted == distinct


async def test_request_ids_of_different_projects_are_different(database: Database) -> None:
    other = await insert_project(database.hot)
    own_queue = await insert_queue(database.hot, "q")
    other_queue = await insert_queue(database.hot, "q", project_id=other)
    assert await insert(database.hot, drafted(own_queue, request_id="r"))
    assert await insert(database.hot, drafted(other_queue, request_id="r"), other)


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
async def test_of_two_transactions_with_one_request_id_exactly_one_makes_its_job(
    database: Database, outcome: str
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    [first] = drafted(queue_id, request_id="r")
    [second] = drafted(queue_id, request_id="r")
    async with database.hot.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        assert await insert(connection, [first])
        racing = asyncio.create_task(insert(database.hot, [second]))
        await until_blocked(database.hot, connection.get_server_pid())
        await getattr(transaction, outcome)()
    winner = first if outcome == "commit" else second
    assert set(await racing) == ({second.id} if outcome == "rollback" else set())
    [row] = await find_requests(database.hot, DEFAULT_PROJECT_ID, ["r"])
    assert row["job_ids"] == [winner.id]
    jobs = await database.hot.fetch("SELECT id FROM taskforge.jobs")
    assert [job["id"] for job in jobs] == [winner.id]
    assert await miscounts(database.hot) == []


async def test_the_loser_sees_the_winners_row_in_its_next_statement(database: Database) -> None:
    """Also inside the transaction in which it lost."""
    queue_id = await insert_queue(database.hot, "q")
    [first] = drafted(queue_id, request_id="r")
    async with (
        database.hot.acquire() as winner,
        database.hot.acquire() as loser,
        loser.transaction(),
    ):
        async with winner.transaction():
            await insert(winner, [first])
            racing = asyncio.create_task(insert(loser, drafted(queue_id, request_id="r")))
            await until_blocked(database.hot, winner.get_server_pid())
        assert await racing == {}
        [row] = await find_requests(loser, DEFAULT_PROJECT_ID, ["r"])
        assert row["job_ids"] == [first.id]


async def test_many_transactions_with_the_same_request_ids_at_once_make_each_job_once(
    database: Database,
) -> None:
    """Their request ids come in different orders, and yet no two lock each other out for good."""
    queue_id = await insert_queue(database.hot, "q")
    names = [f"r{place}" for place in range(40)]
    barrier = asyncio.Barrier(6)

    async def insert_all(turn: int) -> set[UUID]:
        order = names[turn:] + names[:turn]
        drafts = [drafted(queue_id, request_id=name)[0] for name in order]
        await barrier.wait()
        return set(await insert(database.hot, drafts))

    made = await asyncio.gather(*(insert_all(turn * 7) for turn in range(6)))
    assert sum(map(len, made)) == len(names)
    assert await database.hot.fetchval("SELECT count(*) FROM taskforge.jobs") == len(names)
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
async def test_a_calls_request_id_is_remembered_once(database: Database, outcome: str) -> None:
    job_ids = [UUID(int=1), None]
    async with database.hot.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        assert await remember_request(
            connection, DEFAULT_PROJECT_ID, "r", b"first", job_ids, b"error"
        )
        racing = asyncio.create_task(
            remember_request(database.hot, DEFAULT_PROJECT_ID, "r", b"second", [None], None)
        )
        await until_blocked(database.hot, connection.get_server_pid())
        await getattr(transaction, outcome)()
    assert await racing is (outcome == "rollback")
    [row] = await find_requests(database.hot, DEFAULT_PROJECT_ID, ["r"])
    if outcome == "commit":
        assert (row["content_hash"], row["job_ids"], row["errors"]) == (b"first", job_ids, b"error")
    else:
        assert (row["content_hash"], row["job_ids"], row["errors"]) == (b"second", [None], None)


# -- Delays by priority -------------------------------------------------------------------------


def waits(rows: dict[UUID, Record], drafts: Sequence[Draft]) -> list[float | None]:
    """How long each job waits from its creation on, in seconds; None: it is ready."""
    found: list[float | None] = []
    for made in drafts:
        row = rows[made.id]
        is_scheduled = row["status"] == JobStatus.SCHEDULED
        assert is_scheduled == ((row["scheduled_for"] or 0) > row["created_at"])
        delay = (row["scheduled_for"] or 0) - row["created_at"]
        found.append(delay / 1_000_000 if is_scheduled else None)
    return found


def of_each_priority(queue_id: UUID) -> list[Draft]:
    return [drafted(queue_id, priority=priority)[0] for priority in range(10)]


async def test_a_queue_that_delays_by_priority_lets_the_urgent_first(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q", delays_by_priority=True)
    drafts = of_each_priority(queue_id)
    rows = await insert(database.hot, drafts)
    assert waits(rows, drafts) == [30, 30, 30, 10, 10, 10, 5, 5, None, None]
    assert await miscounts(database.hot) == []


async def test_each_delay_is_the_queues_own(database: Database) -> None:
    queue_id = await insert_queue(
        database.hot,
        "q",
        delays_by_priority=True,
        delay_low=timedelta(seconds=7),
        delay_medium=timedelta(0),
        delay_high=timedelta(milliseconds=1500),
        delay_urgent=timedelta(hours=1),
    )
    drafts = of_each_priority(queue_id)
    rows = await insert(database.hot, drafts)
    assert waits(rows, drafts) == [7, 7, 7, None, None, None, 1.5, 1.5, 3600, 3600]


async def test_delays_that_are_not_asked_for_delay_nothing(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q", delay_low=timedelta(hours=1))
    drafts = of_each_priority(queue_id)
    assert waits(await insert(database.hot, drafts), drafts) == [None] * 10


async def test_a_job_for_later_waits_for_the_later_of_the_two(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q", delays_by_priority=True)
    now = datetime.now(UTC)
    drafts = [
        drafted(queue_id, scheduled_for=Timestamp(seconds=int(now.timestamp()) + ahead))[0]
        for ahead in (-100, 5, 1000)
    ]
    first, second, third = waits(await insert(database.hot, drafts), drafts)
    assert (first, second) == (30, 30)
    assert third is not None
    assert third > 900
