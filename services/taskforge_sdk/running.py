"""Running handlers: async ones as tasks, the others in threads, never more than there are slots."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Final

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_sdk import outcomes
from taskforge_sdk.context import JobContext
from taskforge_sdk.holding import Held, Holdings, Stop
from taskforge_sdk.registry import Registered, Registry
from taskforge_sdk.settling import Settler
from taskforge_sdk.threads import ThreadPool

_STOPPING: Final = 1.0
"""Seconds that cancelled handlers have to end before their jobs are given back regardless."""

logger = logging.getLogger("taskforge.worker")


class Runner:
    """Runs what is leased, and settles it when it has ended.

    The server sends no more than there are slots. More comes only in passing, when a stream is
    replaced, or when handlers do not stop though their leases are lost: it waits here for a slot.
    """

    def __init__(
        self,
        registry: Registry,
        holdings: Holdings,
        settler: Settler,
        *,
        slots: int,
        on_progress: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._holdings = holdings
        self._settler = settler
        self._slots = slots
        self._on_progress = on_progress
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Held] = deque()
        self._running: set[Held] = set()
        self._threads = ThreadPool(slots)
        self._closed = False
        self._idle: asyncio.Future[None] | None = None

    def accept(self, leases: Iterable[job_pb2.Lease]) -> None:
        """Hold these leases and run their jobs, as far as they are not held already."""
        for lease in leases:
            held = self._holdings.take(lease)
            if held is None:
                logger.debug("job %s was delivered again", lease.job.id)
            elif self._closed:
                self._settler.add(held, outcomes.release(held.token))
            elif len(self._running) < self._slots:
                self._start(held)
            else:
                self._waiting.append(held)

    def cancel(self, token: str) -> None:
        """The job of this lease was cancelled: stop its handler and settle what comes of it."""
        held = self._holdings.get(token)
        if held is None or held.settling or held.stop is not None:
            return
        logger.info("job %s is cancelled", held.job.id, extra=held.log_fields)
        self._stop(held, Stop.CANCELLED)
        if held not in self._running:
            self._waiting.remove(held)
            self._settler.add(held, outcomes.failed(token, Stop.CANCELLED.value))

    def lose(self, token: str) -> None:
        """This lease is held no longer: stop its handler and settle nothing."""
        held = self._holdings.get(token)
        if held is None:
            self._holdings.forget(token)  # should it still be delivered
            return
        if held.settling:
            return  # it may be lost because it was settled: the settlement's answer tells
        if held.stop is not Stop.TIMED_OUT:
            logger.warning("the lease of job %s was lost", held.job.id, extra=held.log_fields)
        self._holdings.lose(token)
        self._stop(held, Stop.LOST)
        if held not in self._running:
            with suppress(ValueError):
                self._waiting.remove(held)

    def close(self) -> None:
        """Start nothing more: what waits, and what still comes, is given back."""
        self._closed = True
        while self._waiting:
            held = self._waiting.popleft()
            self._settler.add(held, outcomes.release(held.token))

    async def idle(self) -> None:
        """Wait until no handler runs."""
        if self._running:
            self._idle = self._loop.create_future()
            await self._idle

    async def abandon(self) -> int:
        """Stop every handler and give its job back; returns how many there were.

        Async handlers are cancelled, and all have a second to end. A thread cannot be stopped: its
        job is given back while it may still run.
        """
        rest = [held for held in self._running if held.stop is None]
        for held in rest:
            self._stop(held, Stop.LEAVING)
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOPPING):
                await self.idle()
        for held in self._running:
            if held.stop in {Stop.LEAVING, Stop.CANCELLED}:
                self._settler.add(held, outcomes.release(held.token))
        return len(rest)

    def shut_down(self) -> None:
        """Let the threads go."""
        self._threads.close()

    def _start(self, held: Held) -> None:
        self._running.add(held)
        handler = self._registry.find(held.job.job_type)
        if handler is None:
            message = f"this worker has no handler for {held.job.job_type!r}"
            self._ended(held, outcomes.failed(held.token, message))
            return
        if held.deadline is not None:
            delay = held.deadline - self._loop.time()
            held.timer = self._loop.call_later(max(0.0, delay), self._time_out, held)
        context = JobContext(held, self._on_progress)
        if handler.is_async:
            held.task = self._loop.create_task(self._run(held, handler, context))
        else:
            self._threads.submit(partial(self._run_in_thread, held, handler, context))

    async def _run(self, held: Held, handler: Registered, context: JobContext) -> None:
        held.entered = True
        try:
            context.raise_if_cancelled()  # stopped before it began
            settlement = outcomes.success(held.token, await handler.function(context))
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001 - the border
            settlement = self._after_error(held, error)
        self._ended(held, settlement)

    def _run_in_thread(self, held: Held, handler: Registered, context: JobContext) -> None:
        try:
            context.raise_if_cancelled()  # stopped before it began
            settlement = outcomes.success(held.token, handler.function(context))
        except BaseException as error:  # noqa: BLE001 - the border: nobody else looks at this thread
            settlement = self._after_error(held, error)
        with suppress(RuntimeError):  # the loop is closed: the job has been given back
            self._loop.call_soon_threadsafe(self._ended, held, settlement)

    def _after_error(self, held: Held, error: BaseException) -> pb.Settlement:
        settlement = outcomes.after_error(held.token, error, held.stop)
        if held.stop is None and not isinstance(error, outcomes.Outcome):
            logger.warning(
                "job %s (%s) failed in attempt %d: %s",
                held.job.id,
                held.job.job_type,
                held.job.attempt_count,
                settlement.failure.message,
                extra=held.log_fields,
            )
        return settlement

    def _ended(self, held: Held, settlement: pb.Settlement) -> None:
        """A handler has ended: settle, and give its slot to the next."""
        self._running.discard(held)
        held.task = None
        if held.timer is not None:
            held.timer.cancel()
        # What was lost is the server's already, and so is what has timed out: it stays listed until
        # the server says so. What was given back while it ran is being settled.
        ours = held.stop is not Stop.LOST and held.stop is not Stop.TIMED_OUT
        if ours and not held.settling:
            self._settler.add(held, settlement)
        while self._waiting and len(self._running) < self._slots:
            self._start(self._waiting.popleft())
        if self._idle is not None and not self._running and not self._idle.done():
            self._idle.set_result(None)

    def _time_out(self, held: Held) -> None:
        if held in self._running and held.stop is not Stop.LOST:
            logger.warning("job %s has timed out", held.job.id, extra=held.log_fields)
            self._stop(held, Stop.TIMED_OUT)

    def _stop(self, held: Held, stop: Stop) -> None:
        told, held.stop = held.stop, stop
        # A task that has not begun looks itself; cancelled now, it would not run at all. One that
        # was told before is left to clean up.
        if told is None and held.task is not None and held.entered:
            held.task.cancel()
