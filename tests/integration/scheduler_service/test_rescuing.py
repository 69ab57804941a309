"""Jobs of workers that fell silent come back; those of workers that speak stay theirs."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.integration.scheduler_service.conftest import RecordingNotifier
from tests.support.explaining import PLAN_MODES, Explainer, PlanMode
from tests.support.leases import (
    LeaseKey,
    insert_server,
    insert_session,
    lease,
    miscounts,
    statuses,
)
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.waiting import until_blocked

from scheduler_service.queries import (
    lock_held_leases,
    lock_silent_sessions,
    mark_rescued_sessions,
)
from scheduler_service.rescuing import Rescuer
from taskforge_core.database import Database
from taskforge_core.ending import end_leases
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.retrying import Ending, Succeeded
from taskforge_core.statuses import AttemptOutcome, JobStatus

SILENT = timedelta(seconds=-1)
ALIVE = timedelta(hours=1)


async def holder(
    database: Database,
    queue_id: UUID,
    count: int = 1,
    *,
    expires_in: timedelta | None = SILENT,
    project_id: UUID = DEFAULT_PROJECT_ID,
    server_lives: bool = True,
) -> tuple[UUID, list[LeaseKey]]:
    """A session and the leases that it holds."""
    server_id = await insert_server(database.hot, alive_for=ALIVE if server_lives else SILENT)
    ids = await insert_jobs(database.hot, queue_id, priorities=[0] * count, project_id=project_id)
    session_id = await insert_session(
        database.hot, project_id=project_id, expires_in=expires_in, server_id=server_id
    )
    return session_id, await lease(database.hot, ids, session_id, project_id=project_id)


@pytest.fixture
async def queue_id(database: Database) -> UUID:
    return await insert_queue(database.hot, "emails")


def ids_of(keys: list[LeaseKey]) -> list[UUID]:
    return [UUID(job_id) for job_id, _ in keys]


async def session_of(database: Database, session_id: UUID) -> dict[str, Any]:
    row = await database.hot.fetchrow("SELECT * FROM sessions WHERE session_id = $1", session_id)
    assert row is not None
    return dict(row)


async def heartbeat(connection: Any, session_id: UUID) -> None:
    await connection.execute(
        "UPDATE sessions SET expires_at = clock_timestamp() + lease_duration,"
        " must_heartbeat = false WHERE session_id = $1",
        session_id,
    )


# -- What a rescue does ---------------------------------------------------------------------------


async def test_what_a_silent_session_held_is_ready_at_once(
    database: Database, notifier: RecordingNotifier, queue_id: UUID
) -> None:
    session_id, keys = await holder(database, queue_id, 2)
    assert await Rescuer(database.hot, notifier).run_once() is False
    assert await statuses(database.hot, ids_of(keys)) == [JobStatus.PENDING] * 2
    rows = await database.hot.fetch("SELECT attempt_count, attempts, last_seq FROM jobs")
    assert [row["attempt_count"] for row in rows] == [1, 1]
    assert [row["last_seq"] for row in rows] == [None, None]
    outcomes = [[attempt["outcome"] for attempt in json.loads(row["attempts"])] for row in rows]
    assert outcomes == [[AttemptOutcome.LEASE_EXPIRED]] * 2
    assert notifier.told == {"session": {str(session_id)}, "ready": {str(queue_id)}}
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("is_row_left", [True, False])
async def test_what_a_server_that_died_may_not_have_sent_costs_no_attempt_twice(
    database: Database, notifier: RecordingNotifier, queue_id: UUID, is_row_left: bool
) -> None:
    session_id, [listed, unsent] = await holder(database, queue_id, 2, server_lives=False)
    if not is_row_left:
        await database.hot.execute("DELETE FROM servers")
    await database.hot.execute("UPDATE jobs SET max_attempts = 4")
    found = []
    for _ in range(3):
        await database.hot.execute("UPDATE sessions SET listed = $1", [listed[1]])
        await Rescuer(database.hot, notifier).run_once()
        rows = await database.hot.fetch(
            "SELECT attempt_count, undelivered_count, attempts FROM jobs ORDER BY id = $1::uuid",
            unsent[0],
        )
        outcomes = [[each["outcome"] for each in json.loads(row["attempts"])] for row in rows]
        found.append([(*row[:2], outcome) for row, outcome in zip(rows, outcomes, strict=True)])
        listed, unsent = await lease(database.hot, ids_of([listed, unsent]), session_id)
    assert [first for first, _ in found] == [
        (count, 0, [AttemptOutcome.LEASE_EXPIRED] * count) for count in (1, 2, 3)
    ]
    assert [second for _, second in found] == [
        (0, 1, []),
        (0, 2, []),
        (1, 3, [AttemptOutcome.UNDELIVERED]),
    ]
    assert await miscounts(database.hot) == []


async def test_a_rescued_session_gets_nothing_until_it_speaks_and_starts_afresh(
    database: Database, notifier: RecordingNotifier, queue_id: UUID
) -> None:
    session_id, keys = await holder(database, queue_id)
    await database.hot.execute(
        "UPDATE sessions SET listed = $1, omitted = $1", [seq for _, seq in keys]
    )
    await Rescuer(database.hot, notifier).run_once()
    session = await session_of(database, session_id)
    assert session["must_heartbeat"] is True
    assert session["listed"] == session["omitted"] == []


async def test_a_job_on_its_last_attempt_fails_and_a_cancelled_one_ends_cancelled(
    database: Database, notifier: RecordingNotifier, queue_id: UUID
) -> None:
    session_id, keys = await holder(database, queue_id, 2)
    last, cancelled = ids_of(keys)
    await database.hot.execute("UPDATE jobs SET attempt_count = max_attempts WHERE id = $1", last)
    await database.hot.execute(
        "UPDATE jobs SET cancel_requested_at = clock_timestamp() WHERE id = $1", cancelled
    )
    await Rescuer(database.hot, notifier).run_once()
    assert await statuses(database.hot, [last, cancelled]) == [
        JobStatus.FAILED,
        JobStatus.CANCELLED,
    ]
    # Nothing came back, but slots of the queue are free.
    assert notifier.told == {"session": {str(session_id)}, "ready": {str(queue_id)}}
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("expires_in", [ALIVE, None])
async def test_a_session_that_is_not_silent_keeps_what_it_holds(
    database: Database,
    notifier: RecordingNotifier,
    queue_id: UUID,
    expires_in: timedelta | None,
) -> None:
    session_id, keys = await holder(database, queue_id, expires_in=expires_in)
    before = await session_of(database, session_id)
    await Rescuer(database.hot, notifier).run_once()
    assert await statuses(database.hot, ids_of(keys)) == [JobStatus.PROCESSING]
    assert await session_of(database, session_id) == before


async def test_a_silent_session_that_holds_nothing_needs_no_rescue(
    database: Database, notifier: RecordingNotifier
) -> None:
    session_id = await insert_session(database.hot, expires_in=SILENT)
    await Rescuer(database.hot, notifier).run_once()
    assert (await session_of(database, session_id))["must_heartbeat"] is False


async def test_a_full_batch_of_sessions_says_that_more_may_be_silent(
    database: Database, notifier: RecordingNotifier, queue_id: UUID
) -> None:
    held = [await holder(database, queue_id) for _ in range(5)]
    rescuer = Rescuer(database.hot, notifier, batch_size=2)
    assert [await rescuer.run_once() for _ in range(3)] == [True, True, False]
    keys = [key for _, keys in held for key in keys]
    assert set(await statuses(database.hot, ids_of(keys))) == {JobStatus.PENDING}


async def test_the_sessions_of_all_projects_are_rescued_in_one_pass(
    database: Database, notifier: RecordingNotifier, queue_id: UUID
) -> None:
    other = await insert_project(database.hot)
    other_queue = await insert_queue(database.hot, "emails", project_id=other)
    _, first = await holder(database, queue_id)
    _, second = await holder(database, other_queue, project_id=other)
    await Rescuer(database.hot, notifier).run_once()
    assert await statuses(database.hot, ids_of(first + second)) == [JobStatus.PENDING] * 2
    assert notifier.told["ready"] == {str(queue_id), str(other_queue)}


async def test_a_session_of_the_same_id_in_another_project_is_another_session(
    database: Database, notifier: RecordingNotifier, queue_id: UUID
) -> None:
    other = await insert_project(database.hot)
    session_id, keys = await holder(database, queue_id)
    foreign = await insert_session(database.hot, project_id=other, expires_in=SILENT)
    await database.hot.execute(
        "UPDATE sessions SET session_id = $1 WHERE session_id = $2", session_id, foreign
    )
    await heartbeat(database.hot, session_id)
    await database.hot.execute(
        "UPDATE sessions SET expires_at = clock_timestamp() - interval '1 second'"
        " WHERE project_id = $1",
        other,
    )
    await Rescuer(database.hot, notifier).run_once()
    assert await statuses(database.hot, ids_of(keys)) == [JobStatus.PROCESSING]


async def test_a_session_with_thousands_of_leases_is_rescued_at_once(
    database: Database, notifier: RecordingNotifier, queue_id: UUID
) -> None:
    _, keys = await holder(database, queue_id, 5000)
    await Rescuer(database.hot, notifier).run_once()
    assert set(await statuses(database.hot, ids_of(keys))) == {JobStatus.PENDING}
    assert await miscounts(database.hot) == []


# -- Races ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("heartbeat_commits", [True, False])
async def test_a_heartbeat_that_came_first_saves_the_session_if_it_commits(
    database: Database, notifier: RecordingNotifier, queue_id: UUID, heartbeat_commits: bool
) -> None:
    session_id, keys = await holder(database, queue_id)
    rescuer = Rescuer(database.hot, notifier)
    async with database.hot.acquire() as beating:
        transaction = beating.transaction()
        await transaction.start()
        await heartbeat(beating, session_id)
        await rescuer.run_once()
        assert await statuses(database.hot, ids_of(keys)) == [JobStatus.PROCESSING]
        if heartbeat_commits:
            await transaction.commit()
        else:
            await transaction.rollback()
    await rescuer.run_once()
    expected = JobStatus.PROCESSING if heartbeat_commits else JobStatus.PENDING
    assert await statuses(database.hot, ids_of(keys)) == [expected]


async def test_a_heartbeat_and_a_settle_that_come_during_a_rescue_wait_for_it_and_find_nothing(
    database: Database, notifier: RecordingNotifier, queue_id: UUID
) -> None:
    session_id, [key] = await holder(database, queue_id)
    endings: dict[LeaseKey, Ending] = {key: Succeeded()}
    async with database.hot.acquire() as barrier:
        transaction = barrier.transaction()
        await transaction.start()
        # The rescue gets as far as the counts.
        await barrier.execute("LOCK TABLE queue_deltas IN EXCLUSIVE MODE")
        rescuing = asyncio.create_task(Rescuer(database.hot, notifier).run_once())
        pid = await barrier.fetchval("SELECT pg_backend_pid()")
        await until_blocked(database.hot, pid)
        rescuer_pid = await database.hot.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))", pid
        )
        beating = asyncio.create_task(heartbeat(database.hot, session_id))
        settling = asyncio.create_task(
            end_leases(database.hot, DEFAULT_PROJECT_ID, endings, answered=True)
        )
        await until_blocked(database.hot, rescuer_pid)
        await until_blocked(database.hot, pid, waiting=2)
        await transaction.rollback()
    await asyncio.gather(rescuing, beating)
    assert await settling == []
    assert await statuses(database.hot, ids_of([key])) == [JobStatus.PENDING]
    assert (await session_of(database, session_id))["must_heartbeat"] is False
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("settle_commits", [True, False])
async def test_a_settle_that_came_first_wins_if_it_commits(
    database: Database, notifier: RecordingNotifier, queue_id: UUID, settle_commits: bool
) -> None:
    _, keys = await holder(database, queue_id, 2)
    settled, silent = keys
    rescuer = Rescuer(database.hot, notifier)
    async with database.hot.acquire() as settling:
        transaction = settling.transaction()
        await transaction.start()
        endings: dict[LeaseKey, Ending] = {settled: Succeeded()}
        assert await end_leases(settling, DEFAULT_PROJECT_ID, endings, answered=True)
        await rescuer.run_once()
        # The rescue neither waited for the settle nor left out the others.
        assert await statuses(database.hot, ids_of([silent])) == [JobStatus.PENDING]
        if settle_commits:
            await transaction.commit()
        else:
            await transaction.rollback()
    await rescuer.run_once()
    expected = JobStatus.SUCCEEDED if settle_commits else JobStatus.PENDING
    assert await statuses(database.hot, ids_of([settled])) == [expected]
    assert await miscounts(database.hot) == []


async def test_a_session_whose_last_lease_is_being_settled_was_not_rescued(
    database: Database, notifier: RecordingNotifier, queue_id: UUID
) -> None:
    session_id, [key] = await holder(database, queue_id)
    async with database.hot.acquire() as settling, settling.transaction():
        endings: dict[LeaseKey, Ending] = {key: Succeeded()}
        await end_leases(settling, DEFAULT_PROJECT_ID, endings, answered=True)
        assert await Rescuer(database.hot, notifier, batch_size=1).run_once() is False
    assert (await session_of(database, session_id))["must_heartbeat"] is False
    assert notifier.told == {}


async def test_two_schedulers_at_once_end_each_lease_once(
    database: Database, notifier: RecordingNotifier, queue_id: UUID
) -> None:
    held = [await holder(database, queue_id, 20) for _ in range(40)]
    rescuers = [Rescuer(database.hot, notifier, batch_size=3) for _ in range(2)]

    async def until_done(rescuer: Rescuer) -> None:
        while await rescuer.run_once():
            pass

    await asyncio.gather(*(until_done(rescuer) for rescuer in rescuers))
    await until_done(rescuers[0])
    keys = [key for _, keys in held for key in keys]
    assert set(await statuses(database.hot, ids_of(keys))) == {JobStatus.PENDING}
    counts = await database.hot.fetch("SELECT DISTINCT jsonb_array_length(attempts) FROM jobs")
    assert [row[0] for row in counts] == [1]
    assert await miscounts(database.hot) == []


# -- Plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_a_rescue_reads_what_its_sessions_hold_and_nothing_else(
    database: Database, queue_id: UUID, mode: PlanMode
) -> None:
    for _ in range(20):
        await holder(database, queue_id, 1000, expires_in=ALIVE)
    silent, _ = await holder(database, queue_id, 10)
    await database.hot.execute("ANALYZE taskforge.jobs")
    await database.hot.execute("ANALYZE taskforge.sessions")
    async with Explainer(database.hot, mode) as explainer:
        [session] = await lock_silent_sessions(explainer, 20)
        assert session["session_id"] == silent
        assert explainer.indexes == {"jobs_held"}
        assert explainer.scanned_tables == {"sessions"}
        leases = await lock_held_leases(explainer, [session["project_id"]], [silent])
        assert len(leases) == 10
        assert explainer.indexes == {"jobs_held", "sessions_pkey", "servers_pkey"}
        assert explainer.scanned_tables == set()
        await mark_rescued_sessions(explainer, [session["project_id"]], [silent])
