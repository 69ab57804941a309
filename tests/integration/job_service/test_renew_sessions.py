"""Heartbeats renew sessions by one write each, and see what those hold and whether to reconnect."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from tests.support.leases import lease
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.session_rows import (
    SERVER,
    change,
    hold_job,
    opened,
    renew,
    session,
)
from tests.support.snapshots import unchanged

from job_service.queries import (
    close_call,
    list_held_leases,
    lock_beating_sessions,
    remove_server,
    renew_server,
    renew_sessions,
)
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID


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
    assert row["has_stream"] is (is_stream and not expected)


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
