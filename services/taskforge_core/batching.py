"""Lets calls that arrive while a transaction is in flight ride together in the next one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, TypeVar
from uuid import UUID

from taskforge_core.database_errors import (
    DATABASE_EXCEPTIONS,
    is_conflict,
    is_data_error,
    translate_database_error,
)
from taskforge_core.errors import TaskForgeError, Unavailable

Item = TypeVar("Item")
Answer = TypeVar("Answer")

Run = Callable[[UUID, list[Item]], Awaitable[Sequence[Answer | TaskForgeError]]]
"""Does the work of one batch in one transaction: the project, its items, one answer an item."""

MAX_IN_FLIGHT = 2
"""While one batch waits for its commit the next can be prepared; more only make them smaller."""

MAX_BATCH_BYTES = 16 * 1024 * 1024
"""A larger batch holds up the small ones behind it for longer than sharing a commit saves."""

MAX_WAITING_BYTES = 128 * 1024 * 1024
"""What one project's calls may have waiting: seconds of work. Without a bound memory would grow for
as long as a database is slow."""

_RETRY_WHEN_BUSY = timedelta(seconds=1)
_BYTES_AN_ITEM = 500
"""What an item takes beside its own bytes, roughly."""


@dataclass(slots=True)
class _Call(Generic[Item, Answer]):
    items: Sequence[Item]
    size: int
    """In bytes."""
    answers: "asyncio.Future[Sequence[Answer | TaskForgeError]]"


@dataclass(slots=True)
class _Line(Generic[Item, Answer]):
    """A project's calls that wait, longest first."""

    calls: "deque[_Call[Item, Answer]]" = field(default_factory=deque)
    items: int = 0
    size: int = 0
    """In bytes."""

    def append(self, call: "_Call[Item, Answer]") -> None:
        self.calls.append(call)
        self.items += len(call.items)
        self.size += call.size

    def pop(self) -> "_Call[Item, Answer]":
        call = self.calls.popleft()
        self.items -= len(call.items)
        self.size -= call.size
        return call


class Batcher(Generic[Item, Answer]):
    """Collects the items of concurrent calls into batches, one project each.

    There is no timer (but see `linger`): an item that comes while nothing is in flight starts at
    once, so an idle system pays nothing, and a busy one finds its batches filled by the time the
    last one took.
    Projects take turns, so that one with many calls cannot hold up the others.

    A batch that fails on its data, on a deadlock or on a lock timeout is halved and run again, down
    to the single item: one bad item never fails its neighbours. What waits is bounded, and a call
    whose caller has left before its batch began is not run.
    """

    def __init__(
        self,
        run: "Run[Item, Answer]",
        *,
        max_items: int = 1000,
        overlap_items: int = 1,
        linger: float = 0.0,
        weigh: Callable[[Item], int] = lambda _: 0,
    ) -> None:
        """Describe the batches.

        Args:
            run: Does the work of one.
            max_items: What a batch holds at most, or one call's items where those are more.
            overlap_items: How many items must wait before a project has two batches in flight. One
                that may wait for a lock should not hold up the next; elsewhere small batches
                that overlap cost more than one of twice the size.
            linger: Seconds that an item waits for others before its batch begins, where answers are
                not urgent and what matters is that there are few batches.
            weigh: An item's size in bytes: a batch has at most 16 MiB, or one call's items.
        """
        self._run = run
        self._max_items = max_items
        self._overlap_items = overlap_items
        self._linger = linger
        self._weigh = weigh
        self._waiting: dict[UUID, _Line[Item, Answer]] = {}
        """By project, in the order of their turns."""
        self._in_flight: dict[asyncio.Task[None], UUID] = {}

    async def submit_all(
        self, project_id: UUID, items: Sequence[Item]
    ) -> Sequence[Answer | TaskForgeError]:
        """Run the items in some batch; an item's answer may be the error that it alone met.

        A batch that has begun is finished even when the caller stops waiting for it.

        Raises:
            Unavailable: Too much of the project's waits already (`DATABASE_UNAVAILABLE`).
        """
        size = sum(map(self._weigh, items)) + len(items) * _BYTES_AN_ITEM
        line = self._waiting.get(project_id)
        if line is not None and line.size + size > MAX_WAITING_BYTES:
            raise Unavailable(
                "DATABASE_UNAVAILABLE",
                "too many calls of the project wait for the database",
                retry_after=_RETRY_WHEN_BUSY,
            )
        loop = asyncio.get_running_loop()
        answers: asyncio.Future[Sequence[Answer | TaskForgeError]] = loop.create_future()
        is_first = line is None
        if line is None:
            line = self._waiting[project_id] = _Line()
        line.append(_Call(items, size, answers))
        if not self._linger:
            self._start_batches()
        elif is_first:
            loop.call_later(self._linger, self._start_batches)
        return await answers

    async def submit(self, project_id: UUID, item: Item) -> Answer:
        """Run one item in some batch.

        Raises:
            TaskForgeError: What the item met.
        """
        answer = (await self.submit_all(project_id, (item,)))[0]
        if isinstance(answer, TaskForgeError):
            raise answer
        return answer

    async def idle(self) -> None:
        """Wait until everything that was submitted is answered."""
        while self._in_flight:
            await asyncio.wait(self._in_flight)

    def _start_batches(self) -> None:
        for project_id in list(self._waiting):
            if len(self._in_flight) == MAX_IN_FLIGHT:
                break
            line = self._waiting[project_id]
            if line.items < self._overlap_items and project_id in self._in_flight.values():
                continue
            batch = self._next_batch(project_id, line)
            if batch:
                task = asyncio.create_task(self._answer(project_id, batch), name="batch")
                self._in_flight[task] = project_id
                task.add_done_callback(self._finished)

    def _next_batch(
        self, project_id: UUID, line: "_Line[Item, Answer]"
    ) -> "list[_Call[Item, Answer]]":
        """The project's calls that wait longest and fit together; its turn is over."""
        batch: list[_Call[Item, Answer]] = []
        items = size = 0
        while line.calls:
            call = line.calls[0]
            if call.answers.done():
                # Its caller has left before anything was begun.
                line.pop()
                continue
            items, size = items + len(call.items), size + call.size
            if batch and (items > self._max_items or size > MAX_BATCH_BYTES):
                break
            batch.append(line.pop())
        del self._waiting[project_id]
        if line.calls:
            self._waiting[project_id] = line
        return batch

    def _finished(self, task: "asyncio.Task[None]") -> None:
        del self._in_flight[task]
        self._start_batches()

    async def _answer(self, project_id: UUID, batch: list[_Call[Item, Answer]]) -> None:
        items = [item for call in batch for item in call.items]
        try:
            answers = await self._run_or_halve(project_id, items)
        except BaseException as error:
            for call in batch:
                if not call.answers.done():
                    call.answers.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for call in batch:
            end = start + len(call.items)
            # A caller that was cancelled no longer waits.
            if not call.answers.done():
                call.answers.set_result(answers[start:end])
            start = end

    async def _run_or_halve(
        self, project_id: UUID, items: list[Item]
    ) -> Sequence[Answer | TaskForgeError]:
        try:
            return await self._run(project_id, items)
        except DATABASE_EXCEPTIONS as error:
            if not (is_data_error(error) or is_conflict(error)):
                raise
            if len(items) == 1:
                return [translate_database_error(error)]
        middle = len(items) // 2
        first = await self._run_or_halve(project_id, items[:middle])
        second = await self._run_or_halve(project_id, items[middle:])
        return [*first, *second]
