"""Ends attempts that have taken longer than they may."""

from typing import Any

import asyncpg
import structlog

from scheduler_service.announcing import announce_ended
from scheduler_service.ending_locked import end_locked
from scheduler_service.queries import lock_overdue_leases
from taskforge_core.notifications import Notifier
from taskforge_core.retrying import TimedOut

log = structlog.get_logger(__name__)


class TimeoutEnforcer:
    """Ends overdue attempts as TIMED_OUT; whether the job is tried again is decided as always."""

    def __init__(
        self, pool: "asyncpg.Pool[Any]", notifier: Notifier, batch_size: int = 1000
    ) -> None:
        self._pool = pool
        self._notifier = notifier
        self._batch_size = batch_size

    async def run_once(self) -> bool:
        """End one batch and tell those concerned; True if more may be overdue."""
        async with self._pool.acquire() as connection, connection.transaction():
            leases = await lock_overdue_leases(connection, self._batch_size)
            ended = await end_locked(connection, leases, TimedOut())
        if ended:
            announce_ended(self._notifier, ended)
            log.info("attempts_timed_out", leases=len(ended))
        return len(leases) >= self._batch_size
