"""What the tests of the passes share."""

from collections import defaultdict
from collections.abc import AsyncIterator

import pytest
from tests.support.runtime_roles import as_role, runtime_role

from taskforge_core.database import Database
from taskforge_core.notifications import Notifier
from taskforge_core.settings import Settings


class RecordingNotifier(Notifier):
    """Keeps what it is told instead of sending it."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.hot, "test")
        self.told: dict[str, set[str]] = defaultdict(set)

    def notify(self, topic: str, *keys: str) -> None:
        assert keys, "a pass always knows what it changed"
        self.told[topic].update(keys)


@pytest.fixture
def notifier(database: Database) -> RecordingNotifier:
    """Told by the passes."""
    return RecordingNotifier(database)


@pytest.fixture
async def runtime(settings: Settings) -> AsyncIterator[Database]:
    """The test's own database, opened as the role that the scheduler runs as: it owns no table."""
    url = settings.require_database_url()
    async with runtime_role(url) as name:
        as_runtime = settings.model_copy(update={"database_url": as_role(url, name)})
        opened = await Database.open(as_runtime, application_name="taskforge:test")
        yield opened
        await opened.close()
