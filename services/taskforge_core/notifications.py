"""Wake-ups between processes: coalesced NOTIFY after commit, and one LISTEN connection a process.

A payload is JSON, `{"o": origin, "t": {topic: [key, …]}}`; a topic without keys means everything
of that topic. Notifications only make things faster: each listener also polls, so a lost one
costs time, never correctness.
"""

import asyncio
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import asyncpg
import structlog

from taskforge_core.database import connect_direct
from taskforge_core.database_errors import DATABASE_EXCEPTIONS
from taskforge_core.settings import Settings

log = structlog.get_logger(__name__)

CHANNEL = "taskforge"
"""The one channel of all notifications."""

MAX_PAYLOAD_BYTES = 7900
"""Postgres refuses payloads of 8,000 bytes and more."""

FLUSH_SECONDS = 0.01
"""A flush begins so long after the last one at the earliest: under load a notification a batch
would take a tenth of a creation's time, and wake every listener as often."""

_PING_SECONDS = 10.0
_PING_TIMEOUT = 5.0
_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 5.0


class Notifier:
    """Sends wake-ups; call `notify` after the commit of what it tells about.

    A lone notification leaves at once. What is notified while a flush is in flight, and for 10 ms
    after it, rides in the next one, so a busy process sends few. A flush that fails is dropped
    (listeners poll).
    """

    def __init__(self, pool: "asyncpg.Pool[Any]", origin: str) -> None:
        """`origin` names this process, so that its own listener can ignore the echo."""
        self._pool = pool
        self._origin = origin
        self._pending: dict[str, set[str] | None] = {}
        self._flushing: asyncio.Task[None] | None = None

    def notify(self, topic: str, *keys: str) -> None:
        """Tell all other processes about `keys` of `topic`; without keys, about all of it."""
        known = self._pending.setdefault(topic, set())
        if not keys:
            self._pending[topic] = None
        elif known is not None:
            known.update(keys)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="notify")

    async def flushed(self) -> None:
        """Wait until everything notified so far was sent or dropped."""
        while self._flushing is not None:
            await asyncio.shield(self._flushing)

    async def _flush(self) -> None:
        try:
            while self._pending:
                pending, self._pending = self._pending, {}
                payloads = list(encode_payloads(self._origin, pending))
                try:
                    await self._pool.execute(
                        "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload",
                        CHANNEL,
                        payloads,
                    )
                except DATABASE_EXCEPTIONS as error:
                    log.warning("notify_failed", topics=sorted(pending), error=repr(error))
                await asyncio.sleep(FLUSH_SECONDS)
        finally:
            self._flushing = None


def encode_payloads(origin: str, topics: Mapping[str, set[str] | None]) -> Iterator[str]:
    """The payloads for these topics, each at most `MAX_PAYLOAD_BYTES` long.

    A topic whose value is None, or a key too long for any payload, is sent as "all of the topic".
    """
    batch: dict[str, list[str]] = {}
    empty = size = len(_encode(origin, {}))
    for topic, keys in topics.items():
        # Each entry costs its own JSON and at most a comma, a colon and two brackets.
        head = len(json.dumps(topic)) + 4
        if not keys or any(empty + head + _cost(key) > MAX_PAYLOAD_BYTES for key in keys):
            entries: list[str | None] = [None]
        else:
            entries = [*sorted(keys)]
        for key in entries:
            cost = _cost(key) + (0 if topic in batch else head)
            if batch and size + cost > MAX_PAYLOAD_BYTES:
                yield _encode(origin, batch)
                batch, size = {}, empty
                cost = _cost(key) + head
            known = batch.setdefault(topic, [])
            if key is not None:
                known.append(key)
            size += cost
    if batch:
        yield _encode(origin, batch)


def _cost(key: str | None) -> int:
    """Bytes that a key adds to a payload, its comma included (`json.dumps` writes ASCII only)."""
    return 0 if key is None else len(json.dumps(key)) + 1


def _encode(origin: str, topics: Mapping[str, Sequence[str]]) -> str:
    return json.dumps({"o": origin, "t": topics}, separators=(",", ":"))


class Listener:
    """Hears the wake-ups of all other processes on one direct connection.

    It reconnects for ever. After each connect it calls `on_gap`, because anything may have been
    missed before: wake everything once. Handlers are called in the event loop and must not block.
    """

    def __init__(
        self,
        settings: Settings,
        handler: Callable[[str, Sequence[str]], None],
        origin: str,
        on_gap: Callable[[], None] = lambda: None,
    ) -> None:
        """`handler(topic, keys)` gets each topic that did not come from `origin`; no keys: all."""
        self._settings = settings
        self._handler = handler
        self._origin = origin
        self._on_gap = on_gap
        self._task: asyncio.Task[None] | None = None
        self.connected = asyncio.Event()
        """Set while the connection listens."""

    def start(self) -> None:
        """Connect and listen in a task of the current event loop."""
        if self._task is not None:
            raise RuntimeError("the listener was started before")
        self._task = asyncio.create_task(self._run(), name="listen")

    async def stop(self) -> None:
        """Close the connection and end the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                connection = await connect_direct(
                    self._settings, application_name="taskforge:listen"
                )
            except DATABASE_EXCEPTIONS as error:
                failures += 1
                log.warning("listener_cannot_connect", error=repr(error))
                await self._pause(failures)
                continue
            try:
                await self._listen(connection)
            except DATABASE_EXCEPTIONS as error:
                failures = 1 if self.connected.is_set() else failures + 1
                log.warning("listener_lost_connection", error=repr(error))
            finally:
                self.connected.clear()
                connection.terminate()
            await self._pause(failures)

    async def _listen(self, connection: "asyncpg.Connection[Any]") -> None:
        """Listen until the connection breaks, which raises."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(CHANNEL, self._receive)
        self.connected.set()
        log.debug("listener_connected")
        self._call(self._on_gap)
        while True:
            try:
                async with asyncio.timeout(_PING_SECONDS):
                    await lost.wait()
                raise ConnectionResetError("the server closed the connection")
            except TimeoutError:
                # A silent network loses notifications without a word; a question finds out.
                await connection.execute("SELECT 1", timeout=_PING_TIMEOUT)

    def _receive(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        try:
            message = json.loads(str(payload))
            if message["o"] == self._origin:
                return
            topics: dict[str, list[str]] = message["t"]
            for topic, keys in topics.items():
                self._call(self._handler, topic, keys)
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("notification_not_understood", payload=str(payload)[:200])

    def _call(self, function: Callable[..., None], *args: object) -> None:
        try:
            function(*args)
        except Exception:
            log.exception("notification_handler_failed")

    async def _pause(self, failures: int) -> None:
        longest = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(failures - 1, 30))
        await asyncio.sleep(longest * random.uniform(0.5, 1.0))
