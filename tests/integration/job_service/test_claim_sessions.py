"""claim_jobs: which sessions a claim may lease jobs to, and since when their clock runs.

And how heartbeats lock the same rows (lock_beating_sessions).
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.session_rows import (
    LEASE_DURATION,
    MAX_IN_FLIGHT,
    change,
    current_call,
    hold_job,
    opened,
    renew,
    session,
    standings,
)
from tests.support.waiting import until_blocked

from job_service.queries import (
    Seat,
    SessionTerms,
    Standing,
    claim_jobs,
    lock_beating_sessions,
    update_session,
)
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import Executor


async def lock_any(executor: Executor, session_id: UUID, call_id: UUID | None) -> list[Standing]:
    """As `lock_one`, but none if another transaction has the session."""
    return await standings(executor, [(session_id, call_id)])


async def lock_one(executor: Executor, session_id: UUID, call_id: UUID | None) -> Standing:
    [row] = await standings(executor, [(session_id, call_id)])
    return row


async def test_a_new_session_may_take_jobs_and_its_clock_starts_with_the_claim(
    database: Database,
) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    assert (await session(database, session_id))["expires_at"] is None
    row = await lock_one(database.hot, session_id, call_id)
    assert row.is_current
    assert row.may_take
    after = await session(database, session_id)
    assert row.expires_at == round(after["expires_at"].timestamp() * 1_000_000)
    assert LEASE_DURATION - timedelta(seconds=5) < after["expires_at"] - after["now"]
    assert after["expires_at"] - after["now"] <= LEASE_DURATION


@pytest.mark.parametrize("expired", [False, True])
async def test_the_clock_of_a_session_that_holds_nothing_starts_anew(
    database: Database, expired: bool
) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    offset = timedelta(seconds=-5 if expired else 5)
    await change(database, session_id, "expires_at = clock_timestamp() + $2::interval", offset)
    before = await session(database, session_id)
    row = await lock_one(database.hot, session_id, call_id)
    assert row.may_take
    after = await session(database, session_id)
    assert after["expires_at"] > before["expires_at"] + timedelta(seconds=20)
    assert row.expires_at == round(after["expires_at"].timestamp() * 1_000_000)


async def test_the_clock_of_a_session_that_holds_a_lease_goes_on(database: Database) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    await hold_job(database, session_id)
    await change(database, session_id, "expires_at = clock_timestamp() + interval '9 s'")
    before = await session(database, session_id)
    row = await lock_one(database.hot, session_id, call_id)
    assert row.may_take
    after = await session(database, session_id)
    assert after["expires_at"] == before["expires_at"]
    assert row.expires_at == round(before["expires_at"].timestamp() * 1_000_000)


async def test_a_session_whose_leases_have_expired_may_take_nothing(database: Database) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    await hold_job(database, session_id)
    await change(database, session_id, "expires_at = clock_timestamp() - interval '1 ms'")
    before = await session(database, session_id)
    row = await lock_one(database.hot, session_id, call_id)
    assert (row.is_current, row.may_take) == (True, False)
    assert (await session(database, session_id))["expires_at"] == before["expires_at"]


async def test_a_rescued_session_may_take_nothing_until_it_has_spoken(database: Database) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    await change(database, session_id, "must_heartbeat = true, expires_at = clock_timestamp()")
    row = await lock_one(database.hot, session_id, call_id)
    assert (row.is_current, row.may_take) == (True, False)
    await renew(database.hot, session_id, 1)
    assert (await lock_one(database.hot, session_id, call_id)).may_take


async def test_a_call_that_was_replaced_may_take_nothing_and_starts_no_clock(
    database: Database,
) -> None:
    session_id = uuid4()
    older = await opened(database.hot, session_id)
    newer = await opened(database.hot, session_id)
    row = await lock_one(database.hot, session_id, older)
    assert (row.is_current, row.may_take) == (False, False)
    assert (await session(database, session_id))["expires_at"] is None
    assert (await lock_one(database.hot, session_id, newer)).may_take


async def test_an_unknown_session_has_no_row(database: Database) -> None:
    assert await standings(database.hot, [(uuid4(), uuid4())]) == []


async def test_the_same_session_id_in_another_project_is_another_session(
    database: Database,
) -> None:
    other = await insert_project(database.hot)
    session_id = uuid4()
    own_call = await opened(database.hot, session_id)
    other_call = await opened(database.hot, session_id, project_id=other)
    assert own_call is not None
    assert other_call is not None
    [row] = await standings(database.hot, [(session_id, own_call)], project_id=other)
    assert not row.is_current
    assert (await lock_one(database.hot, session_id, own_call)).is_current
    assert await current_call(database.hot, session_id, other) == other_call


async def test_several_sessions_are_judged_each_by_itself(database: Database) -> None:
    fresh, expired, rescued, replaced = sessions = [uuid4() for _ in range(4)]
    calls = [await opened(database.hot, each) for each in sessions]
    await hold_job(database, expired)
    await change(database, expired, "expires_at = clock_timestamp() - interval '1 s'")
    await change(database, rescued, "must_heartbeat = true")
    await opened(database.hot, replaced)
    rows = await standings(database.hot, list(zip(sessions, calls, strict=True)))
    assert len(rows) == len(sessions)
    assert {row.session_id: (row.is_current, row.may_take) for row in rows} == {
        fresh: (True, True),
        expired: (True, False),
        rescued: (True, False),
        replaced: (False, False),
    }


async def test_a_replacement_waits_for_the_claim_and_no_claim_after_it_serves_the_older_call(
    database: Database,
) -> None:
    session_id = uuid4()
    older = await opened(database.hot, session_id)
    async with database.hot.acquire() as claiming, claiming.transaction():
        assert (await lock_one(claiming, session_id, older)).may_take
        replacing = asyncio.create_task(opened(database.hot, session_id))
        await until_blocked(database.hot, claiming.get_server_pid())
    assert await replacing is not None
    assert not (await lock_one(database.hot, session_id, older)).is_current


async def test_a_claim_passes_over_a_session_that_is_being_replaced_and_then_sees_it(
    database: Database,
) -> None:
    session_id = uuid4()
    older = await opened(database.hot, session_id)
    async with database.hot.acquire() as replacing, replacing.transaction():
        await opened(replacing, session_id)
        assert await lock_any(database.hot, session_id, older) == []
    row = await lock_one(database.hot, session_id, older)
    assert (row.is_current, row.may_take) == (False, False)


async def test_a_claim_passes_over_a_session_that_is_being_rescued_and_then_sees_it(
    database: Database,
) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    async with database.hot.acquire() as rescuing, rescuing.transaction():
        await rescuing.execute("UPDATE taskforge.sessions SET must_heartbeat = true")
        assert await lock_any(database.hot, session_id, call_id) == []
    assert not (await lock_one(database.hot, session_id, call_id)).may_take


async def test_a_claim_passes_over_a_session_that_beats_and_then_has_its_expiry(
    database: Database,
) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    await hold_job(database, session_id)
    await change(database, session_id, "expires_at = clock_timestamp() - interval '1 s'")
    async with database.hot.acquire() as beating, beating.transaction():
        await lock_beating_sessions(beating, DEFAULT_PROJECT_ID, [session_id])
        await renew(beating, session_id, 1)
        assert await lock_any(database.hot, session_id, call_id) == []
    row = await lock_one(database.hot, session_id, call_id)
    assert row.may_take
    assert row.expires_at == round(
        (await session(database, session_id))["expires_at"].timestamp() * 1_000_000
    )


async def test_a_locked_session_does_not_keep_a_claim_from_the_others(database: Database) -> None:
    locked, free = uuid4(), uuid4()
    calls = [await opened(database.hot, each) for each in (locked, free)]
    async with database.hot.acquire() as beating, beating.transaction():
        await lock_beating_sessions(beating, DEFAULT_PROJECT_ID, [locked])
        [row] = await standings(database.hot, list(zip((locked, free), calls, strict=True)))
        assert (row.session_id, row.may_take) == (free, True)


async def test_a_draining_session_may_take_nothing_and_starts_no_clock(database: Database) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    assert await update_session(database.hot, DEFAULT_PROJECT_ID, session_id, None, True)
    row = await lock_one(database.hot, session_id, call_id)
    assert (row.is_current, row.may_take) == (True, False)
    assert (await session(database, session_id))["expires_at"] is None
    assert await update_session(database.hot, DEFAULT_PROJECT_ID, session_id, None, False)
    assert (await lock_one(database.hot, session_id, call_id)).may_take


@pytest.mark.parametrize("draining", [False, True])
@pytest.mark.parametrize("holds", [False, True])
async def test_a_claim_learns_what_the_session_may_hold_by_now(
    database: Database, draining: bool, holds: bool
) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    if holds:
        await hold_job(database, session_id)
        await renew(database.hot, session_id, 1)
    assert await update_session(database.hot, DEFAULT_PROJECT_ID, session_id, 3, draining)
    row = await lock_one(database.hot, session_id, call_id)
    assert (row.max_in_flight, row.draining) == (3, draining)
    assert row.may_take is not draining


async def test_a_claim_is_told_that_it_was_dealt_by_other_terms(database: Database) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    for max_in_flight, is_as_dealt in ((MAX_IN_FLIGHT, True), (MAX_IN_FLIGHT + 1, False)):
        [row] = await standings(database.hot, [(session_id, call_id)], max_in_flight=max_in_flight)
        assert (row.may_take, row.is_as_dealt) == (True, is_as_dealt)
        assert row.is_admitted is is_as_dealt


async def test_nothing_is_leased_unless_every_session_may_take_what_it_was_dealt(
    database: Database,
) -> None:
    """Else the others would get what ranks behind the jobs that fell to it."""
    first, second = uuid4(), uuid4()
    calls = [await opened(database.hot, each) for each in (first, second)]
    queue_id = await insert_queue(database.hot, "q")
    jobs = await insert_jobs(database.hot, queue_id, priorities=[5, 4])

    async def claim(*limits: int) -> int:
        terms = [
            SessionTerms(session_id, call_id or uuid4(), limit)
            for session_id, call_id, limit in zip((first, second), calls, limits, strict=True)
        ]
        found, rows = await claim_jobs(
            database.hot,
            DEFAULT_PROJECT_ID,
            {Seat(first, "w", queue_id): jobs[:1], Seat(second, "w", queue_id): jobs[1:]},
            [],
            terms,
        )
        assert len(found) == 2
        return len(rows)

    assert await claim(MAX_IN_FLIGHT - 1, MAX_IN_FLIGHT) == 0
    await opened(database.hot, first)
    assert await claim(MAX_IN_FLIGHT, MAX_IN_FLIGHT) == 0
    calls[0] = await current_call(database.hot, first)
    assert await claim(MAX_IN_FLIGHT, MAX_IN_FLIGHT) == 2


async def test_a_heartbeat_locks_what_is_free_and_knows_what_is_not(database: Database) -> None:
    locked, free, unknown = uuid4(), uuid4(), uuid4()
    for each in (locked, free):
        await opened(database.hot, each)
    other = await insert_project(database.hot)
    await opened(database.hot, unknown, project_id=other)
    async with database.hot.acquire() as claiming, claiming.transaction():
        await lock_one(claiming, locked, None)
        rows = await lock_beating_sessions(
            database.hot, DEFAULT_PROJECT_ID, [locked, free, unknown]
        )
    found = {row["session_id"]: row for row in rows}
    assert {each: row["is_locked"] for each, row in found.items()} == {locked: False, free: True}
    assert found[locked]["last_sequence"] is None
    assert found[free]["last_sequence"] == 0


async def test_a_heartbeat_learns_of_the_call_and_what_the_session_may_hold(
    database: Database,
) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    assert await update_session(database.hot, DEFAULT_PROJECT_ID, session_id, 3, True)
    [row] = await lock_beating_sessions(database.hot, DEFAULT_PROJECT_ID, [session_id])
    assert (row["call_id"], row["max_in_flight"], row["draining"]) == (call_id, 3, True)


async def test_claims_and_heartbeats_of_the_same_sessions_never_deadlock(
    database: Database,
) -> None:
    """Whatever the order in which they name them: neither waits for anybody."""
    sessions = [uuid4() for _ in range(20)]
    calls = [await opened(database.hot, each) for each in sessions]
    pairs = [(each, call) for each, call in zip(sessions, calls, strict=True) if call]

    async def claim(order: Sequence[tuple[UUID, UUID]]) -> None:
        async with database.hot.acquire() as connection, connection.transaction():
            assert all(row.may_take for row in await standings(connection, order))

    async def beat(order: Sequence[tuple[UUID, UUID]], sequence: int) -> None:
        async with database.hot.acquire() as connection, connection.transaction():
            rows = await lock_beating_sessions(
                connection, DEFAULT_PROJECT_ID, [each for each, _ in order]
            )
            assert len(rows) == len(sessions)
            await renew(connection, sessions[0], sequence)

    for turn in range(15):
        await asyncio.gather(
            claim(pairs), claim(pairs[::-1]), beat(pairs, turn), beat(pairs[::-1], turn)
        )
