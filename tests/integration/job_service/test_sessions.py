"""Sessions and their calls: who may take jobs, since when, and on which replica."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from asyncpg import Record
from tests.support.leases import insert_server, lease
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.snapshots import unchanged
from tests.support.waiting import until_blocked

from job_service.queries import (
    close_call,
    list_held_leases,
    lock_beating_sessions,
    lock_sessions,
    open_call,
    read_session,
    remove_server,
    renew_server,
    renew_sessions,
    update_session,
)
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import Executor

LEASE_DURATION = timedelta(seconds=30)
SERVER = UUID(int=77)


async def opened(
    executor: Executor,
    session_id: UUID,
    *,
    is_stream: bool = True,
    server_id: UUID = SERVER,
    lease_duration: timedelta = LEASE_DURATION,
    project_id: UUID = DEFAULT_PROJECT_ID,
) -> UUID | None:
    """Open a call of the session; its id, or None if that was refused."""
    call_id = uuid4()
    if await open_call(
        executor,
        project_id,
        session_id,
        "worker",
        lease_duration,
        call_id,
        is_stream,
        server_id,
        10,
    ):
        return call_id
    return None


async def current_call(
    executor: Executor, session_id: UUID, project_id: UUID = DEFAULT_PROJECT_ID
) -> UUID:
    """The session's current call."""
    row = await read_session(executor, project_id, session_id)
    assert row is not None
    call_id: UUID = row["call_id"]
    return call_id


async def session(database: Database, session_id: UUID) -> Record:
    rows: list[Record] = await database.hot.fetch(
        "SELECT *, clock_timestamp() AS now FROM taskforge.sessions WHERE session_id = $1",
        session_id,
    )
    return rows[0]


async def change(database: Database, session_id: UUID, assignments: str, *values: Any) -> None:
    await database.hot.execute(
        f"UPDATE taskforge.sessions SET {assignments} WHERE session_id = $1", session_id, *values
    )


async def hold_job(database: Database, session_id: UUID) -> tuple[str, int]:
    queue_id = await insert_queue(database.hot, f"queue {uuid4()}")
    [key] = await lease(database.hot, await insert_jobs(database.hot, queue_id), session_id)
    return key


async def lock_any(executor: Executor, session_id: UUID, call_id: UUID | None) -> list[Record]:
    """As `lock_one`, but no row if another transaction has the session."""
    return await lock_sessions(executor, DEFAULT_PROJECT_ID, [session_id], [call_id or uuid4()])


async def lock_one(executor: Executor, session_id: UUID, call_id: UUID | None) -> Record:
    [row] = await lock_sessions(executor, DEFAULT_PROJECT_ID, [session_id], [call_id or uuid4()])
    return row


# -- lock_sessions ------------------------------------------------------------------------------


async def test_a_new_session_may_take_jobs_and_its_clock_starts_with_the_claim(
    database: Database,
) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    assert (await session(database, session_id))["expires_at"] is None
    row = await lock_one(database.hot, session_id, call_id)
    assert row["is_current"]
    assert row["may_take"]
    after = await session(database, session_id)
    assert row["expires_at"] == round(after["expires_at"].timestamp() * 1_000_000)
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
    assert row["may_take"]
    after = await session(database, session_id)
    assert after["expires_at"] > before["expires_at"] + timedelta(seconds=20)
    assert row["expires_at"] == round(after["expires_at"].timestamp() * 1_000_000)


async def test_the_clock_of_a_session_that_holds_a_lease_goes_on(database: Database) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    await hold_job(database, session_id)
    await change(database, session_id, "expires_at = clock_timestamp() + interval '9 s'")
    before = await session(database, session_id)
    row = await lock_one(database.hot, session_id, call_id)
    assert row["may_take"]
    after = await session(database, session_id)
    assert after["expires_at"] == before["expires_at"]
    assert row["expires_at"] == round(before["expires_at"].timestamp() * 1_000_000)


async def test_a_session_whose_leases_have_expired_may_take_nothing(database: Database) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    await hold_job(database, session_id)
    await change(database, session_id, "expires_at = clock_timestamp() - interval '1 ms'")
    before = await session(database, session_id)
    row = await lock_one(database.hot, session_id, call_id)
    assert (row["is_current"], row["may_take"]) == (True, False)
    assert (await session(database, session_id))["expires_at"] == before["expires_at"]


async def test_a_rescued_session_may_take_nothing_until_it_has_spoken(database: Database) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    await change(database, session_id, "must_heartbeat = true, expires_at = clock_timestamp()")
    row = await lock_one(database.hot, session_id, call_id)
    assert (row["is_current"], row["may_take"]) == (True, False)
    await renew(database.hot, session_id, 1)
    assert (await lock_one(database.hot, session_id, call_id))["may_take"]


async def test_a_call_that_was_replaced_may_take_nothing_and_starts_no_clock(
    database: Database,
) -> None:
    session_id = uuid4()
    older = await opened(database.hot, session_id)
    newer = await opened(database.hot, session_id)
    row = await lock_one(database.hot, session_id, older)
    assert (row["is_current"], row["may_take"]) == (False, False)
    assert (await session(database, session_id))["expires_at"] is None
    assert (await lock_one(database.hot, session_id, newer))["may_take"]


async def test_an_unknown_session_has_no_row(database: Database) -> None:
    assert await lock_sessions(database.hot, DEFAULT_PROJECT_ID, [uuid4()], [uuid4()]) == []


async def test_the_same_session_id_in_another_project_is_another_session(
    database: Database,
) -> None:
    other = await insert_project(database.hot)
    session_id = uuid4()
    own_call = await opened(database.hot, session_id)
    other_call = await opened(database.hot, session_id, project_id=other)
    assert own_call is not None
    assert other_call is not None
    [row] = await lock_sessions(database.hot, other, [session_id], [own_call])
    assert not row["is_current"]
    assert (await lock_one(database.hot, session_id, own_call))["is_current"]
    assert await current_call(database.hot, session_id, other) == other_call


async def test_several_sessions_are_judged_each_by_itself(database: Database) -> None:
    fresh, expired, rescued, replaced = sessions = [uuid4() for _ in range(4)]
    calls = [await opened(database.hot, each) for each in sessions]
    await hold_job(database, expired)
    await change(database, expired, "expires_at = clock_timestamp() - interval '1 s'")
    await change(database, rescued, "must_heartbeat = true")
    await opened(database.hot, replaced)
    rows = await lock_sessions(
        database.hot, DEFAULT_PROJECT_ID, sessions, [call for call in calls if call]
    )
    assert len(rows) == len(sessions)
    assert {row["session_id"]: (row["is_current"], row["may_take"]) for row in rows} == {
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
        assert (await lock_one(claiming, session_id, older))["may_take"]
        replacing = asyncio.create_task(opened(database.hot, session_id))
        await until_blocked(database.hot, claiming.get_server_pid())
    assert await replacing is not None
    assert not (await lock_one(database.hot, session_id, older))["is_current"]


async def test_a_claim_passes_over_a_session_that_is_being_replaced_and_then_sees_it(
    database: Database,
) -> None:
    session_id = uuid4()
    older = await opened(database.hot, session_id)
    async with database.hot.acquire() as replacing, replacing.transaction():
        await opened(replacing, session_id)
        assert await lock_any(database.hot, session_id, older) == []
    row = await lock_one(database.hot, session_id, older)
    assert (row["is_current"], row["may_take"]) == (False, False)


async def test_a_claim_passes_over_a_session_that_is_being_rescued_and_then_sees_it(
    database: Database,
) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    async with database.hot.acquire() as rescuing, rescuing.transaction():
        await rescuing.execute("UPDATE taskforge.sessions SET must_heartbeat = true")
        assert await lock_any(database.hot, session_id, call_id) == []
    assert not (await lock_one(database.hot, session_id, call_id))["may_take"]


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
    assert row["may_take"]
    assert row["expires_at"] == round(
        (await session(database, session_id))["expires_at"].timestamp() * 1_000_000
    )


async def test_a_locked_session_does_not_keep_a_claim_from_the_others(database: Database) -> None:
    locked, free = uuid4(), uuid4()
    calls = [await opened(database.hot, each) for each in (locked, free)]
    async with database.hot.acquire() as beating, beating.transaction():
        await lock_beating_sessions(beating, DEFAULT_PROJECT_ID, [locked])
        [row] = await lock_sessions(
            database.hot, DEFAULT_PROJECT_ID, [locked, free], [call for call in calls if call]
        )
        assert (row["session_id"], row["may_take"]) == (free, True)


async def test_a_draining_session_may_take_nothing_and_starts_no_clock(database: Database) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    assert await update_session(database.hot, DEFAULT_PROJECT_ID, session_id, None, True)
    row = await lock_one(database.hot, session_id, call_id)
    assert (row["is_current"], row["may_take"]) == (True, False)
    assert (await session(database, session_id))["expires_at"] is None
    assert await update_session(database.hot, DEFAULT_PROJECT_ID, session_id, None, False)
    assert (await lock_one(database.hot, session_id, call_id))["may_take"]


async def test_claims_and_heartbeats_of_the_same_sessions_never_deadlock(
    database: Database,
) -> None:
    """Heartbeats lock in the order of the ids, whatever the order in which they name them, and
    claims wait for nobody."""
    sessions = [uuid4() for _ in range(20)]
    calls = [await opened(database.hot, each) for each in sessions]
    pairs = [(each, call) for each, call in zip(sessions, calls, strict=True) if call]

    async def claim(order: Sequence[tuple[UUID, UUID]]) -> None:
        async with database.hot.acquire() as connection, connection.transaction():
            rows = await lock_sessions(
                connection, DEFAULT_PROJECT_ID, [s for s, _ in order], [c for _, c in order]
            )
            assert all(row["may_take"] for row in rows)

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


# -- open_call and close_call -------------------------------------------------------------------


async def test_opening_makes_the_session(database: Database) -> None:
    session_id = uuid4()
    call_id = await opened(database.hot, session_id)
    row = await session(database, session_id)
    assert (row["call_id"], row["call_is_stream"], row["call_is_open"]) == (call_id, True, True)
    assert (row["worker_id"], row["server_id"]) == ("worker", SERVER)
    assert (row["lease_duration"], row["max_in_flight"]) == (LEASE_DURATION, 10)
    assert (row["expires_at"], row["must_heartbeat"], row["last_sequence"]) == (None, False, 0)
    assert await current_call(database.hot, session_id) == call_id


async def test_opening_renews_nothing_and_forgives_nothing(database: Database) -> None:
    session_id = uuid4()
    await opened(database.hot, session_id)
    await change(
        database,
        session_id,
        "expires_at = clock_timestamp(), must_heartbeat = true, last_sequence = 7,"
        " listed = '{1,2}', omitted = '{2}'",
    )
    before = await session(database, session_id)
    assert await opened(database.hot, session_id, lease_duration=timedelta(hours=1))
    after = await session(database, session_id)
    kept = ("expires_at", "must_heartbeat", "last_sequence", "listed", "omitted", "created_at")
    assert [after[name] for name in kept] == [before[name] for name in kept]
    assert after["lease_duration"] == timedelta(hours=1)


async def test_only_an_open_stream_on_a_living_replica_keeps_acquire_jobs_out(
    database: Database,
) -> None:
    alive, dead = [
        await insert_server(database.hot, alive_for=timedelta(seconds=seconds))
        for seconds in (60, -1)
    ]
    for was_stream, was_closed, server_id, next_is_stream in itertools.product(
        [True, False], [True, False], [alive, dead], [True, False]
    ):
        session_id = uuid4()
        first = await opened(database.hot, session_id, is_stream=was_stream, server_id=server_id)
        assert first is not None
        if was_closed:
            await close_call(database.hot, DEFAULT_PROJECT_ID, session_id, first)
        second = await opened(database.hot, session_id, is_stream=next_is_stream)
        refused = not next_is_stream and was_stream and not was_closed and server_id == alive
        case = (was_stream, was_closed, server_id == alive, next_is_stream)
        assert (second is None) == refused, case
        current = await current_call(database.hot, session_id)
        assert current == (second or first), case


async def test_a_refused_call_changes_nothing(database: Database) -> None:
    server_id = await insert_server(database.hot, alive_for=timedelta(seconds=60))
    session_id = uuid4()
    await opened(database.hot, session_id, server_id=server_id)
    async with unchanged(database.hot):
        assert await opened(database.hot, session_id, is_stream=False) is None


async def test_a_replica_that_never_said_it_lives_keeps_nobody_out(database: Database) -> None:
    session_id = uuid4()
    await opened(database.hot, session_id)
    assert await opened(database.hot, session_id, is_stream=False)


async def test_a_call_that_was_replaced_cannot_close_the_newer_one(database: Database) -> None:
    session_id = uuid4()
    older = await opened(database.hot, session_id)
    newer = await opened(database.hot, session_id)
    assert older is not None
    await close_call(database.hot, DEFAULT_PROJECT_ID, session_id, older)
    row = await session(database, session_id)
    assert (row["call_id"], row["call_is_open"]) == (newer, True)


async def test_of_calls_opened_at_once_exactly_one_is_current(database: Database) -> None:
    session_id = uuid4()
    calls = await asyncio.gather(*(opened(database.hot, session_id) for _ in range(8)))
    assert all(calls)
    rows = await asyncio.gather(*(lock_one(database.hot, session_id, call) for call in calls))
    assert sorted(row["is_current"] for row in rows) == [False] * 7 + [True]


# -- Heartbeats ---------------------------------------------------------------------------------


async def renew(
    executor: Executor,
    session_id: UUID,
    sequence: int,
    listed: str = "{}",
    omitted: str = "{}",
    project_id: UUID = DEFAULT_PROJECT_ID,
) -> dict[UUID, datetime]:
    rows = await renew_sessions(executor, project_id, [session_id], [sequence], [listed], [omitted])
    return {row["session_id"]: row["expires_at"] for row in rows}


async def test_a_heartbeat_renews_the_session_by_its_own_duration(database: Database) -> None:
    session_id = uuid4()
    await opened(database.hot, session_id, lease_duration=timedelta(seconds=100))
    await change(database, session_id, "must_heartbeat = true")
    answer = await renew(database.hot, session_id, 5, "{1,2}", "{2}")
    row = await session(database, session_id)
    assert answer == {session_id: row["expires_at"]}
    assert timedelta(seconds=90) < row["expires_at"] - row["now"] <= timedelta(seconds=100)
    assert row["last_heartbeat_at"] is not None
    assert (row["must_heartbeat"], row["last_sequence"]) == (False, 5)
    assert (row["listed"], row["omitted"]) == ([1, 2], [2])


async def test_many_sessions_are_renewed_in_one_statement_each_with_its_own(
    database: Database,
) -> None:
    sessions = sorted(uuid4() for _ in range(50))
    for each in sessions:
        await opened(database.hot, each)
    rows = await renew_sessions(
        database.hot,
        DEFAULT_PROJECT_ID,
        [*sessions, uuid4()],
        list(range(51)),
        ["{" + ",".join(map(str, range(place))) + "}" for place in range(51)],
        ["{}"] * 51,
    )
    assert len(rows) == 50
    for place, each in enumerate(sessions):
        row = await session(database, each)
        assert (row["last_sequence"], row["listed"]) == (place, list(range(place)))


async def test_another_projects_session_is_neither_locked_nor_renewed(database: Database) -> None:
    other = await insert_project(database.hot)
    session_id = uuid4()
    await opened(database.hot, session_id, project_id=other)
    async with unchanged(database.hot):
        assert await lock_beating_sessions(database.hot, DEFAULT_PROJECT_ID, [session_id]) == []
        assert await renew(database.hot, session_id, 1) == {}


@pytest.mark.parametrize(
    ("is_stream", "is_closed", "is_alive", "expected"),
    [
        (True, False, True, False),
        (True, True, True, True),
        (True, False, False, True),
        (True, True, False, True),
        (False, False, True, False),
        (False, True, True, False),
        (False, True, False, False),
    ],
)
async def test_a_session_is_to_reconnect_when_its_stream_has_ended_or_its_replica_is_gone(
    database: Database, is_stream: bool, is_closed: bool, is_alive: bool, expected: bool
) -> None:
    session_id = uuid4()
    await renew_server(database.hot, SERVER, timedelta(seconds=60), "here")
    call_id = await opened(database.hot, session_id, is_stream=is_stream)
    assert call_id is not None
    if is_closed:
        await close_call(database.hot, DEFAULT_PROJECT_ID, session_id, call_id)
    if not is_alive:
        await remove_server(database.hot, SERVER)
    [row] = await lock_beating_sessions(database.hot, DEFAULT_PROJECT_ID, [session_id])
    assert row["must_reconnect"] is expected


async def test_a_replica_lives_as_long_as_it_says_so(database: Database) -> None:
    async def is_alive() -> bool:
        return bool(
            await database.hot.fetchval(
                "SELECT alive_until > clock_timestamp() FROM taskforge.servers"
                " WHERE server_id = $1",
                SERVER,
            )
        )

    await renew_server(database.hot, SERVER, timedelta(seconds=-1), "here")
    assert not await is_alive()
    await renew_server(database.hot, SERVER, timedelta(seconds=60), "here")
    assert await is_alive()
    await remove_server(database.hot, SERVER)
    assert not await is_alive()


# -- list_held_leases ---------------------------------------------------------------------------


async def test_what_sessions_hold_is_listed_and_nothing_else(database: Database) -> None:
    first, second = uuid4(), uuid4()
    keys = {each: [await hold_job(database, each) for _ in range(3)] for each in (first, second)}
    # Others': another session, and the same session id in another project.
    await hold_job(database, uuid4())
    other = await insert_project(database.hot)
    other_queue = await insert_queue(database.hot, "other", project_id=other)
    other_jobs = await insert_jobs(database.hot, other_queue, project_id=other)
    await lease(database.hot, other_jobs, first, project_id=other)
    cancelled = keys[first][0]
    await database.hot.execute(
        "UPDATE taskforge.jobs SET cancel_requested_at = clock_timestamp(), payload_bytes = 77,"
        " started_at = clock_timestamp() - interval '1 minute' WHERE id = $1",
        UUID(cancelled[0]),
    )
    rows = await list_held_leases(database.hot, DEFAULT_PROJECT_ID, [first, second, uuid4()])
    found = {
        each: sorted((row["id"], row["lease_seq"]) for row in rows if row["session_id"] == each)
        for each in (first, second)
    }
    assert found == {each: sorted(own) for each, own in keys.items()}
    assert len(rows) == 6
    [told] = [row for row in rows if row["id"] == cancelled[0]]
    assert told["cancel_requested"]
    assert told["payload_bytes"] == 77
    assert timedelta(minutes=1) <= told["age"] < timedelta(minutes=2)
    assert not any(row["cancel_requested"] for row in rows if row["id"] != cancelled[0])
