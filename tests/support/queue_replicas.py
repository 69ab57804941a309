"""The use cases of QueueService, put together as its process does, without a server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from queue_service.administering import Administrator
from queue_service.browsing import Browser
from queue_service.purging import Purger
from queue_service.redriving import Redriver
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier
from taskforge_core.projects import Projects
from taskforge_core.settings import Settings


@dataclass(frozen=True)
class Replica:
    """One process of the service."""

    database: Database
    administrator: Administrator
    browser: Browser
    purger: Purger
    redriver: Redriver


@asynccontextmanager
async def queue_replica(settings: Settings, name: str) -> AsyncIterator[Replica]:
    """A replica with connections of its own."""
    database = await Database.open(settings, application_name=name)
    notifier = Notifier(database.hot, origin=name)
    projects = Projects(database)
    try:
        yield Replica(
            database,
            Administrator(database, projects, notifier),
            Browser(database, projects),
            Purger(database, projects, page=7, batch=3),
            Redriver(database, projects, notifier, page=7, batch=3),
        )
        await notifier.flushed()
    finally:
        await database.close()
