"""Leases that heartbeats leave out: when they are taken back, and when they may be under way."""

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from asyncpg import Record
from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases
from tests.support.leases import miscounts, statuses
from tests.support.rows import insert_jobs, insert_queue
from tests.support.workers import Worker, ripen, worker

from job_service import heartbeating
from job_service.arriving import SLOWEST_BYTES_PER_SECOND, Arrivals
from job_service.heartbeating import Beat
from job_service.queries import (
    renew_server,
)
from job_service.reviewing import MAX_UNSENT_TIME
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.queries import Executor, lock_leases
from taskforge_core.statuses import AttemptOutcome, JobStatus

HELD = pb.LeaseVerdict.VERDICT_HELD
LOST = pb.LeaseVerdict.VERDICT_LOST


async def test_a_lease_never_listed_and_left_out_twice_goes_back_without_using_an_attempt(
    replica: JobUseCases, database: Database
) -> None:
    own = await worker(replica, 2)
    await own.beat(1, own.tokens[0])
    await ripen(database, own)
    await own.beat(2, own.tokens[0])
    assert await statuses(database.hot, own.jobs) == [JobStatus.PROCESSING] * 2
    await own.beat(3, own.tokens[0])
    assert await statuses(database.hot, own.jobs) == [JobStatus.PROCESSING, JobStatus.PENDING]
    row = await database.hot.fetchrow(
        "SELECT attempt_count, undelivered_count, attempts FROM taskforge.jobs WHERE id = $1",
        own.jobs[1],
    )
    assert row is not None
    assert tuple(row) == (0, 1, "[]")
    # Its slot is free again.
    assert own.call.credit == 1
    assert await own.beat(4, *own.tokens) == [HELD, LOST]
    assert await miscounts(database.hot) == []


async def test_a_lease_once_listed_and_then_left_out_twice_ends_as_expired(
    replica: JobUseCases, database: Database
) -> None:
    own = await worker(replica, 2)
    await own.beat(1, *own.tokens)
    await ripen(database, own)
    await own.beat(2, own.tokens[0])
    await own.beat(3, own.tokens[0])
    assert await statuses(database.hot, own.jobs) == [JobStatus.PROCESSING, JobStatus.PENDING]
    row = await database.hot.fetchrow(
        "SELECT attempt_count, (attempts->0->>'outcome')::int FROM taskforge.jobs WHERE id = $1",
        own.jobs[1],
    )
    assert row is not None
    assert tuple(row) == (1, AttemptOutcome.LEASE_EXPIRED)
    assert own.call.credit == 1
    assert await miscounts(database.hot) == []


async def test_a_lease_that_this_replica_has_still_to_send_is_not_missed(
    replica: JobUseCases, database: Database
) -> None:
    """However long a slow link keeps it here: its worker cannot know of it."""
    queue_id = await insert_queue(database.hot, "q")
    jobs = await insert_jobs(database.hot, queue_id, priorities=[0] * 2)
    call = demand(max_in_flight=2)
    await replica.open(call)
    await replica.group(call).run_once()
    writing = call.take(1)
    own = Worker(replica, call, [each.message.lease_token for each in writing + call.outbox], jobs)
    await ripen(database, own)
    for sequence in (1, 2, 3):
        await own.beat(sequence)
    assert await statuses(database.hot, jobs) == [JobStatus.PROCESSING] * 2
    assert call.credit == 0
    # Nor is it when it has just been sent.
    call.sent(writing)
    replica.deliver(call)
    for sequence in (4, 5):
        await own.beat(sequence, own.tokens[1])
    assert await statuses(database.hot, jobs) == [JobStatus.PROCESSING] * 2
    await ripen(database, own)
    for sequence in (6, 7):
        await own.beat(sequence, own.tokens[1])
    assert await statuses(database.hot, jobs) == [JobStatus.PENDING, JobStatus.PROCESSING]


async def test_a_lease_that_may_still_be_in_the_buffers_of_a_slow_link_is_not_missed(
    replica: JobUseCases, database: Database
) -> None:
    """Behind megabytes that its worker has not listed either."""
    own = await worker(replica, 3)
    arrivals = own.call.arrivals = Arrivals()
    now = time.monotonic()
    for lease_seq in own.call.held:
        # Each takes ten seconds at the slowest.
        arrivals.sent(lease_seq, 10 * SLOWEST_BYTES_PER_SECOND, now - 22)
    await ripen(database)
    await ripen(database)
    for sequence in (1, 2):
        await own.beat(sequence)
    expected = [JobStatus.PENDING, JobStatus.PROCESSING, JobStatus.PROCESSING]
    assert await statuses(database.hot, own.jobs) == expected


async def test_a_lease_that_another_replica_may_have_still_to_send_is_missed_later(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    own = await worker(replica, 1)
    await renew_server(database.hot, replica.server_id, timedelta(minutes=5), "first")
    await ripen(database, own)
    for sequence in (1, 2):
        await second_replica.beat(own.call, sequence)
    assert await statuses(database.hot, own.jobs) == [JobStatus.PROCESSING]
    await database.hot.execute(
        "UPDATE taskforge.jobs SET started_at = started_at - $1::interval", MAX_UNSENT_TIME
    )
    for sequence in (3, 4):
        await second_replica.beat(own.call, sequence)
    assert await statuses(database.hot, own.jobs) == [JobStatus.PENDING]


async def test_a_heartbeat_that_had_to_wait_is_judged_by_when_it_came(
    replica: JobUseCases, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then no list could hold the lease."""
    own = await worker(replica, 1)
    await ripen(database, own)
    early = partial(Beat, received_at=time.monotonic() - 5)
    monkeypatch.setattr(heartbeating, "Beat", early)
    for sequence in (1, 2):
        await own.beat(sequence)
    assert await statuses(database.hot, own.jobs) == [JobStatus.PROCESSING]
    monkeypatch.undo()
    for sequence in (3, 4):
        await own.beat(sequence)
    assert await statuses(database.hot, own.jobs) == [JobStatus.PENDING]


async def test_progress_and_omissions_lock_jobs_in_one_order(
    replica: JobUseCases, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ascending, so that no batch of settles can meet it halfway."""
    own = await worker(replica, 3)
    await own.beat(1, own.tokens[1])
    await ripen(database, own)
    await own.beat(2, own.tokens[1])
    locked: list[str] = []

    async def observed(
        executor: Executor, project_id: UUID, ids: Sequence[str], lease_seqs: Sequence[int]
    ) -> list[Record]:
        locked.extend(ids)
        return await lock_leases(executor, project_id, ids, lease_seqs)

    monkeypatch.setattr(heartbeating, "lock_leases", observed)
    report = pb.HeldLease(lease_token=own.tokens[1], progress="1")
    await replica.beat(own.call, 3, [report])
    assert locked == [str(job_id) for job_id in own.jobs]
    expected = [JobStatus.PENDING, JobStatus.PROCESSING, JobStatus.PENDING]
    assert await statuses(database.hot, own.jobs) == expected
    assert await miscounts(database.hot) == []


async def test_omissions_count_only_in_succession_and_only_of_ripe_leases(
    replica: JobUseCases, database: Database
) -> None:
    own = await worker(replica, 1)
    for sequence in range(1, 5):
        await own.beat(sequence)
    await ripen(database, own)
    await own.beat(5)
    assert await own.beat(6, *own.tokens) == [HELD]
    await own.beat(7)
    assert await own.beat(8, *own.tokens) == [HELD]
    # An old heartbeat that comes late is none in between.
    await own.beat(9)
    await own.beat(7, *own.tokens)
    await own.beat(10)
    assert await own.beat(11, *own.tokens) == [LOST]
