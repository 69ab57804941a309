"""open_call and close_call: which lease call is the current one of a session."""

import asyncio
import itertools
from datetime import timedelta
from uuid import uuid4

from tests.support.leases import insert_server
from tests.support.session_rows import (
    LEASE_DURATION,
    SERVER,
    change,
    current_call,
    opened,
    session,
    standings,
)
from tests.support.snapshots import unchanged

from job_service.queries import close_call
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID


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
    current = await current_call(database.hot, session_id)
    rows = await asyncio.gather(
        *(
            standings(database.hot, [(session_id, call)])
            for call in calls
            if call is not None and call != current
        )
    )
    assert len(rows) == 7
    assert not any(row.is_current for found in rows for row in found)
