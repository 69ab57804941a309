"""Says in the database that this replica lives, so that heartbeats know whether its streams do."""

from datetime import timedelta
from uuid import UUID

import structlog

from job_service.queries import remove_server, renew_server
from taskforge_core.database import Database
from taskforge_core.database_errors import DATABASE_EXCEPTIONS
from taskforge_core.loops import Loop

log = structlog.get_logger(__name__)

RENEW_EVERY = timedelta(seconds=2)

ALIVE_FOR = timedelta(seconds=7)
"""Three renewals may fail before the replica counts as gone."""


class Replica:
    """This process among its like."""

    def __init__(self, database: Database, server_id: UUID, address: str) -> None:
        self.server_id = server_id
        self._database = database
        self._address = address
        self._loop = Loop("replica", self.run_once, RENEW_EVERY, jitter=0.1)

    async def run_once(self) -> None:
        """Renew the replica's row."""
        await renew_server(self._database.hot, self.server_id, ALIVE_FOR, self._address)

    def start(self) -> None:
        """Renew it from now on."""
        self._loop.start()

    async def leave(self) -> None:
        """Stop, and remove the row: sessions are told to go elsewhere at once.

        Without a database the row stays, and counts as gone when it is not renewed.
        """
        await self._loop.stop()
        try:
            await remove_server(self._database.hot, self.server_id)
        except DATABASE_EXCEPTIONS as error:
            log.warning("server_not_removed", error=repr(error))
