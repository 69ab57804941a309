"""claim_jobs: what is leased is leased once, by rules that are checked under the row's lock."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from asyncpg import Record
from tests.support.hold_ups import held_up_behind
from tests.support.leases import miscounts
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.session_rows import claim as lease
from tests.support.waiting import until_blocked

from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import Executor
from taskforge_core.statuses import JobStatus

SESSION = UUID(int=5)


async def claim(
    executor: Executor,
    job_ids: Sequence[UUID],
    session_ids: Sequence[UUID] = (),
    project_id: UUID = DEFAULT_PROJECT_ID,
) -> dict[UUID, Record]:
    """What was leased, by job."""
    found = await executor.fetch(
        "SELECT id, queue_id FROM taskforge.jobs WHERE id = ANY($1::uuid[])", job_ids
    )
    queue_of = {row["id"]: row["queue_id"] for row in found}
    queues = [queue_of.get(job_id, UUID(int=0)) for job_id in job_ids]
    sessions = session_ids or [uuid4()] * len(job_ids)
    rows = await lease(executor, job_ids, queues, sessions, project_id=project_id)
    return {row["id"]: row for row in rows}


async def jobs_and_counts(database: Database) -> list[str]:
    rows = await database.hot.fetch(
        "SELECT t::text FROM taskforge.jobs AS t UNION ALL"
        " SELECT t::text FROM taskforge.queue_deltas AS t ORDER BY 1"
    )
    return [row["t"] for row in rows]


async def stored(database: Database, job_id: UUID) -> Record:
    rows: list[Record] = await database.hot.fetch(
        "SELECT * FROM taskforge.jobs WHERE id = $1", job_id
    )
    return rows[0]


async def test_a_claim_leases_the_named_jobs_to_the_named_sessions(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q")
    job_ids = await insert_jobs(database.hot, queue_id, priorities=[3, 5])
    sessions = [uuid4(), uuid4()]
    rows = await claim(database.hot, job_ids, sessions)
    for job_id, session_id in zip(job_ids, sessions, strict=True):
        row = await stored(database, job_id)
        assert row["status"] == JobStatus.PROCESSING
        assert row["session_id"] == session_id
        assert row["worker_id"] == f"worker of {session_id}"
        assert row["lease_seq"] == rows[job_id]["lease_seq"]
        assert row["attempt_count"] == rows[job_id]["attempt_count"] == 1
        assert row["started_at"] == row["updated_at"]
        assert rows[job_id]["started_at"] == microseconds(row["started_at"])
        assert rows[job_id]["created_at"] == microseconds(row["created_at"])
        assert row["timeout_at"] is rows[job_id]["timeout_at"] is None
    assert await miscounts(database.hot) == []


def microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


async def test_every_lease_has_a_number_that_no_lease_had_before(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q")
    job_ids = await insert_jobs(database.hot, queue_id, priorities=[0] * 20)
    seen: list[int] = []
    for _ in range(3):
        seqs = [row["lease_seq"] for row in (await claim(database.hot, job_ids)).values()]
        assert min(seqs) > max(seen, default=0)
        seen += seqs
        await database.hot.execute(
            "UPDATE taskforge.jobs SET status = 1, lease_seq = NULL, session_id = NULL,"
            " attempt_count = 0"
        )
    assert len(set(seen)) == 60


async def test_a_lease_forgets_the_answer_of_the_one_before(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q")
    [job_id] = await insert_jobs(database.hot, queue_id)
    await database.hot.execute("UPDATE taskforge.jobs SET last_seq = 1, last_status = 1")
    await claim(database.hot, [job_id])
    row = await stored(database, job_id)
    assert row["last_seq"] is row["last_status"] is None


@pytest.mark.parametrize(
    ("own", "queues", "expected"),
    [
        (None, None, None),
        (None, timedelta(seconds=90), timedelta(seconds=90)),
        (timedelta(seconds=5), None, timedelta(seconds=5)),
        (timedelta(days=7), timedelta(seconds=90), timedelta(days=7)),
    ],
)
async def test_the_timeout_is_the_jobs_own_else_the_queues_from_the_start(
    database: Database,
    own: timedelta | None,
    queues: timedelta | None,
    expected: timedelta | None,
) -> None:
    queue_id = await insert_queue(database.hot, "q", timeout=queues)
    [job_id] = await insert_jobs(database.hot, queue_id)
    await database.hot.execute("UPDATE taskforge.jobs SET timeout = $1", own)
    rows = await claim(database.hot, [job_id])
    row = await stored(database, job_id)
    if expected is None:
        assert row["timeout_at"] is None
    else:
        assert row["timeout_at"] == row["started_at"] + expected
        assert rows[job_id]["timeout_at"] == microseconds(row["timeout_at"])
    # What the producer said is shown as it was.
    assert rows[job_id]["timeout"] == row["timeout"] == own


async def made_unclaimable(database: Database, what: str) -> UUID:
    """A job that a pick may have seen ready, and what happened since."""
    columns: dict[str, Any] = {}
    if what == "its queue was paused":
        columns["is_active"] = False
    elif what == "its queue was deleted":
        columns["deleted_at"] = datetime.now(UTC)
    project_id = DEFAULT_PROJECT_ID
    if what == "it is of another project":
        project_id = await insert_project(database.hot)
    queue_id = await insert_queue(database.hot, "other", project_id=project_id, **columns)
    status = {
        "it was leased": JobStatus.PROCESSING,
        "it was scheduled": JobStatus.SCHEDULED,
        "it has ended": JobStatus.SUCCEEDED,
    }.get(what, JobStatus.PENDING)
    if what == "its queue is gone":
        await database.hot.execute("DELETE FROM taskforge.queues WHERE id = $1", queue_id)
    [job_id] = await insert_jobs(database.hot, queue_id, status, project_id=project_id)
    return job_id


@pytest.mark.parametrize(
    "what",
    [
        "its queue was paused",
        "its queue was deleted",
        "its queue is gone",
        "it is of another project",
        "it was leased",
        "it was scheduled",
        "it has ended",
    ],
)
async def test_a_candidate_that_is_no_longer_to_be_had_is_left_out_and_others_are_leased(
    database: Database, what: str
) -> None:
    gone = await made_unclaimable(database, what)
    before = await jobs_and_counts(database)
    assert await claim(database.hot, [gone, UUID(int=99)]) == {}
    assert await jobs_and_counts(database) == before
    queue_id = await insert_queue(database.hot, "q")
    first, last = await insert_jobs(database.hot, queue_id, priorities=[0, 0])
    assert set(await claim(database.hot, [first, gone, last])) == {first, last}
    assert await miscounts(database.hot) == []


async def test_a_job_that_another_transaction_has_locked_is_skipped_not_waited_for(
    database: Database,
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    locked, free = await insert_jobs(database.hot, queue_id, priorities=[0, 0])
    async with database.hot.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT FROM taskforge.jobs WHERE id = $1 FOR UPDATE", locked)
        # Were it to wait, the lock timeout would end it with an error.
        assert set(await claim(database.hot, [locked, free])) == {free}
        await transaction.rollback()
    assert set(await claim(database.hot, [locked])) == {locked}


async def test_a_claim_that_is_rolled_back_leaves_the_jobs_to_others(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q")
    [job_id] = await insert_jobs(database.hot, queue_id)
    async with database.hot.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        first = (await claim(connection, [job_id]))[job_id]
        assert await claim(database.hot, [job_id]) == {}
        await transaction.rollback()
    second = (await claim(database.hot, [job_id]))[job_id]
    assert second["lease_seq"] > first["lease_seq"]
    assert second["attempt_count"] == 1
    assert await miscounts(database.hot) == []


async def test_concurrent_claims_never_lease_one_job_twice(database: Database) -> None:
    """Eight claims over the same jobs at the same moment, again and again."""
    queue_id = await insert_queue(database.hot, "q")
    leased: dict[UUID, list[int]] = {}
    for turn in range(10):
        job_ids = await insert_jobs(database.hot, queue_id, priorities=[0] * 60)
        barrier = asyncio.Barrier(8)

        async def take(
            place: int, job_ids: list[UUID] = job_ids, barrier: asyncio.Barrier = barrier
        ) -> dict[UUID, Record]:
            order = job_ids[place * 7 :] + job_ids[: place * 7]
            await barrier.wait()
            return await claim(database.hot, order, [UUID(int=place)] * len(order))

        for claimed in await asyncio.gather(*(take(place) for place in range(8))):
            for job_id, row in claimed.items():
                leased.setdefault(job_id, []).append(row["lease_seq"])
        # Locked by one claim, it is skipped by all others; so after them every job has its lease.
        assert set(job_ids) <= leased.keys(), turn
    assert len(leased) == 600
    assert all(len(seqs) == 1 for seqs in leased.values())
    assert len({seqs[0] for seqs in leased.values()}) == 600
    assert await miscounts(database.hot) == []
    attempts = await database.hot.fetchval("SELECT max(attempt_count) FROM taskforge.jobs")
    assert attempts == 1


async def test_attempts_beyond_the_allowed_ones_cannot_be_stored(database: Database) -> None:
    """Whatever the decisions before it: a last line that the table itself holds."""
    queue_id = await insert_queue(database.hot, "q")
    [job_id] = await insert_jobs(database.hot, queue_id)
    await database.hot.execute("UPDATE taskforge.jobs SET attempt_count = max_attempts")
    with pytest.raises(Exception, match="jobs_attempts"):
        await claim(database.hot, [job_id])


@pytest.mark.parametrize(
    ("change", "is_leased"),
    [
        ("priority = 9", True),
        ("queue_id = gen_random_uuid()", False),
        ("status = 2, scheduled_for = clock_timestamp()", False),
    ],
)
async def test_a_job_that_changed_since_the_claim_began_is_judged_as_it_is_now(
    database: Database, change: str, is_leased: bool
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    changed, other = await insert_jobs(database.hot, queue_id, priorities=[3, 3])
    # A claim writes its sessions behind its snapshot, and before it locks jobs.
    async with held_up_behind(database.hot, "UPDATE ON taskforge.sessions") as holding:
        claiming = asyncio.create_task(claim(database.hot, [changed, other]))
        await until_blocked(database.hot, holding.get_server_pid())
        await database.hot.execute(f"UPDATE taskforge.jobs SET {change} WHERE id = $1", changed)
    leased = await claiming
    assert set(leased) == ({changed, other} if is_leased else {other})
    assert (await stored(database, changed))["status"] == (3 if is_leased else 1 + ("2" in change))
    if is_leased:
        assert leased[changed]["priority"] == 9


async def test_a_job_that_was_moved_to_another_queue_since_it_was_picked_is_left(
    database: Database,
) -> None:
    """Also where the claim has jobs of that queue too: its limits were counted without this one."""
    picked_from = await insert_queue(database.hot, "dead")
    moved_to = await insert_queue(database.hot, "emails")
    [moved] = await insert_jobs(database.hot, picked_from)
    [own] = await insert_jobs(database.hot, moved_to)
    await database.hot.execute("UPDATE taskforge.jobs SET queue_id = $1", moved_to)
    rows = await lease(database.hot, [moved, own], [picked_from, moved_to], [uuid4()] * 2)
    assert [row["id"] for row in rows] == [own]
    assert set(await claim(database.hot, [moved])) == {moved}
