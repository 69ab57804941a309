"""Ending attempts on a real Postgres: the fence holds, history is complete, counts stay exact."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tests.support.explaining import PLAN_MODES, Explainer, PlanMode
from tests.support.leases import LeaseKey, insert_session, lease, miscounts, statuses
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.waiting import until_blocked

from taskforge_core.database import Database
from taskforge_core.ending import end_leases
from taskforge_core.ids import DEFAULT_PROJECT_ID, uuid7
from taskforge_core.queries import cancel_waiting_jobs, finish_jobs, lock_leases, return_jobs
from taskforge_core.retrying import (
    Ending,
    Failed,
    LeaseExpired,
    Released,
    Snoozed,
    Succeeded,
    TimedOut,
    Undelivered,
)
from taskforge_core.statuses import JobStatus

AT_ONCE = timedelta(0)


async def leased_jobs(
    database: Database, count: int = 2, *, project_id: UUID = DEFAULT_PROJECT_ID
) -> list[LeaseKey]:
    """Jobs of a new queue, leased to a new session."""
    queue_id = await insert_queue(database.hot, f"queue {uuid7()}", project_id=project_id)
    ids = await insert_jobs(database.hot, queue_id, priorities=[0] * count, project_id=project_id)
    session_id = await insert_session(database.hot, project_id=project_id)
    return await lease(database.hot, ids, session_id, project_id=project_id)


async def finish(database: Database, keys: Sequence[LeaseKey], **options: Any) -> list[LeaseKey]:
    rows = await finish_jobs(
        database.hot,
        options.get("project_id", DEFAULT_PROJECT_ID),
        [key[0] for key in keys],
        [key[1] for key in keys],
        [JobStatus.SUCCEEDED] * len(keys),
        [options.get("result")] * len(keys),
        [options.get("failure")] * len(keys),
        answered=options.get("answered", True),
    )
    return [(row["id"], row["lease_seq"]) for row in rows]


async def give_back(database: Database, keys: Sequence[LeaseKey], **options: Any) -> list[LeaseKey]:
    rows = await return_jobs(
        database.hot,
        options.get("project_id", DEFAULT_PROJECT_ID),
        [key[0] for key in keys],
        [key[1] for key in keys],
        [options.get("delay", AT_ONCE)] * len(keys),
        [options.get("uses_attempt", True)] * len(keys),
        [options.get("undelivered", False)] * len(keys),
        [options.get("failure")] * len(keys),
        answered=options.get("answered", True),
    )
    return [(row["id"], row["lease_seq"]) for row in rows]


async def lock(database: Database, keys: Sequence[LeaseKey], **options: Any) -> list[LeaseKey]:
    rows = await lock_leases(
        database.hot,
        options.get("project_id", DEFAULT_PROJECT_ID),
        [key[0] for key in keys],
        [key[1] for key in keys],
    )
    return [(row["id"], row["lease_seq"]) for row in rows]


STATEMENTS = pytest.mark.parametrize("statement", [finish, give_back, lock])


async def contents(database: Database) -> list[str]:
    """Everything that an ending could change, as text."""
    return [
        str(row)
        for table in ("jobs", "job_history", "queue_deltas")
        for row in await database.hot.fetch(f"SELECT * FROM {table} AS row ORDER BY row::text")
    ]


# -- The fence ------------------------------------------------------------------------------------


@STATEMENTS
async def test_the_current_lease_is_found(database: Database, statement: Any) -> None:
    keys = await leased_jobs(database)
    assert await statement(database, keys) == keys


@STATEMENTS
async def test_a_stale_lease_changes_nothing(database: Database, statement: Any) -> None:
    [(job_id, stale), _] = await leased_jobs(database)
    await give_back(database, [(job_id, stale)])
    [(_, current)] = await lease(database.hot, [UUID(job_id)], await insert_session(database.hot))
    assert current > stale
    before = await contents(database)
    assert await statement(database, [(job_id, stale)]) == []
    assert await contents(database) == before


@STATEMENTS
async def test_the_lease_of_a_job_that_waits_again_changes_nothing(
    database: Database, statement: Any
) -> None:
    [key, _] = await leased_jobs(database)
    await give_back(database, [key])
    before = await contents(database)
    assert await statement(database, [key]) == []
    assert await contents(database) == before


@STATEMENTS
async def test_the_lease_of_a_finished_job_changes_nothing(
    database: Database, statement: Any
) -> None:
    [key, _] = await leased_jobs(database)
    await finish(database, [key])
    before = await contents(database)
    assert await statement(database, [key]) == []
    assert await contents(database) == before


@STATEMENTS
async def test_a_pair_forged_of_one_job_and_the_lease_of_another_changes_nothing(
    database: Database, statement: Any
) -> None:
    [(first, first_seq), (second, second_seq)] = await leased_jobs(database)
    before = await contents(database)
    forged = [(first, second_seq), (second, first_seq)]
    assert await statement(database, forged) == []
    assert await contents(database) == before


@STATEMENTS
async def test_another_project_cannot_end_the_lease(database: Database, statement: Any) -> None:
    keys = await leased_jobs(database)
    other = await insert_project(database.hot)
    before = await contents(database)
    assert await statement(database, keys, project_id=other) == []
    assert await contents(database) == before


@STATEMENTS
async def test_the_good_pairs_of_a_batch_count_whatever_the_others_are(
    database: Database, statement: Any
) -> None:
    good, (job_id, seq), returned = await leased_jobs(database, 3)
    await give_back(database, [returned])
    batch = sorted([good, (job_id, seq + 1000), returned, (str(uuid7()), seq)])
    assert await statement(database, batch) == [good]


# -- Two at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("second", [finish, give_back])
@pytest.mark.parametrize("first_commits", [True, False])
async def test_of_two_endings_of_one_lease_exactly_one_counts(
    database: Database, second: Any, first_commits: bool
) -> None:
    keys = await leased_jobs(database)
    async with database.hot.acquire() as holder:
        transaction = holder.transaction()
        await transaction.start()
        await end_leases(
            holder, DEFAULT_PROJECT_ID, dict.fromkeys(keys, LeaseExpired()), answered=False
        )
        racing = asyncio.create_task(second(database, keys))
        await until_blocked(database.hot, await holder.fetchval("SELECT pg_backend_pid()"))
        if first_commits:
            await transaction.commit()
        else:
            await transaction.rollback()
    assert await racing == ([] if first_commits else keys)
    assert await miscounts(database.hot) == []


async def test_what_was_locked_cannot_be_ended_by_another(database: Database) -> None:
    keys = await leased_jobs(database)
    async with database.hot.acquire() as holder, holder.transaction():
        await lock_leases(
            holder, DEFAULT_PROJECT_ID, [key[0] for key in keys], [key[1] for key in keys]
        )
        async with database.hot.acquire() as other:
            await other.execute("SET lock_timeout = '10ms'")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await finish_jobs(
                    other,
                    DEFAULT_PROJECT_ID,
                    [keys[0][0]],
                    [keys[0][1]],
                    [JobStatus.SUCCEEDED],
                    [None],
                    [None],
                    answered=True,
                )
            await other.execute("RESET lock_timeout")


# -- What becomes of the row ----------------------------------------------------------------------


async def full_job(database: Database) -> tuple[LeaseKey, UUID]:
    """A leased job in which every column has a value, with one failed attempt; and its session."""
    queue_id = await insert_queue(database.hot, "full")
    [job_id] = await insert_jobs(database.hot, queue_id, priorities=[7])
    await database.hot.execute(
        """
        UPDATE jobs SET
            scheduled_for = created_at, timeout = interval '90 seconds', attempt_count = 1,
            undelivered_count = 1, payload = '{"a":  1}', payload_bytes = 9, job_type = 'full',
            progress = '{"done": 5}', labels = '{"team": "a"}', traceparent = '00-1-2-01',
            tracestate = 'x=y', attempts = '[{"number": 1}]'
        WHERE id = $1
        """,
        job_id,
    )
    session_id = await insert_session(database.hot)
    [key] = await lease(database.hot, [job_id], session_id, times_out_in=timedelta(seconds=90))
    return key, session_id


async def row_of(database: Database, table: str, key: LeaseKey) -> dict[str, Any]:
    row = await database.hot.fetchrow(f"SELECT * FROM {table} WHERE id = $1", UUID(key[0]))
    assert row is not None
    return dict(row)


async def test_history_has_all_that_the_job_had(database: Database) -> None:
    key, _ = await full_job(database)
    await database.hot.execute("UPDATE jobs SET cancel_requested_at = clock_timestamp()")
    job = await row_of(database, "jobs", key)
    assert await finish(database, [key], result='{"sum":  3}', failure='{"number": 2}') == [key]
    assert await database.hot.fetchval("SELECT count(*) FROM jobs") == 0
    history = await row_of(database, "job_history", key)
    changed = {
        "status": JobStatus.SUCCEEDED,
        "last_seq": key[1],
        "last_status": JobStatus.SUCCEEDED,
        "attempts": '[{"number": 1}, {"number": 2}]',
        "result": '{"sum":  3}',
    }
    now = {"updated_at", "completed_at"}
    assert history["updated_at"] == history["completed_at"] > job["started_at"]
    assert {name: history[name] for name in changed} == changed
    kept = history.keys() - changed.keys() - now
    assert {name: history[name] for name in kept} == {name: job[name] for name in kept}
    assert job.keys() - history.keys() == {
        "lease_seq",
        "session_id",
        "timeout_at",
        "undelivered_count",
    }
    assert not [name for name, value in history.items() if value is None]


async def test_a_job_that_waits_again_keeps_all_but_its_lease(database: Database) -> None:
    key, _ = await full_job(database)
    job = await row_of(database, "jobs", key)
    delay = timedelta(seconds=42)
    options = {"delay": delay, "undelivered": True, "failure": '{"number": 2}'}
    assert await give_back(database, [key], **options) == [key]
    back = await row_of(database, "jobs", key)
    changed = {
        "status": JobStatus.SCHEDULED,
        "lease_seq": None,
        "session_id": None,
        "timeout_at": None,
        "last_seq": key[1],
        "last_status": JobStatus.SCHEDULED,
        "undelivered_count": 2,
        "attempts": '[{"number": 1}, {"number": 2}]',
    }
    assert {name: back[name] for name in changed} == changed
    waits = back["scheduled_for"] - back["updated_at"]
    assert abs(waits - delay) < timedelta(seconds=1)
    kept = back.keys() - changed.keys() - {"updated_at", "scheduled_for"}
    assert {name: back[name] for name in kept} == {name: job[name] for name in kept}


async def test_a_return_that_uses_no_attempt_takes_it_back(database: Database) -> None:
    key, _ = await full_job(database)
    await give_back(database, [key], uses_attempt=False)
    back = await row_of(database, "jobs", key)
    assert back["attempt_count"] == 1
    assert back["status"] == JobStatus.PENDING


@pytest.mark.parametrize("statement", [finish, give_back])
async def test_only_a_settle_leaves_an_answer_behind(database: Database, statement: Any) -> None:
    settled, expired = await leased_jobs(database)
    await statement(database, [settled], answered=True)
    await statement(database, [expired], answered=False)
    table = "job_history" if statement is finish else "jobs"
    row = await row_of(database, table, settled)
    assert (row["last_seq"], row["last_status"]) == (settled[1], row["status"])
    row = await row_of(database, table, expired)
    assert (row["last_seq"], row["last_status"]) == (None, None)


async def test_the_next_lease_forgets_the_answer_of_the_one_before(database: Database) -> None:
    [(job_id, seq), _] = await leased_jobs(database)
    await give_back(database, [(job_id, seq)])
    key = await lease(database.hot, [UUID(job_id)], await insert_session(database.hot))
    await give_back(database, key, answered=False)
    assert (await row_of(database, "jobs", key[0]))["last_seq"] is None


# -- Endings through the decision -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "status", "attempts_used", "outcome"),
    [
        (Succeeded("[1]"), JobStatus.SUCCEEDED, 1, None),
        (Failed("no", '{"a": 1}'), JobStatus.SCHEDULED, 1, 1),
        (Failed(retryable=False), JobStatus.FAILED, 1, 1),
        (Failed(retry_after=AT_ONCE), JobStatus.PENDING, 1, 1),
        (Released(), JobStatus.PENDING, 0, None),
        (Snoozed(timedelta(hours=1)), JobStatus.SCHEDULED, 0, None),
        (TimedOut(), JobStatus.SCHEDULED, 1, 2),
        (LeaseExpired(), JobStatus.PENDING, 1, 3),
        (Undelivered(), JobStatus.PENDING, 0, None),
    ],
    ids=repr,
)
async def test_each_ending_takes_the_job_where_the_decision_says(
    database: Database,
    ending: Ending,
    status: JobStatus,
    attempts_used: int,
    outcome: int | None,
) -> None:
    [key, _] = await leased_jobs(database)
    job = await row_of(database, "jobs", key)
    async with database.hot.acquire() as connection, connection.transaction():
        [ended] = await end_leases(connection, DEFAULT_PROJECT_ID, {key: ending}, answered=True)
    assert (ended.job_id, ended.lease_seq, ended.status) == (*key, status)
    assert (ended.queue_id, ended.session_id) == (job["queue_id"], job["session_id"])
    assert await statuses(database.hot, [UUID(key[0])]) == [status]
    finished = status in {JobStatus.SUCCEEDED, JobStatus.FAILED}
    row = await row_of(database, "job_history" if finished else "jobs", key)
    assert row["attempt_count"] == attempts_used
    attempts = json.loads(row["attempts"])
    assert [attempt["outcome"] for attempt in attempts] == ([] if outcome is None else [outcome])
    assert await miscounts(database.hot) == []


async def test_a_failed_attempt_is_recorded_with_all_there_is_to_know(database: Database) -> None:
    [key, _] = await leased_jobs(database)
    started_at = (await row_of(database, "jobs", key))["started_at"]
    async with database.hot.acquire() as connection, connection.transaction():
        ending = Failed("no such file", '{"path": "/x"}')
        await end_leases(connection, DEFAULT_PROJECT_ID, {key: ending}, answered=True)
    row = await row_of(database, "jobs", key)
    [attempt] = json.loads(row["attempts"])
    ended_at = datetime.fromtimestamp(attempt.pop("ended_at") / 1e6, UTC)
    assert started_at < ended_at <= row["updated_at"]
    assert attempt == {
        "number": 1,
        "worker_id": "worker",
        "started_at": round(started_at.timestamp() * 1_000_000),
        "outcome": 1,
        "message": "no such file",
        "detail": '{"path": "/x"}',
    }


async def test_a_mixed_batch_ends_each_in_its_way_and_leaves_out_the_stale(
    database: Database,
) -> None:
    succeeding, failing, releasing, stale = await leased_jobs(database, 4)
    await give_back(database, [stale])
    endings: dict[LeaseKey, Ending] = {
        stale: Succeeded(),
        releasing: Released(),
        failing: Failed(retryable=False),
        succeeding: Succeeded(),
    }
    async with database.hot.acquire() as connection, connection.transaction():
        ended = await end_leases(connection, DEFAULT_PROJECT_ID, endings, answered=True)
    assert {(lease.job_id, lease.lease_seq): lease.status for lease in ended} == {
        succeeding: JobStatus.SUCCEEDED,
        failing: JobStatus.FAILED,
        releasing: JobStatus.PENDING,
    }
    assert await miscounts(database.hot) == []


async def test_the_settings_of_the_queue_decide_about_the_wait(database: Database) -> None:
    [key, _] = await leased_jobs(database)
    await database.hot.execute(
        "UPDATE queues"
        " SET retry_delay = interval '1 hour', retry_jitter = 0, backoff_multiplier = 1"
    )
    async with database.hot.acquire() as connection, connection.transaction():
        await end_leases(connection, DEFAULT_PROJECT_ID, {key: Failed()}, answered=True)
    row = await row_of(database, "jobs", key)
    waits = row["scheduled_for"] - row["updated_at"]
    assert abs(waits - timedelta(hours=1)) < timedelta(seconds=1)


async def test_a_job_whose_queue_is_gone_still_ends(database: Database) -> None:
    keys = await leased_jobs(database)
    await database.hot.execute("DELETE FROM queues")
    async with database.hot.acquire() as connection, connection.transaction():
        ended = await end_leases(
            connection, DEFAULT_PROJECT_ID, dict.fromkeys(keys, LeaseExpired()), answered=False
        )
    assert len(ended) == 2


async def test_after_a_cancel_request_only_success_is_not_cancelled(database: Database) -> None:
    succeeding, expiring = await leased_jobs(database)
    await database.hot.execute("UPDATE jobs SET cancel_requested_at = clock_timestamp()")
    endings: dict[LeaseKey, Ending] = {succeeding: Succeeded(), expiring: LeaseExpired()}
    async with database.hot.acquire() as connection, connection.transaction():
        await end_leases(connection, DEFAULT_PROJECT_ID, endings, answered=False)
    ids = [UUID(succeeding[0]), UUID(expiring[0])]
    assert await statuses(database.hot, ids) == [JobStatus.SUCCEEDED, JobStatus.CANCELLED]


# -- Cancelling what waits ------------------------------------------------------------------------


async def test_waiting_jobs_are_cancelled_and_running_ones_are_not(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "mixed")
    [pending] = await insert_jobs(database.hot, queue_id)
    [scheduled] = await insert_jobs(database.hot, queue_id, JobStatus.SCHEDULED)
    [running] = await insert_jobs(database.hot, queue_id, JobStatus.PROCESSING)
    [finished] = await insert_jobs(database.hot, queue_id, JobStatus.FAILED)
    ids = [pending, scheduled, running, finished]
    named = sorted(map(str, [*ids, uuid7()]))
    rows = await cancel_waiting_jobs(database.hot, DEFAULT_PROJECT_ID, named)
    assert {(row["id"], row["queue_id"]) for row in rows} == {
        (str(pending), queue_id),
        (str(scheduled), queue_id),
    }
    assert await statuses(database.hot, ids) == [
        JobStatus.CANCELLED,
        JobStatus.CANCELLED,
        JobStatus.PROCESSING,
        JobStatus.FAILED,
    ]
    assert await miscounts(database.hot) == []


async def test_another_project_cannot_cancel_a_waiting_job(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "mine")
    [job_id] = await insert_jobs(database.hot, queue_id)
    other = await insert_project(database.hot)
    assert await cancel_waiting_jobs(database.hot, other, [str(job_id)]) == []
    assert await statuses(database.hot, [job_id]) == [JobStatus.PENDING]


async def test_a_cancelled_job_still_answers_a_settle_that_was_answered_before(
    database: Database,
) -> None:
    [key, _] = await leased_jobs(database)
    await give_back(database, [key])
    waiting = await row_of(database, "jobs", key)
    await cancel_waiting_jobs(database.hot, DEFAULT_PROJECT_ID, [key[0]])
    history = await row_of(database, "job_history", key)
    assert (history["last_seq"], history["last_status"]) == (key[1], JobStatus.PENDING)
    kept = history.keys() & waiting.keys() - {"status", "updated_at"}
    assert {name: history[name] for name in kept} == {name: waiting[name] for name in kept}


# -- Plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_ending_attempts_probes_the_key_once_a_job(
    database: Database, mode: PlanMode
) -> None:
    keys = await leased_jobs(database, 20_000)
    await database.hot.execute("ANALYZE taskforge.jobs")
    batch = sorted(keys)[:100]
    ids, seqs = [key[0] for key in batch], [key[1] for key in batch]
    async with Explainer(database.hot, mode) as explainer:
        await lock_leases(explainer, DEFAULT_PROJECT_ID, ids, seqs)
        assert explainer.indexes - {"queues_pkey"} == {"jobs_pkey"}
        assert "jobs" not in explainer.scanned_tables
        await return_jobs(
            explainer,
            DEFAULT_PROJECT_ID,
            ids[:50],
            seqs[:50],
            [AT_ONCE] * 50,
            [True] * 50,
            [False] * 50,
            [None] * 50,
            answered=True,
        )
        assert explainer.indexes == {"jobs_pkey"}
        assert "jobs" not in explainer.scanned_tables
        await finish_jobs(
            explainer,
            DEFAULT_PROJECT_ID,
            ids[50:],
            seqs[50:],
            [JobStatus.SUCCEEDED] * 50,
            [None] * 50,
            [None] * 50,
            answered=True,
        )
        assert explainer.indexes == {"jobs_pkey"}
        assert "jobs" not in explainer.scanned_tables


@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_cancelling_waiting_jobs_probes_the_key_once_a_job(
    database: Database, mode: PlanMode
) -> None:
    queue_id = await insert_queue(database.hot, "backlog")
    ids = await insert_jobs(database.hot, queue_id, priorities=[0] * 20_000)
    await database.hot.execute("ANALYZE taskforge.jobs")
    async with Explainer(database.hot, mode) as explainer:
        await cancel_waiting_jobs(explainer, DEFAULT_PROJECT_ID, [str(job) for job in ids[:100]])
        assert explainer.indexes == {"jobs_pkey"}
        assert "jobs" not in explainer.scanned_tables
