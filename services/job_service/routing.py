"""Which queue a request means: a cache that only routes.

It may be out of date for a moment, which is harmless: every claim and insert reads the rules that
it uses in its own transaction, and one that finds no such queue makes the cache look again.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from job_service.queries import list_queue_names
from taskforge_core.database import Database
from taskforge_core.errors import NotFound
from taskforge_core.queries import Executor
from taskforge_core.queue_names import parse_queue_id

MAX_AGE_SECONDS = 5.0
"""A change that no notification told about is seen after this time at the latest."""


@dataclass(frozen=True, slots=True)
class _ProjectQueues:
    by_name: dict[str, UUID]
    ids: frozenset[UUID]
    without_limits: frozenset[UUID]
    read_at: float


class Routes:
    """Turns what requests call `queue` into ids; one instance a process, since it remembers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._projects: dict[UUID, _ProjectQueues] = {}

    async def find(
        self, project_id: UUID, queue: str, executor: Executor | None = None
    ) -> UUID | None:
        """The id of a queue named by its name or id; None if the project has no such queue.

        `executor` is the connection that the caller holds already, if it does.
        """
        queue_id = parse_queue_id(queue)
        known = self._projects.get(project_id)
        if known is not None and time.monotonic() - known.read_at < MAX_AGE_SECONDS:
            found = _look_up(known, queue, queue_id)
            if found is not None:
                return found
        return _look_up(
            await self._read(project_id, executor or self._database.hot), queue, queue_id
        )

    async def resolve(self, project_id: UUID, queue: str) -> UUID:
        """As `find`.

        Raises:
            NotFound: The project has no such queue (`QUEUE_NOT_FOUND`).
        """
        found = await self.find(project_id, queue)
        if found is None:
            raise queue_not_found(queue)
        return found

    async def resolve_all(self, project_id: UUID, queues: Sequence[str]) -> tuple[UUID, ...]:
        """The ids of all these queues, ascending and each once."""
        return tuple(sorted({await self.resolve(project_id, queue) for queue in queues}))

    def may_have_limits(self, project_id: UUID, queue_id: UUID) -> bool:
        """Whether a queue may have limits, as far as is known here: a hint, no more."""
        known = self._projects.get(project_id)
        return known is None or queue_id not in known.without_limits

    def forget(self, project_id: UUID | None = None) -> None:
        """Look again when next asked: about one project, or about all."""
        if project_id is None:
            self._projects.clear()
        else:
            self._projects.pop(project_id, None)

    async def _read(self, project_id: UUID, executor: Executor) -> _ProjectQueues:
        rows = await list_queue_names(executor, project_id)
        by_name = {row["name"]: row["id"] for row in rows}
        without_limits = frozenset(row["id"] for row in rows if not row["has_limits"])
        known = _ProjectQueues(
            by_name, frozenset(by_name.values()), without_limits, time.monotonic()
        )
        self._projects[project_id] = known
        return known


def queue_not_found(queue: str) -> NotFound:
    """The error for a queue that is not there, as far as the caller may see."""
    return NotFound("QUEUE_NOT_FOUND", f"there is no queue {queue}", metadata={"queue": queue})


def _look_up(known: _ProjectQueues, queue: str, queue_id: UUID | None) -> UUID | None:
    if queue_id is None:
        return known.by_name.get(queue)
    return queue_id if queue_id in known.ids else None
