"""What the tests of the passes share."""

from collections import defaultdict

import pytest

from taskforge_core.database import Database
from taskforge_core.notifications import Notifier


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
