"""Notifier and Listener on a real Postgres."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest
from tests.conftest import execute

from taskforge_core import notifications
from taskforge_core.database import Database, connect_direct
from taskforge_core.notifications import Listener, Notifier
from taskforge_core.settings import Settings


class Heard:
    """What a listener was told, and a way to wait for it."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[tuple[str, tuple[str, ...]]] = asyncio.Queue()
        self.gaps: asyncio.Queue[None] = asyncio.Queue()

    def handle(self, topic: str, keys: Sequence[str]) -> None:
        self.items.put_nowait((topic, tuple(keys)))

    def gap(self) -> None:
        self.gaps.put_nowait(None)

    async def next(self) -> tuple[str, tuple[str, ...]]:
        async with asyncio.timeout(20):
            return await self.items.get()

    async def next_gap(self) -> None:
        async with asyncio.timeout(20):
            await self.gaps.get()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def listener(settings: Settings, heard: Heard) -> AsyncIterator[Listener]:
    listening = Listener(settings, heard.handle, "me", heard.gap)
    listening.start()
    await heard.next_gap()
    yield listening
    await listening.stop()


async def test_what_others_notify_is_heard_and_the_own_echo_is_not(
    database: Database, listener: Listener, heard: Heard
) -> None:
    mine, other = Notifier(database.hot, "me"), Notifier(database.hot, "other")
    mine.notify("queue", "mine")
    await mine.flushed()
    other.notify("queue", "b", "a")
    other.notify("settings")
    assert sorted([await heard.next(), await heard.next()]) == [
        ("queue", ("a", "b")),
        ("settings", ()),
    ]
    assert heard.items.empty()


async def test_notifications_that_come_during_a_flush_ride_together_in_the_next(
    database: Database, listener: Listener, heard: Heard
) -> None:
    notifier = Notifier(database.hot, "other")
    notifier.notify("queue", "first")
    await asyncio.sleep(0)  # the flush takes what is there
    for number in range(100):
        notifier.notify("queue", f"{number:03}")
    assert await heard.next() == ("queue", ("first",))
    assert await heard.next() == ("queue", tuple(f"{number:03}" for number in range(100)))
    await notifier.flushed()


async def test_many_keys_arrive_in_several_payloads(
    database: Database, listener: Listener, heard: Heard
) -> None:
    notifier = Notifier(database.hot, "other")
    keys = {f"0190b5a6-0000-7000-8000-{number:012}" for number in range(1000)}
    notifier.notify("queue", *keys)
    await notifier.flushed()
    arrived: set[str] = set()
    payloads = 0
    while arrived != keys:
        _, some = await heard.next()
        arrived.update(some)
        payloads += 1
    assert payloads > 1


async def test_a_lost_connection_is_replaced_and_everything_woken_once(
    database: Database, listener: Listener, heard: Heard
) -> None:
    await execute(
        database.settings.require_database_url(),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'taskforge:listen' AND datname = current_database()",
    )
    await heard.next_gap()
    assert listener.connected.is_set()
    assert heard.gaps.empty()
    notifier = Notifier(database.hot, "other")
    notifier.notify("queue", "after")
    assert await heard.next() == ("queue", ("after",))


async def test_a_server_that_is_away_is_tried_again(
    settings: Settings, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = connect_direct
    attempts = 0

    async def fail_twice(*args: object, **options: object) -> object:
        nonlocal attempts
        attempts += 1
        if attempts <= 2:
            raise ConnectionRefusedError
        return await connect(settings, application_name="taskforge:listen")

    monkeypatch.setattr(notifications, "connect_direct", fail_twice)
    listening = Listener(settings, heard.handle, "me", heard.gap)
    listening.start()
    await heard.next_gap()
    assert attempts == 3
    await listening.stop()
    assert not listening.connected.is_set()


class Unanswered(asyncpg.Connection):
    """A connection on which a ping can be left without an answer."""

    silent = False

    async def execute(self, *args: Any, **options: Any) -> Any:
        if self.silent:
            raise TimeoutError
        return await super().execute(*args, **options)


async def test_a_silent_connection_is_found_out_by_a_ping(
    settings: Settings, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_PING_SECONDS", 0.01)
    connections: list[Unanswered] = []

    async def remember(*args: object, **options: object) -> Unanswered:
        connection = await asyncpg.connect(
            settings.require_database_url(), connection_class=Unanswered
        )
        connections.append(connection)
        return connection

    monkeypatch.setattr(notifications, "connect_direct", remember)
    listening = Listener(settings, heard.handle, "me", heard.gap)
    listening.start()
    await heard.next_gap()
    connections[0].silent = True
    await heard.next_gap()
    assert len(connections) == 2
    assert connections[0].is_closed()
    await listening.stop()


async def test_garbage_on_the_channel_and_a_failing_handler_do_not_end_it(
    database: Database, settings: Settings, heard: Heard
) -> None:
    def handle(topic: str, keys: Sequence[str]) -> None:
        if topic == "bad":
            raise ValueError(topic)
        heard.handle(topic, keys)

    listening = Listener(settings, handle, "me", heard.gap)
    listening.start()
    await heard.next_gap()
    for payload in ("", "no json", "[]", '{"o": "x"}', '{"o": "x", "t": []}', "1"):
        await database.hot.execute("SELECT pg_notify('taskforge', $1)", payload)
    notifier = Notifier(database.hot, "other")
    notifier.notify("bad")
    notifier.notify("good")
    assert await heard.next() == ("good", ())
    await listening.stop()


async def test_a_flush_that_fails_is_dropped_and_the_next_one_goes_out(
    database: Database, listener: Listener, heard: Heard
) -> None:
    away = await Database.open(Settings(database_url="postgresql://nobody@127.0.0.1:1/nothing"))
    notifier = Notifier(away.hot, "other")
    notifier.notify("queue", "lost")
    await notifier.flushed()
    await away.close()
    notifier._pool = database.hot
    notifier.notify("queue", "sent")
    assert await heard.next() == ("queue", ("sent",))
