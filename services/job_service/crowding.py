"""How many unfinished jobs a project may have: looked at before jobs are created.

Far from its quota a project creates as if it had none, and is counted now and then. Near it, each
transaction that creates jobs has the project's turn and counts first, so that all replicas together
never go beyond. Once it is full, calls are refused without asking for a moment.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from job_service.drafting import Draft
from job_service.queries import count_backlog, find_requests, lock_backlog
from taskforge_core.errors import ResourceExhausted
from taskforge_core.queries import Executor

FAR = 10_000
"""With more room than this a project is far from its quota: more than all other replicas create in
it within `COUNTED_FOR_SECONDS`."""

COUNTED_FOR_SECONDS = 0.25
"""How long a count is good for while its project is far from its quota."""

FULL_FOR_SECONDS = 0.1
"""How long a count is good for refusals: what ends makes room after this time at the latest."""


@dataclass(slots=True)
class _Crowd:
    """What is known here of a project's unfinished jobs."""

    limit: int
    room: int = 0
    """What the latest count left, less what was created here since."""
    counted_at: float = -math.inf
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Those of this process who wait for the project's turn wait here, without a connection."""

    def is_known(self, seconds: float) -> bool:
        """Whether the count is so new."""
        return time.monotonic() - self.counted_at < seconds

    async def count(self, executor: Executor, project_id: UUID) -> None:
        counted_at = time.monotonic()
        self.room = self.limit - await count_backlog(executor, project_id)
        self.counted_at = counted_at


class Crowds:
    """The unfinished jobs of the projects that have a quota of them."""

    def __init__(self) -> None:
        """One instance a process."""
        self._crowds: dict[UUID, _Crowd] = {}

    def forget(self, project_id: UUID) -> None:
        """The project has no quota any more, if it had one."""
        self._crowds.pop(project_id, None)

    def look(self, project_id: UUID, limit: int, jobs: int) -> None:
        """Hold the project to this quota; refuse new jobs if it is known that there is no room.

        Args:
            project_id: The project.
            limit: Its quota.
            jobs: How many are to be created, all or none.

        Raises:
            ResourceExhausted: `TOO_MANY_UNFINISHED_JOBS`.
        """
        crowd = self._crowds.get(project_id)
        if crowd is None or crowd.limit != limit:
            crowd = self._crowds[project_id] = _Crowd(limit)
        if jobs > limit or (jobs > crowd.room and crowd.is_known(FULL_FOR_SECONDS)):
            raise _too_many_unfinished(limit)

    @asynccontextmanager
    async def entry(
        self, pool: "asyncpg.Pool[Any]", project_id: UUID, drafts: Sequence[Draft]
    ) -> AsyncIterator[tuple[Any, Mapping[UUID, ResourceExhausted]]]:
        """A connection to create these jobs on, in a transaction if the project is near its quota.

        And those of them that must not be created, by their ids. Repetitions of what was created
        before need no room.
        """
        crowd = self._crowds.get(project_id)
        if crowd is None or await self._has_ample_room(crowd, pool, project_id, len(drafts)):
            async with pool.acquire() as connection:
                yield connection, {}
            return
        try:
            async with crowd.turn, pool.acquire() as connection, connection.transaction():
                yield connection, await self._beyond(crowd, connection, project_id, drafts)
        except BaseException:
            # Nothing was created, so there is more room than was left.
            crowd.counted_at = -math.inf
            raise

    async def _has_ample_room(
        self, crowd: _Crowd, executor: Executor, project_id: UUID, jobs: int
    ) -> bool:
        if crowd.room <= FAR:
            return False
        if not crowd.is_known(COUNTED_FOR_SECONDS):
            await crowd.count(executor, project_id)
        crowd.room -= jobs
        return crowd.room > FAR

    async def _beyond(
        self, crowd: _Crowd, executor: Executor, project_id: UUID, drafts: Sequence[Draft]
    ) -> dict[UUID, ResourceExhausted]:
        await lock_backlog(executor, project_id)
        await crowd.count(executor, project_id)
        known: set[str] = set()
        named = [item.request_id for item in drafts if item.request_id is not None]
        if named and crowd.room < len(drafts):
            rows = await find_requests(executor, project_id, named)
            known = {row["request_id"] for row in rows}
        beyond: dict[UUID, ResourceExhausted] = {}
        for item in drafts:
            if item.request_id in known:
                continue
            if crowd.room > 0:
                crowd.room -= 1
            else:
                beyond[item.id] = _too_many_unfinished(crowd.limit)
        return beyond


def _too_many_unfinished(limit: int) -> ResourceExhausted:
    return ResourceExhausted(
        "TOO_MANY_UNFINISHED_JOBS",
        f"the project may have {limit} unfinished jobs",
        metadata={"limit": str(limit)},
    )
