"""Sessions made and changed by the statements of the job service, and their rows."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from asyncpg import Record
from tests.support.leases import lease
from tests.support.rows import insert_jobs, insert_queue

from job_service.queries import (
    open_call,
    read_session,
    renew_sessions,
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
