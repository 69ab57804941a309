"""Gives back leases that this replica claimed but could not deliver."""

import asyncio
from collections.abc import Iterable
from uuid import UUID

from job_service.background import Background
from job_service.demanding import Leased
from job_service.waking import Waker
from taskforge_core.database import Database
from taskforge_core.ending import LeaseKey, end_leases
from taskforge_core.retrying import Ending


class Returner:
    """Ends such leases in the background; if that fails, they expire like any other."""

    def __init__(self, database: Database, waker: Waker, background: Background) -> None:
        self._database = database
        self._waker = waker
        self._background = background

    def give_back(
        self, project_id: UUID, leases: Iterable[Leased], ending: Ending
    ) -> "asyncio.Task[None] | None":
        """Make the jobs ready again; the task, if there is anything to do.

        Args:
            project_id: Owner of the jobs.
            leases: What was not delivered.
            ending: `Released` if sending was never tried, `Undelivered` if it failed.
        """
        endings = {(str(leased.id), leased.lease_seq): ending for leased in leases}
        if not endings:
            return None
        return self._background.start("give back leases", self._give_back(project_id, endings))

    async def _give_back(self, project_id: UUID, endings: dict[LeaseKey, Ending]) -> None:
        async with self._database.hot.acquire() as connection, connection.transaction():
            ended = await end_leases(connection, project_id, endings, answered=False)
        self._waker.leases_ended(project_id, ended)
