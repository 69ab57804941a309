"""Takes jobs back from workers that fell silent."""

from typing import Any

import asyncpg
import structlog

from scheduler_service.announcing import announce_ended
from scheduler_service.ending_locked import end_locked
from scheduler_service.queries import (
    lock_held_leases,
    lock_silent_sessions,
    mark_rescued_sessions,
)
from taskforge_core.notifications import Notifier
from taskforge_core.retrying import LeaseExpired, Undelivered

log = structlog.get_logger(__name__)


class Rescuer:
    """Ends the attempts of sessions past their expiry as LEASE_EXPIRED.

    What a server that died had claimed and may not have sent is returned as undelivered instead. A
    worker may have died of such a job unseen, so from the third such return on an attempt is used.

    Sessions are locked before jobs, as everywhere. Until a rescue commits, heartbeats and settles
    with current tokens succeed: whoever locks the session's or the job's row first goes first.
    """

    def __init__(self, pool: "asyncpg.Pool[Any]", notifier: Notifier, batch_size: int = 20) -> None:
        """`batch_size` is in sessions, each of which may hold thousands of leases."""
        self._pool = pool
        self._notifier = notifier
        self._batch_size = batch_size

    async def run_once(self) -> bool:
        """Rescue one batch of sessions and tell those concerned; True if more may be silent."""
        async with self._pool.acquire() as connection, connection.transaction():
            sessions = await lock_silent_sessions(connection, self._batch_size)
            if not sessions:
                return False
            leases = await lock_held_leases(
                connection,
                [session["project_id"] for session in sessions],
                [session["session_id"] for session in sessions],
            )
            expired = [lease for lease in leases if not lease["may_be_unsent"]]
            unsent = [lease for lease in leases if lease["may_be_unsent"]]
            ended = await end_locked(connection, expired, LeaseExpired())
            ended += await end_locked(connection, unsent, Undelivered())
            rescued = {lease.session_id for lease in ended}
            # A session whose last lease is being settled right now was not rescued.
            marked = [session for session in sessions if session["session_id"] in rescued]
            await mark_rescued_sessions(
                connection,
                [session["project_id"] for session in marked],
                [session["session_id"] for session in marked],
            )
        announce_ended(self._notifier, ended)
        for session in marked:
            log.warning(
                "session_rescued",
                project_id=str(session["project_id"]),
                session_id=str(session["session_id"]),
                leases=sum(lease.session_id == session["session_id"] for lease in ended),
            )
        # Where nothing could be ended, others hold the locks: asking again at once would spin.
        return bool(ended) and len(sessions) >= self._batch_size
