"""What a failed job leaves behind in its dead-letter queue, in the transaction that fails it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.integration.scheduler_service.conftest import RecordingNotifier
from tests.support.explaining import PLAN_MODES, Explainer, PlanMode
from tests.support.leases import LeaseKey, insert_session, lease, miscounts, statuses
from tests.support.rows import insert_jobs, insert_project, insert_queue

from scheduler_service.rescuing import Rescuer
from scheduler_service.timing_out import TimeoutEnforcer
from taskforge_core.database import Database
from taskforge_core.ending import EndedLease, end_leases
from taskforge_core.ids import DEFAULT_PROJECT_ID, uuid7
from taskforge_core.queries import dead_letter_jobs
from taskforge_core.retrying import Ending, Failed, LeaseExpired, Released, Succeeded, TimedOut
from taskforge_core.statuses import JobStatus

FATAL = Failed("no such file", '{"path": "/x"}', retryable=False)


async def queues(database: Database, **columns: Any) -> tuple[UUID, UUID]:
    """A queue and its dead-letter queue, which gets the `columns`."""
    dead = await insert_queue(database.hot, "dead", **columns)
    return await insert_queue(database.hot, "emails", dead_letter_queue_id=dead), dead


async def leased(
    database: Database, queue_id: UUID, count: int = 1, **options: Any
) -> list[LeaseKey]:
    ids = await insert_jobs(database.hot, queue_id, priorities=[3] * count)
    session_id = await insert_session(database.hot, **options)
    return await lease(database.hot, ids, session_id)


async def end(database: Database, endings: dict[LeaseKey, Ending]) -> list[EndedLease]:
    async with database.hot.acquire() as connection, connection.transaction():
        return await end_leases(connection, DEFAULT_PROJECT_ID, endings, answered=True)


async def dead_letters(database: Database, queue_id: UUID) -> list[dict[str, Any]]:
    rows = await database.hot.fetch("SELECT * FROM jobs WHERE queue_id = $1 ORDER BY id", queue_id)
    return [dict(row) for row in rows]


async def history(database: Database, key: LeaseKey) -> dict[str, Any]:
    row = await database.hot.fetchrow("SELECT * FROM job_history WHERE id = $1", UUID(key[0]))
    assert row is not None
    return dict(row)


async def test_a_failed_job_leaves_one_with_all_that_it_had_and_where_it_comes_from(
    database: Database,
) -> None:
    queue_id, dead = await queues(database, max_retries=7)
    [key] = await leased(database, queue_id)
    await database.hot.execute(
        """UPDATE jobs SET payload = '{"a":  1}', payload_bytes = 9, job_type = 'full',
            timeout = interval '90 s', labels = '{"team": "a"}', traceparent = '00-1-2-01',
            tracestate = 'x=y', progress = '1', undelivered_count = 1, max_attempts = 4,
            attempt_count = 2, attempts = '[{"number": 1}]', scheduled_for = created_at"""
    )
    [ended] = await end(database, {key: FATAL})
    failed = await history(database, key)
    [made] = await dead_letters(database, dead)
    assert (ended.status, ended.dead_letter_queue_id) == (JobStatus.FAILED, dead)
    assert ended.ready_queue_ids == {dead}
    assert failed["dead_letter_job_id"] == made["id"] != failed["id"]
    same = {
        *("payload", "payload_bytes", "job_type", "timeout", "labels", "traceparent"),
        *("tracestate", "priority", "attempts", "project_id"),
    }
    assert {name: made[name] for name in same} == {name: failed[name] for name in same}
    assert [entry["number"] for entry in json.loads(made["attempts"])] == [1, 2]
    assert json.loads(made["attempts"])[1]["message"] == "no such file"
    assert (made["origin_job_id"], made["origin_queue_id"]) == (failed["id"], queue_id)
    assert made["origin_failed_at"] == failed["completed_at"]
    fresh = {
        "status": JobStatus.PENDING,
        "attempt_count": 0,
        "max_attempts": 8,
        "undelivered_count": 0,
        "scheduled_for": None,
        "progress": None,
        "worker_id": None,
        "last_seq": None,
    }
    assert {name: made[name] for name in fresh} == fresh
    assert made["created_at"] >= failed["completed_at"]
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize(
    "columns",
    [
        {"is_active": False, "accepts_jobs": False},
        {"max_payload_bytes": 1},
        {"delays_by_priority": True},
        {"max_concurrent_jobs": 1, "rate_limit_per_minute": 1},
    ],
    ids=lambda columns: next(iter(columns)),
)
async def test_no_rule_of_the_dead_letter_queue_keeps_a_dead_letter_out(
    database: Database, columns: dict[str, Any]
) -> None:
    queue_id, dead = await queues(database, **columns)
    keys = await leased(database, queue_id, 3)
    await end(database, dict.fromkeys(keys, FATAL))
    rows = await dead_letters(database, dead)
    assert [row["status"] for row in rows] == [JobStatus.PENDING] * 3
    assert await miscounts(database.hot) == []


async def test_all_or_nothing_is_kept(database: Database) -> None:
    queue_id, dead = await queues(database)
    [key] = await leased(database, queue_id)
    async with database.hot.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await end_leases(connection, DEFAULT_PROJECT_ID, {key: FATAL}, answered=True)
        # Nobody sees a failed job without its dead letter, nor the reverse.
        assert await dead_letters(database, dead) == []
        assert await statuses(database.hot, [UUID(key[0])]) == [JobStatus.PROCESSING]
        await transaction.rollback()
    assert await dead_letters(database, dead) == []
    assert await statuses(database.hot, [UUID(key[0])]) == [JobStatus.PROCESSING]
    assert await miscounts(database.hot) == []


async def test_a_job_fails_as_well_where_its_dead_letter_queue_is_deleted(
    database: Database,
) -> None:
    queue_id, dead = await queues(database, deleted_at=datetime.now(UTC))
    [key] = await leased(database, queue_id)
    [ended] = await end(database, {key: FATAL})
    assert (ended.status, ended.dead_letter_queue_id) == (JobStatus.FAILED, None)
    assert (await history(database, key))["dead_letter_job_id"] is None
    assert await dead_letters(database, dead) == []
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("ending", [Succeeded(), Released(), Failed("again")], ids=repr)
async def test_what_does_not_fail_leaves_none(database: Database, ending: Ending) -> None:
    queue_id, dead = await queues(database)
    [key, failing] = await leased(database, queue_id, 2)
    ended = await end(database, {key: ending, failing: FATAL})
    targets = {each.key[0]: each.dead_letter_queue_id for each in ended}
    assert targets == {key[0]: None, failing[0]: dead}
    assert len(await dead_letters(database, dead)) == 1


async def test_a_cancelled_job_leaves_none(database: Database) -> None:
    queue_id, dead = await queues(database)
    [key] = await leased(database, queue_id)
    await database.hot.execute("UPDATE jobs SET cancel_requested_at = clock_timestamp()")
    [ended] = await end(database, {key: FATAL})
    assert ended.status is JobStatus.CANCELLED
    assert await dead_letters(database, dead) == []


async def test_jobs_of_several_queues_go_each_to_its_own(database: Database) -> None:
    first, first_dead = await queues(database)
    second_dead = await insert_queue(database.hot, "more dead")
    second = await insert_queue(database.hot, "letters", dead_letter_queue_id=second_dead)
    without = await insert_queue(database.hot, "without")
    keys = [
        key for queue_id in (first, second, without) for key in await leased(database, queue_id, 2)
    ]
    ended = await end(database, dict.fromkeys(keys, FATAL))
    targets = {each.key[0]: each.dead_letter_queue_id for each in ended}
    assert [targets[key[0]] for key in keys] == [first_dead] * 2 + [second_dead] * 2 + [None] * 2
    assert len(await dead_letters(database, first_dead)) == 2
    assert len(await dead_letters(database, second_dead)) == 2
    assert await miscounts(database.hot) == []


async def test_a_dead_letter_that_fails_goes_on_to_the_next_dead_letter_queue(
    database: Database,
) -> None:
    last = await insert_queue(database.hot, "last")
    queue_id, dead = await queues(database, dead_letter_queue_id=last)
    [key] = await leased(database, queue_id)
    await end(database, {key: FATAL})
    [made] = await dead_letters(database, dead)
    second = await lease(database.hot, [made["id"]], await insert_session(database.hot))
    await end(database, {second[0]: FATAL})
    [moved] = await dead_letters(database, last)
    assert (moved["origin_job_id"], moved["origin_queue_id"]) == (made["id"], dead)
    assert len(json.loads(moved["attempts"])) == 2
    # Its own origin stays with it in history.
    assert (await history(database, second[0]))["origin_job_id"] == UUID(key[0])


async def test_another_projects_queue_is_no_dead_letter_queue(database: Database) -> None:
    other = await insert_project(database.hot)
    foreign = await insert_queue(database.hot, "dead", project_id=other)
    queue_id = await insert_queue(database.hot, "emails", dead_letter_queue_id=foreign)
    [key] = await leased(database, queue_id)
    [ended] = await end(database, {key: FATAL})
    assert ended.dead_letter_queue_id is None
    assert await dead_letters(database, foreign) == []


@pytest.mark.parametrize("ending", [TimedOut(), LeaseExpired()], ids=repr)
async def test_a_pass_that_ends_the_last_attempt_leaves_one_and_wakes_its_queue(
    database: Database, ending: Ending
) -> None:
    notifier = RecordingNotifier(database)
    queue_id, dead = await queues(database)
    [key] = await leased(database, queue_id, expires_in=timedelta(hours=1))
    await database.hot.execute("UPDATE jobs SET attempt_count = max_attempts")
    if isinstance(ending, TimedOut):
        await database.hot.execute("UPDATE jobs SET timeout_at = clock_timestamp()")
        await TimeoutEnforcer(database.hot, notifier).run_once()
    else:
        # Its worker has spoken of the lease: it did arrive.
        await database.hot.execute(
            "UPDATE sessions SET expires_at = clock_timestamp(), listed = ARRAY(SELECT lease_seq"
            " FROM jobs WHERE lease_seq IS NOT NULL)"
        )
        await Rescuer(database.hot, notifier).run_once()
    [made] = await dead_letters(database, dead)
    assert made["origin_job_id"] == UUID(key[0])
    assert notifier.told["ready"] == {str(queue_id), str(dead)}
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_failed_jobs_are_found_by_their_key_in_todays_partitions(
    database: Database, mode: PlanMode
) -> None:
    queue_id, _ = await queues(database)
    await insert_jobs(database.hot, queue_id, JobStatus.FAILED, priorities=[0] * 5000)
    await database.hot.execute("ANALYZE taskforge.job_history")
    async with Explainer(database.hot, mode) as explainer:
        await dead_letter_jobs(explainer, DEFAULT_PROJECT_ID, [str(uuid7())], [uuid7()])
        assert not {name for name in explainer.scanned_tables if name.startswith("job_history_2")}
