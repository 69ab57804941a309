"""Heartbeats: what they renew, judge and tell, whatever happens at the same moment."""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from asyncpg import Record
from tests.support.demands import demand
from tests.support.hold_ups import held_up_behind
from tests.support.job_use_cases import JobUseCases
from tests.support.leases import miscounts, statuses
from tests.support.rows import insert_jobs, insert_project
from tests.support.snapshots import unchanged
from tests.support.waiting import until_blocked
from tests.support.workers import ripen, worker

from job_service import heartbeating
from job_service.demanding import Demand
from job_service.queries import (
    lock_beating_sessions,
    request_cancel,
    update_session,
)
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ending import end_leases
from taskforge_core.errors import Unavailable
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import Executor
from taskforge_core.retrying import LeaseExpired
from taskforge_core.statuses import JobStatus
from taskforge_core.tokens import NO_STREAM, encode_token, token_head

HELD = pb.LeaseVerdict.VERDICT_HELD
CANCEL_REQUESTED = pb.LeaseVerdict.VERDICT_CANCEL_REQUESTED
LOST = pb.LeaseVerdict.VERDICT_LOST


async def expiry(database: Database, call: Demand) -> datetime:
    found: datetime = await database.hot.fetchval(
        "SELECT expires_at FROM taskforge.sessions WHERE session_id = $1", call.session_id
    )
    return found


async def test_a_heartbeat_renews_everything_that_the_session_holds_and_says_until_when(
    replica: JobUseCases, database: Database
) -> None:
    own = await worker(replica, 3)
    before = await expiry(database, own.call)
    answer = await replica.beat(own.call, 1, own.tokens)
    assert [verdict.verdict for verdict in answer.verdicts] == [HELD] * 3
    after = await expiry(database, own.call)
    assert after > before
    assert answer.expires_at.ToDatetime(tzinfo=UTC) == after


async def test_a_sequence_that_is_not_greater_changes_nothing_but_gets_verdicts(
    replica: JobUseCases, database: Database
) -> None:
    own = await worker(replica, 2)
    await own.beat(5, *own.tokens)
    await ripen(database, own)
    progress = pb.HeldLease(lease_token=own.tokens[0], progress="0.5")
    for sequence in (5, 4, 1):
        async with unchanged(database.hot):
            # Were it taken, it would renew, store the progress and note what is left out.
            answer = await replica.beat(own.call, sequence, [progress])
            assert [verdict.verdict for verdict in answer.verdicts] == [HELD]
            answer = await replica.beat(own.call, sequence, ["0" * 40 + str(uuid4()) + "1"])
            assert [verdict.verdict for verdict in answer.verdicts] == [LOST]
            assert answer.expires_at.ToDatetime(tzinfo=UTC) == await expiry(database, own.call)
    assert await own.beat(6, *own.tokens) == [HELD, HELD]


async def test_a_heartbeat_tells_the_call_its_sessions_terms(
    replica: JobUseCases, database: Database
) -> None:
    """Whose change reached another replica, and its notification nobody."""
    own = await worker(replica, 2)
    await update_session(database.hot, DEFAULT_PROJECT_ID, own.call.session_id, 5, None)
    await own.beat(1, *own.tokens)
    assert own.call.credit == 3
    await update_session(database.hot, DEFAULT_PROJECT_ID, own.call.session_id, None, True)
    await own.beat(2, *own.tokens)
    assert own.call.credit == 0
    assert not own.call.takes_jobs


async def test_a_lost_lease_is_named_by_the_token_that_its_worker_knows(
    replica: JobUseCases, database: Database
) -> None:
    """It came by AcquireJobs, before the session opened its stream."""
    own = await worker(replica, 2)
    acquired = [
        encode_token(token_head(DEFAULT_PROJECT_ID, NO_STREAM), *own.key(place)) for place in (0, 1)
    ]
    await own.beat(1, *acquired)
    async with database.hot.acquire() as other, other.transaction():
        await end_leases(other, DEFAULT_PROJECT_ID, {own.key(0): LeaseExpired()}, answered=False)
    settlement = pb.Settlement(lease_token=acquired[1], success=pb.Success())
    await replica.settler.settle(settlement)
    await replica.reconciler.reconcile(own.call)
    assert own.call.lost == {acquired[0]}
    assert own.call.credit == 2


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when a heartbeat has looked at its session's row, locked or not."""
    event = asyncio.Event()
    lock = lock_beating_sessions

    async def observed(
        executor: Executor, project_id: UUID, session_ids: Sequence[UUID]
    ) -> list[Record]:
        rows = await lock(executor, project_id, session_ids)
        event.set()
        return rows

    monkeypatch.setattr(heartbeating, "lock_beating_sessions", observed)
    return event


async def test_verdicts_are_read_behind_the_sessions_lock(
    replica: JobUseCases, database: Database, looked: asyncio.Event
) -> None:
    """A rescue that holds the session first is seen, though the heartbeat had come before."""
    own = await worker(replica, 2)
    async with database.hot.acquire() as rescuing, rescuing.transaction():
        await rescuing.execute("UPDATE taskforge.sessions SET must_heartbeat = true")
        beating = asyncio.create_task(own.beat(1, *own.tokens))
        await looked.wait()
        await end_leases(rescuing, DEFAULT_PROJECT_ID, {own.key(0): LeaseExpired()}, answered=False)
        assert not beating.done()
    assert await beating == [LOST, HELD]
    # And so the mirror follows: the slot of the lost one is free, and the worker is told.
    assert own.call.credit == 1
    assert own.call.lost == {own.tokens[0]}


async def test_a_claim_that_commits_first_is_judged_by_the_heartbeat_behind_it(
    replica: JobUseCases, database: Database, looked: asyncio.Event
) -> None:
    """And not lost: its lease is not listed, since nobody could know of it."""
    own = await worker(replica, 1)
    await replica.allow(own.call, 2)
    [more] = await insert_jobs(database.hot, next(iter(own.call.subscription.queue_ids or ())))
    # A claim comes to count its jobs when it has locked the session.
    async with held_up_behind(database.hot, "INSERT ON taskforge.queue_deltas") as holding:
        claiming = asyncio.create_task(replica.group(own.call).run_once())
        await until_blocked(database.hot, holding.get_server_pid())
        beating = asyncio.create_task(own.beat(1, *own.tokens))
        await looked.wait()
        assert not beating.done()
    assert await beating == [HELD]
    await claiming
    assert len(own.call.held) == 2
    assert own.call.lost == set()
    assert await statuses(database.hot, [*own.jobs, more]) == [JobStatus.PROCESSING] * 2


async def test_a_locked_session_holds_up_nobody_elses_heartbeat(
    replica: JobUseCases, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is answered in bounded time all the same."""
    monkeypatch.setattr(heartbeating, "BUSY_SESSION_SECONDS", 0.001)
    locked = await worker(replica, 1)
    others = [await worker(replica, 1) for _ in range(5)]
    before = await expiry(database, locked.call)
    async with database.hot.acquire() as holding, holding.transaction():
        await holding.execute(
            "SELECT FROM taskforge.sessions WHERE session_id = $1 FOR UPDATE",
            locked.call.session_id,
        )
        # Two batches are on their way; the locked one is in the next, with others.
        beats = [asyncio.create_task(each.beat(1, *each.tokens)) for each in others[:2]]
        waiting = asyncio.create_task(locked.beat(1, *locked.tokens))
        beats += [asyncio.create_task(each.beat(1, *each.tokens)) for each in others[2:]]
        assert await asyncio.gather(*beats) == [[HELD]] * 5
        assert not waiting.done()
        [first] = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(first, Unavailable)
        assert first.retry_after is not None
    assert await expiry(database, locked.call) == before
    assert await locked.beat(1, *locked.tokens) == [HELD]


async def test_a_heartbeat_that_found_its_session_locked_is_taken_when_it_is_free(
    replica: JobUseCases, database: Database, looked: asyncio.Event
) -> None:
    own = await worker(replica, 1)
    before = await expiry(database, own.call)
    async with database.hot.acquire() as holding, holding.transaction():
        await holding.execute("SELECT FROM taskforge.sessions FOR UPDATE")
        beating = asyncio.create_task(own.beat(1, *own.tokens))
        await looked.wait()
    assert await beating == [HELD]
    assert await expiry(database, own.call) > before


async def test_the_worker_learns_of_a_requested_cancellation_in_every_heartbeat(
    replica: JobUseCases, database: Database
) -> None:
    own = await worker(replica, 2)
    await request_cancel(database.hot, DEFAULT_PROJECT_ID, own.jobs[0])
    for sequence in (1, 2):
        assert await own.beat(sequence, *own.tokens) == [CANCEL_REQUESTED, HELD]
    # On the stream it is told once.
    assert own.call.cancelled == {own.tokens[0]}


async def test_only_what_the_session_holds_itself_is_held(
    replica: JobUseCases, database: Database
) -> None:
    """Not another session's, not another project's, not a token put together of two."""
    own = await worker(replica, 1)
    neighbour = await worker(replica, 1)
    foreign = await worker(replica, 1, project_id=await insert_project(database.hot))
    forged = own.tokens[0][:76] + neighbour.tokens[0][76:]
    listed = [neighbour.tokens[0], foreign.tokens[0], forged, own.tokens[0]]
    reports = [pb.HeldLease(lease_token=token, progress='"stolen"') for token in listed]
    answer = await replica.beat(own.call, 1, reports)
    assert [verdict.verdict for verdict in answer.verdicts] == [LOST, LOST, LOST, HELD]
    rows = await database.hot.fetch("SELECT id FROM taskforge.jobs WHERE progress IS NOT NULL")
    assert [row["id"] for row in rows] == own.jobs


async def test_an_unknown_session_gets_verdicts_and_is_to_reconnect(
    replica: JobUseCases, database: Database
) -> None:
    own = await worker(replica, 1)
    async with unchanged(database.hot):
        answer = await replica.beat(demand(), 1, own.tokens)
    assert [verdict.verdict for verdict in answer.verdicts] == [LOST]
    assert answer.reconnect
    assert not answer.HasField("expires_at")


async def test_heartbeats_of_one_session_in_one_batch_are_judged_one_after_the_other(
    replica: JobUseCases, database: Database
) -> None:
    """Two omissions that come together are two all the same."""
    own = await worker(replica, 1)
    neighbours = [await worker(replica, 1) for _ in range(2)]
    await ripen(database, own)
    async with database.hot.acquire() as holding, holding.transaction():
        await holding.execute(
            "SELECT FROM taskforge.jobs WHERE id = ANY($1::uuid[]) FOR UPDATE",
            [job_id for each in neighbours for job_id in each.jobs],
        )
        # Two batches are in flight and wait; what comes now rides together in the next.
        first: list[Awaitable[object]] = []
        for place, each in enumerate(neighbours, start=1):
            report = pb.HeldLease(lease_token=each.tokens[0], progress="1")
            first.append(asyncio.create_task(replica.beat(each.call, 1, [report])))
            await until_blocked(database.hot, holding.get_server_pid(), place)
        both = [asyncio.create_task(own.beat(sequence)) for sequence in (1, 2)]
        again = asyncio.create_task(own.beat(3, *own.tokens))
    await asyncio.gather(*first, *both)
    assert await again == [LOST]
    assert await statuses(database.hot, own.jobs) == [JobStatus.PENDING]


async def test_a_heartbeat_and_a_settle_of_the_same_jobs_never_block_each_other_for_good(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    own = await worker(replica, 40)
    reports = [pb.HeldLease(lease_token=token, progress="1") for token in own.tokens]
    settlements = [
        pb.Settlement(lease_token=token, release=pb.Release()) for token in reversed(own.tokens)
    ]
    for sequence in range(1, 4):
        _, answer = await asyncio.gather(
            replica.beat(own.call, sequence, reports),
            second_replica.settler.settle_batch(pb.BatchSettleJobsRequest(settlements=settlements)),
        )
        assert all(result.status == job_pb2.JOB_STATUS_PENDING for result in answer.results)
    assert await miscounts(database.hot) == []


async def test_a_lease_settled_while_a_heartbeat_reads_is_not_counted_again(
    replica: JobUseCases, database: Database
) -> None:
    own = await worker(replica, 3)
    for turn in range(1, 31):
        lease_seq, token = own.key(0)[1], own.tokens[0]
        _, ended = await asyncio.gather(
            replica.beat(own.call, turn, own.tokens),
            replica.settler.settle(pb.Settlement(lease_token=token, release=pb.Release())),
        )
        assert ended == job_pb2.JOB_STATUS_PENDING
        assert lease_seq not in own.call.held
        assert len(own.call.held) == 2
        own.call.outbox.clear()
        await replica.group(own.call).run_once()
        [again] = own.call.outbox
        own.tokens = [*own.tokens[1:], again.message.lease_token]
        own.jobs = [*own.jobs[1:], again.id]
        assert len(own.call.held) == 3
    assert await miscounts(database.hot) == []
    assert own.call.lost == set()


async def test_the_first_heartbeat_after_a_rescue_lets_the_session_take_jobs_again(
    replica: JobUseCases, database: Database
) -> None:
    own = await worker(replica, 1)
    async with database.hot.acquire() as rescuing, rescuing.transaction():
        await rescuing.execute("UPDATE taskforge.sessions SET must_heartbeat = true")
        await end_leases(rescuing, DEFAULT_PROJECT_ID, {own.key(0): LeaseExpired()}, answered=False)
    own.call.outbox.clear()
    await replica.reconciler.reconcile(own.call)
    await replica.group(own.call).run_once()
    assert own.call.outbox == []
    assert not own.call.may_take
    assert await own.beat(1, *own.tokens) == [LOST]
    await replica.group(own.call).run_once()
    assert [leased.id for leased in own.call.outbox] == own.jobs
    assert timedelta(0) < await expiry(database, own.call) - datetime.now(UTC)
