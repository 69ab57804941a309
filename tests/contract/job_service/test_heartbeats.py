"""Heartbeats: what they renew, and what they say of each lease."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from grpc import StatusCode
from tests.support.job_calls import (
    CANCEL_REQUESTED,
    HELD,
    LOST,
    acquire,
    acquire_one,
    cancel,
    complete,
    create,
    create_all,
    duration,
    get,
    heartbeat,
    release,
    spec,
    verdicts,
)
from tests.support.job_replicas import JobReplica
from tests.support.lease_streams import lease_stream
from tests.support.refusals import expect_error
from tests.support.rows import insert_project, insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub
from tests.support.waiting import eventually

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database


@pytest.fixture
async def emails(database: Database) -> str:
    """The id of an open queue."""
    return str(await insert_queue(database.hot, "emails"))


# -- Renewing ------------------------------------------------------------------------------------


async def test_one_heartbeat_renews_all_that_the_session_holds(
    job_stub: JobStub, database: Database, emails: str
) -> None:
    await create_all(job_stub, [spec()] * 3)
    session_id = str(uuid4())
    leases = await acquire(job_stub, session_id, lease_duration=duration(seconds=20))
    await database.hot.execute(
        "UPDATE taskforge.sessions SET expires_at = expires_at - interval '10 seconds'"
    )
    before = await database.hot.fetchval("SELECT clock_timestamp()")
    # Only one is listed: the others are too new to be missed, and are renewed as well.
    answer = await heartbeat(job_stub, session_id, 1, [leases[0].lease_token])
    after = await database.hot.fetchval("SELECT clock_timestamp()")
    expires_at = answer.expires_at.ToDatetime(tzinfo=before.tzinfo)
    assert before <= expires_at - timedelta(seconds=20) <= after
    assert await database.hot.fetchval("SELECT expires_at FROM taskforge.sessions") == expires_at
    assert verdicts(answer) == [HELD]


async def test_a_lease_that_expired_is_held_until_it_is_taken_away(
    job_stub: JobStub, database: Database, emails: str
) -> None:
    await create(job_stub)
    session_id = str(uuid4())
    lease = await acquire_one(job_stub, session_id)
    await database.hot.execute(
        "UPDATE taskforge.sessions SET expires_at = clock_timestamp() - interval '1 hour'"
    )
    answer = await heartbeat(job_stub, session_id, 1, [lease.lease_token])
    assert verdicts(answer) == [HELD]
    now = await database.hot.fetchval("SELECT clock_timestamp()")
    assert answer.expires_at.ToDatetime(tzinfo=now.tzinfo) > now
    assert await complete(job_stub, lease.lease_token) == job_pb2.JOB_STATUS_SUCCEEDED


async def test_a_sequence_that_does_not_grow_changes_nothing_but_gets_verdicts(
    job_stub: JobStub, database: Database, emails: str
) -> None:
    await create(job_stub)
    session_id = str(uuid4())
    lease = await acquire_one(job_stub, session_id)
    token = lease.lease_token
    taken = await heartbeat(job_stub, session_id, 7, [token])
    held = pb.HeldLease(lease_token=token, progress="1")
    async with unchanged(database.hot):
        for sequence in (7, 6, 1):
            answer = await heartbeat(job_stub, session_id, sequence, [held])
            assert verdicts(answer) == [HELD]
            assert answer.expires_at == taken.expires_at
    await complete(job_stub, token)
    assert verdicts(await heartbeat(job_stub, session_id, 7, [token])) == [LOST]
    answer = await heartbeat(job_stub, session_id, 8, [token])
    assert answer.expires_at.ToNanoseconds() > taken.expires_at.ToNanoseconds()


async def test_a_session_nobody_knows_holds_nothing_and_is_not_made(
    job_stub: JobStub, database: Database, emails: str
) -> None:
    await create(job_stub)
    lease = await acquire_one(job_stub)
    async with unchanged(database.hot):
        answer = await heartbeat(job_stub, str(uuid4()), 1, [lease.lease_token])
        assert verdicts(answer) == [LOST]
        assert not answer.HasField("expires_at")
        assert answer.reconnect
        assert await heartbeat(job_stub, str(uuid4()), 1) == pb.HeartbeatResponse(reconnect=True)


async def test_heartbeats_of_many_sessions_at_once_are_judged_each_by_its_own(
    job_stub: JobStub, other_stub: JobStub, emails: str
) -> None:
    await create_all(job_stub, [spec()] * 30)
    sessions = [str(uuid4()) for _ in range(30)]
    tokens = [(await acquire_one(job_stub, session)).lease_token for session in sessions]
    answers = await asyncio.gather(
        *(
            heartbeat((job_stub, other_stub)[n % 2], sessions[n], 1, [tokens[n], tokens[n - 1]])
            for n in range(30)
        )
    )
    assert all(verdicts(answer) == [HELD, LOST] for answer in answers)


async def test_heartbeats_of_one_session_at_once_leave_the_highest_sequence(
    job_stub: JobStub, other_stub: JobStub, database: Database, emails: str
) -> None:
    await create(job_stub)
    session_id = str(uuid4())
    token = (await acquire_one(job_stub, session_id)).lease_token
    answers = await asyncio.gather(
        *(
            heartbeat((job_stub, other_stub)[n % 2], session_id, n, [token])
            for n in (3, 9, 1, 7, 2, 8, 4, 6, 5)
        )
    )
    assert all(verdicts(answer) == [HELD] for answer in answers)
    assert await database.hot.fetchval("SELECT last_sequence FROM taskforge.sessions") == 9


# -- Verdicts ------------------------------------------------------------------------------------


async def test_each_lease_gets_its_verdict_in_the_order_of_the_request(
    job_stub: JobStub, emails: str
) -> None:
    await create_all(job_stub, [spec(payload=str(n)) for n in range(5)])
    session_id = str(uuid4())
    held, cancelled, settled, released = await acquire(job_stub, session_id, max_in_flight=4)
    foreign = await acquire_one(job_stub)
    await cancel(job_stub, cancelled.job.id, interrupt_running=True)
    await complete(job_stub, settled.lease_token)
    await release(job_stub, released.lease_token)
    [again] = await acquire(job_stub, session_id, max_in_flight=4)
    assert again.job.id == released.job.id
    cases = [
        (cancelled, CANCEL_REQUESTED),
        (settled, LOST),
        (held, HELD),
        (released, LOST),
        (again, HELD),
        (foreign, LOST),
        (held, HELD),
    ]
    answer = await heartbeat(job_stub, session_id, 1, [lease.lease_token for lease, _ in cases])
    assert verdicts(answer) == [verdict for _, verdict in cases]
    assert [verdict.lease_token for verdict in answer.verdicts] == [
        lease.lease_token for lease, _ in cases
    ]


async def test_a_session_of_one_project_holds_nothing_in_another(
    job_stub: JobStub, database: Database, emails: str
) -> None:
    other = str(await insert_project(database.hot))
    await create(job_stub)
    session_id = str(uuid4())
    lease = await acquire_one(job_stub, session_id)
    async with unchanged(database.hot):
        held = pb.HeldLease(lease_token=lease.lease_token, progress="1")
        answer = await heartbeat(job_stub, session_id, 1, [held], project_id=other)
        assert verdicts(answer) == [LOST]
        assert not answer.HasField("expires_at")


# -- Reconnect -----------------------------------------------------------------------------------


async def test_a_session_is_told_to_reconnect_when_its_stream_has_ended(
    job_stub: JobStub, other_stub: JobStub, emails: str
) -> None:
    await create(job_stub)
    session_id = str(uuid4())
    sequence = 0
    async with lease_stream(job_stub, session_id) as stream:
        await stream.until_leases(1)
        for stub in (job_stub, other_stub):
            sequence += 1
            assert not (await heartbeat(stub, session_id, sequence, stream.tokens)).reconnect

    async def must_reconnect() -> bool:
        nonlocal sequence
        sequence += 1
        answer = await heartbeat(other_stub, session_id, sequence, stream.tokens)
        assert verdicts(answer) == [HELD]
        return answer.reconnect

    await eventually(must_reconnect, "the end of the stream is known")
    async with lease_stream(other_stub, session_id) as stream:
        await create(job_stub)
        await stream.until_leases(1)
        assert not (await heartbeat(job_stub, session_id, sequence + 1)).reconnect


async def test_a_session_is_told_to_reconnect_when_the_server_of_its_stream_is_gone(
    replica: JobReplica, other_replica: JobReplica, database: Database, emails: str
) -> None:
    await create(replica.stub)
    session_id = str(uuid4())
    async with lease_stream(replica.stub, session_id) as stream:
        await stream.until_leases(1)
        await replica.server.replica._loop.stop()
        await database.hot.execute(
            "UPDATE taskforge.servers SET alive_until = clock_timestamp() WHERE server_id = $1",
            replica.server.server_id,
        )
        answer = await heartbeat(other_replica.stub, session_id, 1, stream.tokens)
        assert verdicts(answer) == [HELD]
        assert answer.reconnect
        await replica.server.replica.run_once()
        assert not (await heartbeat(other_replica.stub, session_id, 2, stream.tokens)).reconnect


async def test_a_session_that_acquires_is_never_told_to_reconnect(
    replica: JobReplica, other_replica: JobReplica, database: Database, emails: str
) -> None:
    await create(replica.stub)
    session_id = str(uuid4())
    token = (await acquire_one(replica.stub, session_id)).lease_token
    assert not (await heartbeat(other_replica.stub, session_id, 1, [token])).reconnect
    await replica.drain()
    await replica.server.replica.leave()
    assert not (await heartbeat(other_replica.stub, session_id, 2, [token])).reconnect


# -- Progress ------------------------------------------------------------------------------------


async def test_progress_is_kept_and_shown_and_handed_to_the_next_worker(
    job_stub: JobStub, emails: str
) -> None:
    job = await create(job_stub)
    session_id = str(uuid4())
    token = (await acquire_one(job_stub, session_id)).lease_token
    assert (await get(job_stub, job.id)).progress == ""
    for sequence, progress in enumerate(('{"done": 0.5}', "null"), start=1):
        held = pb.HeldLease(lease_token=token, progress=progress)
        await heartbeat(job_stub, session_id, sequence, [held])
        assert (await get(job_stub, job.id)).progress == progress
    # Without news it stays as it was.
    await heartbeat(job_stub, session_id, 3, [token])
    assert (await get(job_stub, job.id)).progress == "null"
    await release(job_stub, token)
    lease = await acquire_one(job_stub)
    assert lease.job.progress == "null"
    await complete(job_stub, lease.lease_token)
    assert (await get(job_stub, job.id)).progress == "null"


async def test_only_the_holder_of_a_lease_changes_its_progress(
    job_stub: JobStub, database: Database, emails: str
) -> None:
    await create_all(job_stub, [spec()] * 2)
    session_id, other_session = str(uuid4()), str(uuid4())
    old = await acquire_one(job_stub, session_id)
    await release(job_stub, old.lease_token)
    new = await acquire_one(job_stub, other_session)
    assert new.job.id == old.job.id
    mine = await acquire_one(job_stub, session_id)
    foreign = [
        pb.HeldLease(lease_token=lease.lease_token, progress='"stolen"') for lease in (old, new)
    ]
    own = pb.HeldLease(lease_token=mine.lease_token, progress='"mine"')
    answer = await heartbeat(job_stub, session_id, 1, [*foreign, own])
    assert verdicts(answer) == [LOST, LOST, HELD]
    assert (await get(job_stub, new.job.id)).progress == ""
    assert (await get(job_stub, mine.job.id)).progress == '"mine"'


async def test_a_heartbeat_with_one_bad_field_does_nothing(
    job_stub: JobStub, database: Database, emails: str
) -> None:
    await create(job_stub)
    session_id = str(uuid4())
    token = (await acquire_one(job_stub, session_id)).lease_token
    good = pb.HeldLease(lease_token=token, progress="1")
    async with unchanged(database.hot):
        await expect_error(
            heartbeat(job_stub, session_id, 1, [good, "no token"]),
            StatusCode.INVALID_ARGUMENT,
            "INVALID_LEASE_TOKEN",
        )
        bad = pb.HeldLease(lease_token=token, progress="{")
        refusal = await expect_error(
            heartbeat(job_stub, session_id, 1, [good, bad]),
            StatusCode.INVALID_ARGUMENT,
            "INVALID_JSON",
        )
        assert refusal.metadata == {"field": "held[1].progress"}
