"""A replica's mirror of its sessions follows the lease rows, whatever it was not told."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from asyncpg import Record
from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases
from tests.support.leases import insert_session, lease
from tests.support.rows import insert_jobs, insert_queue

from job_service import reconciling
from job_service.demanding import Demand
from job_service.queries import (
    list_held_leases,
    read_session,
    request_cancel,
    update_session,
)
from job_service.reconciling import apply, reading
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ending import LeaseKey, end_leases
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import Executor
from taskforge_core.retrying import Released
from taskforge_core.tokens import encode_token


async def holding(use: JobUseCases, count: int) -> tuple[Demand, list[LeaseKey]]:
    """A call that holds so many jobs, and their leases."""
    queue_id = await insert_queue(use.database.hot, "q")
    await insert_jobs(use.database.hot, queue_id, priorities=[0] * count)
    call = demand(max_in_flight=count)
    await use.open(call)
    await use.group(call).run_once()
    keys = [(str(leased.id), leased.lease_seq) for leased in use.deliver(call)]
    assert len(keys) == count
    return call, keys


async def end(database: Database, key: LeaseKey) -> None:
    """As another replica does, whose notification is lost."""
    async with database.hot.acquire() as connection, connection.transaction():
        assert await end_leases(connection, DEFAULT_PROJECT_ID, {key: Released()}, answered=True)


async def test_a_lease_that_ended_elsewhere_is_lost_and_its_slot_free(
    replica: JobUseCases, database: Database
) -> None:
    call, keys = await holding(replica, 3)
    token = call.tokens[keys[1][1]]
    await end(database, keys[1])
    await replica.reconciler.reconcile(call)
    assert call.held.keys() == {keys[0][1], keys[2][1]}
    assert call.lost == {token}
    assert call.credit == 1


async def test_a_call_that_takes_over_counts_what_its_session_holds(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    older, keys = await holding(replica, 3)
    newer = demand(session_id=older.session_id, max_in_flight=5)
    await second_replica.open(newer)
    await second_replica.reconciler.reconcile(newer)
    assert newer.held.keys() == {seq for _, seq in keys}
    assert newer.tokens == older.tokens
    assert newer.credit == 2
    await replica.reconciler.reconcile(older)
    assert older.is_replaced
    assert older.credit == 0


async def test_a_requested_cancellation_is_found_and_told_once(
    replica: JobUseCases, database: Database
) -> None:
    call, keys = await holding(replica, 2)
    await request_cancel(database.hot, DEFAULT_PROJECT_ID, UUID(keys[0][0]))
    await replica.reconciler.reconcile_session(call.session_id)
    assert call.cancelled == {call.tokens[keys[0][1]]}
    call.cancelled = set()
    await replica.reconciler.reconcile_all()
    assert call.cancelled == set()


async def test_a_lease_dropped_while_the_rows_are_read_is_not_counted_again(
    replica: JobUseCases, database: Database
) -> None:
    """The settle commits after the rows were read and is told before they are used."""
    call, keys = await holding(replica, 3)
    with reading(call) as before:
        rows = await list_held_leases(database.hot, DEFAULT_PROJECT_ID, [call.session_id])
        settlement = pb.Settlement(lease_token=call.tokens[keys[0][1]], release=pb.Release())
        await replica.settler.settle(settlement)
        assert len(rows) == 3
        apply(before, rows)
    assert call.held.keys() == {keys[1][1], keys[2][1]}
    assert call.credit == 1


async def test_a_lease_that_is_being_settled_here_is_not_lost(
    replica: JobUseCases, database: Database
) -> None:
    """The rows are read after the settle has committed and before it is told."""
    call, keys = await holding(replica, 2)
    with replica.dispatcher.settling({keys[0][1]}):
        await end(database, keys[0])
        await replica.reconciler.reconcile(call)
        await replica.beat(call, 1, list(call.tokens.values()))
        assert len(call.held) == 2
    assert call.lost == set()
    # The settle failed after all, and nobody told: the next reading finds it.
    token = call.tokens[keys[0][1]]
    await replica.reconciler.reconcile(call)
    assert call.lost == {token}


async def test_a_settle_that_finds_no_lease_frees_its_slot(
    replica: JobUseCases, database: Database
) -> None:
    call, keys = await holding(replica, 3)
    await end(database, keys[0])
    # Made up: the number is that of another job's lease, which is held.
    made_up = encode_token(call.token_head, keys[2][0], keys[1][1])
    for token in (call.tokens[keys[0][1]], made_up):
        request = pb.BatchSettleJobsRequest(
            settlements=[pb.Settlement(lease_token=token, release=pb.Release())]
        )
        await replica.settler.settle_batch(request)
    assert call.held.keys() == {keys[1][1], keys[2][1]}
    assert call.lost == set()


async def test_a_lease_claimed_while_the_rows_are_read_is_not_lost(
    replica: JobUseCases, database: Database
) -> None:
    call, keys = await holding(replica, 2)
    await replica.allow(call, 3)
    queue_id = await insert_queue(database.hot, "more")
    await insert_jobs(database.hot, queue_id)
    with reading(call) as before:
        rows = await list_held_leases(database.hot, DEFAULT_PROJECT_ID, [call.session_id])
        await replica.group(call).run_once()
        apply(before, rows)
    assert len(call.held) == 3
    assert call.lost == set()
    assert call.credit == 0
    assert len(keys) == 2


async def test_claims_settles_and_readings_at_once_leave_the_mirror_equal_to_the_rows(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    await insert_jobs(database.hot, queue_id, priorities=[0] * 200)
    call = demand(max_in_flight=10)
    await replica.open(call)
    group = replica.group(call)
    settled = 0
    stop = asyncio.Event()

    async def work() -> None:
        nonlocal settled
        while settled < 200:
            await group.run_once()
            leases, call.outbox = call.outbox, []
            await asyncio.gather(
                *(
                    replica.settler.settle(
                        pb.Settlement(lease_token=leased.message.lease_token, success=pb.Success())
                    )
                    for leased in leases
                )
            )
            settled += len(leases)
        stop.set()

    async def read() -> None:
        while not stop.is_set():
            await replica.reconciler.reconcile(call)
            assert len(call.held) <= 10

    async def beat() -> None:
        sequence = 0
        while not stop.is_set():
            sequence += 1
            await replica.beat(call, sequence, list(call.tokens.values()))

    await asyncio.gather(work(), read(), read(), beat())
    assert (call.held, call.held_bytes, call.tokens, call.dropped) == ({}, 0, {}, [])
    assert call.credit == 10
    # Nothing that the worker settled itself was called lost.
    assert call.lost == set()


async def test_a_reading_that_is_overtaken_by_a_newer_one_is_read_again(
    replica: JobUseCases, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would write what the session might hold before over what it may hold now."""
    call, _ = await holding(replica, 1)
    readings = 0

    async def overtaken(executor: Executor, project_id: UUID, session_id: UUID) -> Record | None:
        nonlocal readings
        readings += 1
        row = await read_session(executor, project_id, session_id)
        if readings == 1:
            # The row has been read; before that is used, the terms change and are read as well.
            await update_session(database.hot, project_id, session_id, 7, True)
            await replica.reconciler.reconcile(call)
            await update_session(database.hot, project_id, session_id, 8, None)
        return row

    monkeypatch.setattr(reconciling, "read_session", overtaken)
    await replica.reconciler.reconcile(call)
    assert (call.max_in_flight, call.takes_jobs, readings) == (8, False, 3)


async def test_sessions_of_others_do_not_matter(replica: JobUseCases, database: Database) -> None:
    call, keys = await holding(replica, 1)
    queue_id = await insert_queue(database.hot, "other")
    job_ids = await insert_jobs(database.hot, queue_id)
    await lease(
        database.hot,
        job_ids,
        await insert_session(database.hot, expires_in=timedelta(seconds=30)),
    )
    await replica.reconciler.reconcile_all()
    assert call.held.keys() == {keys[0][1]}
