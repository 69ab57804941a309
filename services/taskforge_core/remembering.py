"""What was read from the database a moment ago: for what every call needs and few calls change."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from datetime import timedelta
from itertools import islice
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

REFRESH_EVERY = timedelta(seconds=2)
"""How often what is in use is read anew."""

_MAX_AGE_SECONDS = 2 * REFRESH_EVERY.total_seconds()
"""After this a value is not used any more, should refreshing fail."""

_KEYS_A_READ = 1000


class _Entry(Generic[Value]):
    __slots__ = ("is_used", "read_at", "value")

    def __init__(self, value: Value, read_at: float) -> None:
        self.value = value
        self.read_at = read_at
        self.is_used = True


class Remembered(Generic[Key, Value]):
    """Values by key, each at most 4 s old.

    `refresh` reads all that was used since the last time, or is needed, anew and forgets the rest,
    so that a call waits for the database only when it is the first for long to ask for something.
    Keys that are asked for at the same time are read by one statement, and one such statement runs
    at a time: callers who ask for a thousand things that do not exist keep one connection busy, not
    all. What does not exist is not remembered, so that invented keys cannot fill the memory.
    """

    def __init__(self, load: Callable[[list[Key]], Awaitable[Mapping[Key, Value]]]) -> None:
        """`load` reads the values of at most 1,000 keys; keys that do not exist are left out."""
        self._load = load
        self._entries: dict[Key, _Entry[Value]] = {}
        self._wanted: dict[Key, asyncio.Future[Value | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    def peek(self, key: Key) -> Value | None:
        """The value, if it is known and fresh enough."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry.is_used = True
        is_fresh = time.monotonic() - entry.read_at <= _MAX_AGE_SECONDS
        return entry.value if is_fresh else None

    async def get(self, key: Key) -> Value | None:
        """The value; None if there is no such thing. Waits for the database if it must."""
        value = self.peek(key)
        if value is not None:
            return value
        answer = self._wanted.get(key)
        if answer is None:
            answer = self._wanted[key] = asyncio.get_running_loop().create_future()
            # An error is for whoever still waits; it is no defect if nobody does.
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read_wanted(), name="read wanted")
        return await asyncio.shield(answer)

    async def refresh(self, needed: Iterable[Key] = ()) -> None:
        """Read anew what is in use or needed, and forget the rest; the pass of a loop."""
        in_use = {key for key, entry in self._entries.items() if entry.is_used}.union(needed)
        for key in self._entries.keys() - in_use:
            del self._entries[key]
        used = list(in_use)
        for start in range(0, len(used), _KEYS_A_READ):
            keys = used[start : start + _KEYS_A_READ]
            await self._read(keys)
            for key in keys:
                if key in self._entries:
                    self._entries[key].is_used = False

    async def _read_wanted(self) -> None:
        while self._wanted:
            answers = {key: self._wanted[key] for key in islice(self._wanted, _KEYS_A_READ)}
            for key in answers:
                del self._wanted[key]
            try:
                values = await self._read(answers)
            except BaseException as error:
                for answer in answers.values():
                    answer.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for key, answer in answers.items():
                answer.set_result(values.get(key))

    async def _read(self, keys: Iterable[Key]) -> Mapping[Key, Value]:
        # Before the statement: what it reads is at least as new as this.
        read_at = time.monotonic()
        values = await self._load(list(keys))
        for key in keys:
            if key in values:
                self._entries[key] = _Entry(values[key], read_at)
            else:
                self._entries.pop(key, None)
        return values
