"""Heartbeats that leave out a lease: they take it back, and what that costs its job."""

from datetime import timedelta
from uuid import uuid4

import pytest
from grpc import StatusCode
from tests.support.job_calls import (
    HELD,
    LOST,
    acquire_one,
    complete,
    create,
    create_all,
    get,
    heartbeat,
    span,
    spec,
    verdicts,
)
from tests.support.lease_streams import lease_stream
from tests.support.leases import miscounts
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.stubs import JobStub

from taskforge.v1 import job_pb2
from taskforge_core.database import Database


@pytest.fixture
async def emails(database: Database) -> None:
    """An open queue."""
    await insert_queue(database.hot, "emails")


async def make_old(database: Database) -> None:
    """Let all leases be so old that a heartbeat must have heard of them."""
    await database.hot.execute(
        "UPDATE taskforge.jobs SET started_at = started_at - interval '1 minute' WHERE status = 3"
    )


async def test_a_lease_never_listed_comes_back_without_an_attempt_after_two_heartbeats(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    await create(job_stub)
    session_id = str(uuid4())
    lease = await acquire_one(job_stub, session_id)
    # A lease that is on its way may be missing from any number of lists.
    for sequence in (1, 2, 3):
        await heartbeat(job_stub, session_id, sequence)
    assert (await get(job_stub, lease.job.id)).status == job_pb2.JOB_STATUS_PROCESSING
    await make_old(database)
    await heartbeat(job_stub, session_id, 4)
    assert (await get(job_stub, lease.job.id)).status == job_pb2.JOB_STATUS_PROCESSING
    await heartbeat(job_stub, session_id, 5)
    job = await get(job_stub, lease.job.id)
    assert job.status == job_pb2.JOB_STATUS_PENDING
    assert (job.attempt_count, len(job.attempts)) == (0, 0)
    assert verdicts(await heartbeat(job_stub, session_id, 6, [lease.lease_token])) == [LOST]
    await expect_error(complete(job_stub, lease.lease_token), StatusCode.ABORTED, "LEASE_LOST")
    assert await miscounts(database.hot) == []


async def test_only_omissions_in_a_row_count(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    await create(job_stub)
    session_id = str(uuid4())
    token = (await acquire_one(job_stub, session_id)).lease_token
    await make_old(database)
    for sequence, listed in enumerate(([], [token], [], [token], [], [token]), start=1):
        answer = await heartbeat(job_stub, session_id, sequence, listed)
        assert verdicts(answer) == [HELD] * len(listed)
    # An old heartbeat that comes late is none.
    await heartbeat(job_stub, session_id, 7)
    await heartbeat(job_stub, session_id, 7)
    assert verdicts(await heartbeat(job_stub, session_id, 8, [token])) == [HELD]


async def test_a_lease_once_listed_and_then_forgotten_has_expired(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    job = await create(job_stub)
    session_id = str(uuid4())
    token = (await acquire_one(job_stub, session_id, worker_id="w")).lease_token
    await heartbeat(job_stub, session_id, 1, [token])
    await make_old(database)
    await heartbeat(job_stub, session_id, 2)
    await heartbeat(job_stub, session_id, 3)
    shown = await get(job_stub, job.id)
    assert shown.status == job_pb2.JOB_STATUS_PENDING
    assert shown.attempt_count == 1
    [attempt] = shown.attempts
    assert attempt.outcome == job_pb2.ATTEMPT_OUTCOME_LEASE_EXPIRED
    assert (attempt.number, attempt.worker_id) == (1, "w")
    assert span(attempt.started_at, attempt.ended_at) >= timedelta(minutes=1)


async def test_from_the_third_time_on_a_lease_that_reaches_nobody_uses_an_attempt(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    job = await create(job_stub, max_attempts=2)
    session_id = str(uuid4())
    used = []
    for sequence in (1, 3, 5, 7):
        await acquire_one(job_stub, session_id)
        await make_old(database)
        await heartbeat(job_stub, session_id, sequence)
        await heartbeat(job_stub, session_id, sequence + 1)
        used.append((await get(job_stub, job.id)).attempt_count)
    assert used == [0, 0, 1, 2]
    shown = await get(job_stub, job.id)
    assert shown.status == job_pb2.JOB_STATUS_FAILED
    assert [attempt.outcome for attempt in shown.attempts] == [
        job_pb2.ATTEMPT_OUTCOME_UNDELIVERED
    ] * 2
    assert await miscounts(database.hot) == []


async def test_what_a_heartbeat_takes_back_makes_room_and_is_leased_again(
    job_stub: JobStub, other_stub: JobStub, database: Database, emails: None
) -> None:
    await create_all(job_stub, [spec(payload=str(n)) for n in range(3)])
    async with lease_stream(job_stub, max_in_flight=2) as stream:
        await stream.until_leases(2)
        await make_old(database)
        first, second = stream.tokens
        # Through the other replica, which does not serve the stream.
        await heartbeat(other_stub, stream.session_id, 1, [second])
        await heartbeat(other_stub, stream.session_id, 2, [second])
        await stream.until_leases(3)
        assert stream.payloads == ["0", "1", "0"]
        assert first not in stream.tokens[1:]
