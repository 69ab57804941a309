"""Workers that fall silent or take too long: their jobs come back, and they are told."""

from uuid import uuid4

import pytest
from grpc import StatusCode
from tests.support.job_calls import (
    HELD,
    LOST,
    acquire,
    acquire_one,
    complete,
    create,
    create_all,
    duration,
    fail,
    get,
    heartbeat,
    release,
    span,
    spec,
    verdicts,
)
from tests.support.job_replicas import JobReplica
from tests.support.lease_streams import lease_stream
from tests.support.leases import miscounts
from tests.support.queue_calls import make, update
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub, QueueStub

from scheduler_service.rescuing import Rescuer
from scheduler_service.timing_out import TimeoutEnforcer
from taskforge.v1 import job_pb2, queue_pb2
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier

PENDING = job_pb2.JOB_STATUS_PENDING
PROCESSING = job_pb2.JOB_STATUS_PROCESSING


@pytest.fixture
async def emails(database: Database) -> None:
    """An open queue."""
    await insert_queue(database.hot, "emails")


@pytest.fixture
def rescuer(database: Database) -> Rescuer:
    """The scheduler's pass over silent sessions."""
    return Rescuer(database.hot, Notifier(database.hot, "scheduler"))


@pytest.fixture
def enforcer(database: Database) -> TimeoutEnforcer:
    """The scheduler's pass over attempts that take too long."""
    return TimeoutEnforcer(database.hot, Notifier(database.hot, "scheduler"))


async def expire(database: Database, session_id: str) -> None:
    """Let a session have been silent for longer than its leases last."""
    await database.hot.execute(
        "UPDATE taskforge.sessions SET expires_at = clock_timestamp() - interval '1 ms'"
        " WHERE session_id = $1",
        session_id,
    )


# -- Silence -------------------------------------------------------------------------------------


async def test_the_jobs_of_a_silent_session_are_ready_again_at_once(
    job_stub: JobStub, database: Database, rescuer: Rescuer, emails: None
) -> None:
    await create_all(job_stub, [spec(payload=str(n)) for n in range(3)])
    silent, speaking = str(uuid4()), str(uuid4())
    lost = await acquire(job_stub, silent, max_in_flight=2, worker_id="w")
    kept = await acquire_one(job_stub, speaking)
    await rescuer.run_once()
    assert await acquire(job_stub) == []
    await expire(database, silent)
    await rescuer.run_once()
    assert (await get(job_stub, kept.job.id)).status == PROCESSING
    for lease in lost:
        job = await get(job_stub, lease.job.id)
        assert (job.status, job.attempt_count) == (PENDING, 1)
        [attempt] = job.attempts
        assert attempt.outcome == job_pb2.ATTEMPT_OUTCOME_LEASE_EXPIRED
        assert (attempt.number, attempt.worker_id, attempt.detail) == (1, "w", "")
        assert attempt.message
        assert attempt.started_at == lease.job.started_at
    again = await acquire(job_stub)
    assert [lease.job.id for lease in again] == [lease.job.id for lease in lost]
    assert [lease.job.attempt_count for lease in again] == [2, 2]
    assert await miscounts(database.hot) == []


async def test_a_job_that_silences_its_workers_every_time_fails(
    job_stub: JobStub, database: Database, rescuer: Rescuer, emails: None
) -> None:
    made = await create(job_stub, max_attempts=3)
    for _ in range(3):
        session_id = str(uuid4())
        await acquire_one(job_stub, session_id)
        await expire(database, session_id)
        await rescuer.run_once()
    job = await get(job_stub, made.id)
    assert (job.status, job.attempt_count) == (job_pb2.JOB_STATUS_FAILED, 3)
    assert [attempt.number for attempt in job.attempts] == [1, 2, 3]
    assert await acquire(job_stub) == []


async def test_a_rescued_lease_is_lost_for_every_call(
    job_stub: JobStub, database: Database, rescuer: Rescuer, emails: None
) -> None:
    await create(job_stub)
    session_id = str(uuid4())
    token = (await acquire_one(job_stub, session_id)).lease_token
    await expire(database, session_id)
    await rescuer.run_once()
    async with unchanged(database.hot):
        for call in (complete(job_stub, token), fail(job_stub, token), release(job_stub, token)):
            await expect_error(call, StatusCode.ABORTED, "LEASE_LOST")
    assert verdicts(await heartbeat(job_stub, session_id, 1, [token])) == [LOST]


async def test_until_the_rescue_settles_and_heartbeats_succeed(
    job_stub: JobStub, database: Database, rescuer: Rescuer, emails: None
) -> None:
    await create_all(job_stub, [spec()] * 2)
    session_id = str(uuid4())
    one, two = await acquire(job_stub, session_id)
    await expire(database, session_id)
    assert await complete(job_stub, one.lease_token) == job_pb2.JOB_STATUS_SUCCEEDED
    answer = await heartbeat(job_stub, session_id, 1, [two.lease_token])
    assert verdicts(answer) == [HELD]
    await rescuer.run_once()
    assert (await get(job_stub, two.job.id)).status == PROCESSING


async def test_a_rescued_session_is_told_what_it_lost_and_gets_nothing_until_it_speaks(
    replica: JobReplica,
    other_stub: JobStub,
    database: Database,
    rescuer: Rescuer,
    emails: None,
) -> None:
    await create_all(replica.stub, [spec(payload=str(n)) for n in range(2)])
    async with lease_stream(replica.stub, max_in_flight=10) as stream:
        await stream.until_leases(2)
        lost = list(stream.tokens)
        await expire(database, stream.session_id)
        await rescuer.run_once()
        await stream.until(lambda stream: len(stream.lost) == 2, "the losses are told")
        assert sorted(stream.lost) == sorted(lost)
        await replica.dispatch()
        # Neither on its stream, nor what it lost, nor what is new.
        await create(replica.stub, payload='"new"')
        await replica.dispatch()
        assert len(stream.leases) == 2
        assert (await acquire_one(other_stub)).job.payload == "0"
        answer = await heartbeat(other_stub, stream.session_id, 1, lost)
        assert verdicts(answer) == [LOST, LOST]
        await stream.until_leases(4)
        assert stream.payloads[2:] == ["1", '"new"']


async def test_a_rescued_session_that_acquires_gets_nothing_until_it_speaks(
    job_stub: JobStub, database: Database, rescuer: Rescuer, emails: None
) -> None:
    await create(job_stub)
    session_id = str(uuid4())
    await acquire_one(job_stub, session_id)
    await expire(database, session_id)
    # Its leases have expired: it gets nothing more, rescued or not.
    await create(job_stub)
    assert await acquire(job_stub, session_id) == []
    await rescuer.run_once()
    assert await acquire(job_stub, session_id) == []
    async with lease_stream(job_stub, session_id) as stream:
        await heartbeat(job_stub, session_id, 1)
        await stream.until_leases(2)


async def test_a_session_that_holds_nothing_is_never_rescued(
    replica: JobReplica, database: Database, rescuer: Rescuer, emails: None
) -> None:
    async with lease_stream(replica.stub, lease_duration=duration(seconds=10)) as stream:
        await create(replica.stub)
        await stream.until_leases(1)
        await complete(replica.stub, stream.tokens[0])
        await expire(database, stream.session_id)
        await rescuer.run_once()
        # Its next lease starts its clock anew, without a heartbeat.
        await create(replica.stub)
        [_, lease] = await stream.until_leases(2)
        assert span(lease.job.started_at, lease.expires_at).total_seconds() > 9
        await rescuer.run_once()
        assert (await get(replica.stub, lease.job.id)).status == PROCESSING


async def test_a_stream_on_any_replica_gets_what_was_rescued(
    job_stub: JobStub, other_stub: JobStub, database: Database, rescuer: Rescuer, emails: None
) -> None:
    job = await create(job_stub)
    session_id = str(uuid4())
    await acquire_one(job_stub, session_id)
    async with lease_stream(other_stub) as stream:
        await expire(database, session_id)
        await rescuer.run_once()
        [lease] = await stream.until_leases(1)
        assert lease.job.id == job.id


async def test_a_loss_is_told_on_a_stream_that_was_opened_elsewhere_meanwhile(
    job_stub: JobStub, other_stub: JobStub, database: Database, rescuer: Rescuer, emails: None
) -> None:
    await create(job_stub)
    session_id = str(uuid4())
    async with lease_stream(job_stub, session_id, max_in_flight=1) as old:
        await old.until_leases(1)
        async with lease_stream(other_stub, session_id, max_in_flight=2) as new:
            await create(job_stub)
            await new.until_leases(1)
            await expire(database, session_id)
            await rescuer.run_once()
            await new.until(lambda stream: len(stream.lost) == 2, "the losses are told")
            assert sorted(new.lost) == sorted(old.tokens + new.tokens)


# -- Timeouts ------------------------------------------------------------------------------------


async def test_an_attempt_that_takes_too_long_is_ended_and_its_worker_told(
    job_stub: JobStub, database: Database, enforcer: TimeoutEnforcer, emails: None
) -> None:
    made = await create(job_stub, timeout=duration(minutes=1))
    await create(job_stub)
    async with lease_stream(job_stub, worker_id="w", max_in_flight=2) as stream:
        overdue, endless = await stream.until_leases(2)
        assert span(overdue.job.started_at, overdue.job.timeout_at).total_seconds() == 60
        assert not endless.job.HasField("timeout_at")
        await enforcer.run_once()
        assert (await get(job_stub, made.id)).status == PROCESSING
        await database.hot.execute(
            "UPDATE taskforge.jobs SET timeout_at = timeout_at - interval '1 minute'"
        )
        await enforcer.run_once()
        await stream.until(lambda stream: bool(stream.lost), "the loss is told")
        assert stream.lost == [overdue.lease_token]
    job = await get(job_stub, made.id)
    assert (job.status, job.attempt_count) == (job_pb2.JOB_STATUS_SCHEDULED, 1)
    assert not job.HasField("timeout_at")
    # It waits like after any failure.
    assert 4.4 < span(job.updated_at, job.scheduled_for).total_seconds() < 5.6
    [attempt] = job.attempts
    assert attempt.outcome == job_pb2.ATTEMPT_OUTCOME_TIMED_OUT
    assert (attempt.number, attempt.worker_id) == (1, "w")
    async with unchanged(database.hot):
        await expect_error(
            complete(job_stub, overdue.lease_token), StatusCode.ABORTED, "LEASE_LOST"
        )
    assert await miscounts(database.hot) == []


async def test_the_last_attempt_that_takes_too_long_fails_the_job(
    job_stub: JobStub, database: Database, enforcer: TimeoutEnforcer, emails: None
) -> None:
    made = await create(job_stub, timeout=duration(seconds=1), max_attempts=1)
    await acquire_one(job_stub)
    await database.hot.execute("UPDATE taskforge.jobs SET timeout_at = clock_timestamp()")
    await enforcer.run_once()
    job = await get(job_stub, made.id)
    assert job.status == job_pb2.JOB_STATUS_FAILED
    assert [attempt.outcome for attempt in job.attempts] == [job_pb2.ATTEMPT_OUTCOME_TIMED_OUT]


async def test_the_queues_timeout_counts_for_jobs_that_have_none(
    job_stub: JobStub, queue_stub: QueueStub
) -> None:
    await make(queue_stub)
    settings = queue_pb2.QueueSettings(timeout=duration(minutes=5))
    await queue_stub.UpdateQueue(update("emails", "settings.timeout", settings=settings))
    await create(job_stub)
    await create(job_stub, timeout=duration(minutes=10))
    default, own = (lease.job for lease in await acquire(job_stub))
    assert span(default.started_at, default.timeout_at).total_seconds() == 300
    assert not default.HasField("timeout")
    assert span(own.started_at, own.timeout_at).total_seconds() == 600
