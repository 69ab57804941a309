"""Opens paused queues when the time has come that their pause named."""

from typing import Any

import asyncpg
import structlog

from scheduler_service.announcing import READY
from scheduler_service.queries import resume_due_queues
from taskforge_core.notifications import Notifier

log = structlog.get_logger(__name__)

QUEUES = "queues"
"""Topic: queues changed; the keys are the ids of their projects."""


class Resumer:
    """Ends pauses that name their end."""

    def __init__(
        self, pool: "asyncpg.Pool[Any]", notifier: Notifier, batch_size: int = 1000
    ) -> None:
        self._pool = pool
        self._notifier = notifier
        self._batch_size = batch_size

    async def run_once(self) -> bool:
        """Open what is due, and tell those who wait for its jobs; True if more may be due."""
        rows = await resume_due_queues(self._pool, self._batch_size)
        if rows:
            self._notifier.notify(QUEUES, *{str(row["project_id"]) for row in rows})
            self._notifier.notify(READY, *(str(row["id"]) for row in rows))
        for row in rows:
            log.info("queue_resumed", queue_id=str(row["id"]))
        return len(rows) >= self._batch_size
