"""What an ended attempt leaves behind: the job, its history, its counts."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.support.endings import AT_ONCE, finish, give_back, leased_jobs, row_of
from tests.support.leases import LeaseKey, insert_session, lease, miscounts, statuses
from tests.support.rows import insert_jobs, insert_queue

from taskforge_core.database import Database
from taskforge_core.ending import end_leases
from taskforge_core.ids import DEFAULT_PROJECT_ID
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
            tracestate = 'x=y', attempts = '[{"number": 1}]',
            origin_job_id = gen_random_uuid(), origin_queue_id = gen_random_uuid(),
            origin_failed_at = created_at
        WHERE id = $1
        """,
        job_id,
    )
    session_id = await insert_session(database.hot)
    [key] = await lease(database.hot, [job_id], session_id, times_out_in=timedelta(seconds=90))
    return key, session_id


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
        "dead_letter_job_id": None,
    }
    now = {"updated_at", "completed_at"}
    assert history["updated_at"] == history["completed_at"] > job["started_at"]
    assert {name: history[name] for name in changed} == changed
    kept = history.keys() - changed.keys() - now
    assert {name: history[name] for name in kept} == {name: job[name] for name in kept}
    assert job.keys() - history.keys() == {
        "lease_seq",
        "origin_max_attempts",
        "session_id",
        "timeout_at",
        "undelivered_count",
    }
    assert [name for name, value in history.items() if value is None] == ["dead_letter_job_id"]


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
    assert (ended.key, ended.status) == (key, status)
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
    assert {lease.key: lease.status for lease in ended} == {
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
