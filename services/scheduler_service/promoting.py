"""Makes scheduled jobs ready when their time has come."""

import asyncio
from typing import Any

import asyncpg
import structlog

from scheduler_service.announcing import READY
from scheduler_service.queries import promote_due_jobs
from taskforge_core.notifications import Notifier

log = structlog.get_logger(__name__)


LANES = 3
"""Batches at once when many jobs are due; more gain little on few cores."""


class Promoter:
    """SCHEDULED to PENDING, in batches: a job that was late is no reason to hold many locks."""

    def __init__(
        self, pool: "asyncpg.Pool[Any]", notifier: Notifier, batch_size: int = 5000
    ) -> None:
        self._pool = pool
        self._notifier = notifier
        self._batch_size = batch_size

    async def run_once(self) -> bool:
        """Promote what is due and wake the claims of its queues; True if more may be due.

        When one batch is not enough, several run at once: each skips what another has locked, so
        they share the work over the database's cores.
        """
        if await self._promote_batch() < self._batch_size:
            return False
        batches = await asyncio.gather(*(self._promote_batch() for _ in range(LANES)))
        return max(batches) >= self._batch_size

    async def _promote_batch(self) -> int:
        rows = await promote_due_jobs(self._pool, self._batch_size)
        promoted: int = sum(row["n"] for row in rows)
        if promoted:
            self._notifier.notify(READY, *(str(row["queue_id"]) for row in rows))
            log.debug("jobs_promoted", jobs=promoted, queues=len(rows))
        return promoted
