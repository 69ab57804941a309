"""Sessions made and changed by the statements of the job service, and their rows."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from asyncpg import Record
from tests.support.leases import lease
from tests.support.rows import insert_jobs, insert_queue

from job_service.queries import (
    Seat,
    SessionTerms,
    Standing,
    claim_jobs,
    open_call,
    read_session,
    renew_sessions,
)
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import Executor

LEASE_DURATION = timedelta(seconds=30)
MAX_IN_FLIGHT = 10
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
        MAX_IN_FLIGHT,
    ):
        return call_id
    return None


async def standings(
    executor: Executor,
    calls: Sequence[tuple[UUID, UUID | None]],
    *,
    project_id: UUID = DEFAULT_PROJECT_ID,
    max_in_flight: int = MAX_IN_FLIGHT,
) -> list[Standing]:
    """What a claim of no jobs is told of sessions; their calls stand beside them."""
    terms = [SessionTerms(session, call or uuid4(), max_in_flight) for session, call in calls]
    found, _ = await claim_jobs(executor, project_id, {}, [], terms)
    return found


async def claim(
    executor: Executor,
    job_ids: Sequence[UUID],
    queue_ids: Sequence[UUID],
    session_ids: Sequence[UUID],
    *,
    limited: Sequence[UUID] = (),
    project_id: UUID = DEFAULT_PROJECT_ID,
) -> list[Record]:
    """Lease jobs, each to its session, for which a call is opened."""
    terms = []
    for session_id in dict.fromkeys(session_ids):
        call_id = await opened(executor, session_id, project_id=project_id)
        assert call_id is not None
        terms.append(SessionTerms(session_id, call_id, MAX_IN_FLIGHT))
    hands: dict[Seat, list[UUID]] = defaultdict(list)
    for job_id, queue_id, session_id in zip(job_ids, queue_ids, session_ids, strict=True):
        hands[Seat(session_id, f"worker of {session_id}", queue_id)].append(job_id)
    _, rows = await claim_jobs(executor, project_id, hands, limited, terms)
    return rows


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
