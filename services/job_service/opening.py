"""Makes lease calls the current ones of their sessions: as many streams as a project may have."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from job_service.queries import count_streams, lock_streams, open_call
from taskforge_core.batching import Batcher
from taskforge_core.database import Database
from taskforge_core.errors import ResourceExhausted, TaskForgeError
from taskforge_core.projects import Project
from taskforge_core.queries import Executor


@dataclass(frozen=True, slots=True)
class Opening:
    """A lease call that is about to be opened."""

    session_id: UUID
    worker_id: str
    lease_duration: timedelta
    call_id: UUID
    is_stream: bool
    max_in_flight: int


@dataclass(frozen=True, slots=True)
class _Limited:
    opening: Opening
    limit: int


class Opener:
    """Opens the lease calls of this replica."""

    def __init__(self, database: Database, server_id: UUID) -> None:
        """One instance a process."""
        self._database = database
        self._server_id = server_id
        # Together, so that those of one project that wait for each other wait on one connection.
        self._limited: Batcher[_Limited, bool] = Batcher(self._open_limited, max_items=100)

    async def open(self, project: Project, opening: Opening) -> bool:
        """Open it; False: the session has a stream, so it gets nothing by AcquireJobs.

        Raises:
            ResourceExhausted: The project has as many streams as it may (`TOO_MANY_LEASE_STREAMS`).
        """
        if opening.is_stream and project.max_lease_streams is not None:
            return await self._limited.submit(
                project.id, _Limited(opening, project.max_lease_streams)
            )
        return await self._open(self._database.hot, project.id, opening)

    async def _open_limited(
        self, project_id: UUID, items: list[_Limited]
    ) -> Sequence[bool | TaskForgeError]:
        limit = items[-1].limit
        answers: list[bool | TaskForgeError] = []
        async with self._database.hot.acquire() as connection, connection.transaction():
            await lock_streams(connection, project_id)
            sessions = [item.opening.session_id for item in items]
            others, named = await count_streams(connection, project_id, sessions, limit)
            own = set(named)
            for item in items:
                # A stream that takes the place of another one of its session needs no room.
                if item.opening.session_id not in own and others + len(own) >= limit:
                    answers.append(_too_many_streams(limit))
                    continue
                own.add(item.opening.session_id)
                answers.append(await self._open(connection, project_id, item.opening))
        return answers

    async def _open(self, executor: Executor, project_id: UUID, opening: Opening) -> bool:
        return await open_call(
            executor,
            project_id,
            opening.session_id,
            opening.worker_id,
            opening.lease_duration,
            opening.call_id,
            opening.is_stream,
            self._server_id,
            opening.max_in_flight,
        )


def _too_many_streams(limit: int) -> ResourceExhausted:
    return ResourceExhausted(
        "TOO_MANY_LEASE_STREAMS",
        f"the project may have {limit} open streams",
        metadata={"limit": str(limit)},
    )
