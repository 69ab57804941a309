"""Settling: telling the server how jobs ended, many at a time.

Settlements that pile up while a call is in flight ride in the next one; at most two calls are in
flight, and there is no timer, so that a lone settlement leaves at once. A call without an answer
is repeated with the same tokens until there is one: only then is the lease held no longer.
"""

import asyncio
import logging
import random
import time
from collections import deque
from typing import Final

from taskforge.v1 import job_service_pb2 as pb
from taskforge_sdk import outcomes
from taskforge_sdk.connection import Connection
from taskforge_sdk.errors import (
    InvalidRequest,
    LeaseLost,
    PermissionDenied,
    ResourceExhausted,
    TaskForgeError,
    Unauthenticated,
    Unavailable,
    from_status,
)
from taskforge_sdk.holding import Held, Holdings
from taskforge_sdk.retrying import RetryPolicy

MAX_BATCH: Final = 1_000
"""How many settlements a call takes, by the contract."""

MAX_BATCH_BYTES: Final = 3_000_000
"""Where a batch is cut: a request is at most 4 MiB, a settlement at most a bit more than 1 MiB."""

_CALLS_IN_FLIGHT: Final = 2
_CALL_TIMEOUT: Final = 10.0
_REFUSALS: Final = 5
"""How often a settlement may fail with a fault in the server before it is given up."""

logger = logging.getLogger("taskforge.worker")


class _Entry:
    """A settlement that waits for its answer."""

    __slots__ = ("held", "refusals", "settlement")

    def __init__(self, held: Held, settlement: pb.Settlement) -> None:
        self.held = held
        self.settlement = settlement
        self.refusals = 0


class Settler:
    """Sends settlements; a lease whose settlement was answered is held no longer."""

    def __init__(self, connection: Connection, holdings: Holdings, policy: RetryPolicy) -> None:
        self._connection = connection
        self._holdings = holdings
        self._policy = policy
        self._pending: deque[_Entry] = deque()
        self._senders: set[asyncio.Task[None]] = set()
        self._starting = False
        self._paused = False
        self.last_answer = float("-inf")
        """When the last settlement was answered, by `time.monotonic()`."""

    def add(self, held: Held, settlement: pb.Settlement) -> None:
        """Settle a lease; it stays held until the answer."""
        held.settling = True
        self._pending.append(_Entry(held, settlement))
        self._start()

    def pause(self) -> None:
        """Begin no call until `resume`."""
        self._paused = True

    async def calm(self, seconds: float) -> None:
        """Wait until no call is in flight, at most so long."""
        if self._senders:
            await asyncio.wait(self._senders, timeout=seconds)

    def resume(self) -> None:
        """Send what has piled up, and go on."""
        self._paused = False
        self._start()

    async def finish(self, seconds: float) -> None:
        """Wait until all is answered, at most so long, and send nothing afterwards."""
        deadline = time.monotonic() + seconds
        while self._senders and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait(self._senders, timeout=left)
        self._paused = True
        senders = list(self._senders)
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)

    def _start(self) -> None:
        # A sender that has not begun yet will take what has come meanwhile.
        if self._starting or self._paused or not self._pending:
            return
        if len(self._senders) < _CALLS_IN_FLIGHT:
            self._starting = True
            sender = asyncio.create_task(self._send_pending())
            self._senders.add(sender)
            sender.add_done_callback(self._sender_ended)

    def _sender_ended(self, sender: asyncio.Task[None]) -> None:
        self._senders.discard(sender)
        self._start()

    async def _send_pending(self) -> None:
        self._starting = False
        while self._pending and not self._paused:
            batch = self._take()
            try:
                await self._settle(batch)
            except Exception:
                logger.exception("%d settlements were given up", len(batch))
                for entry in batch:
                    self._holdings.forget(entry.held.token)

    def _take(self) -> list[_Entry]:
        pending = self._pending
        batch: list[_Entry] = []
        size = 0
        while pending and len(batch) < MAX_BATCH:
            size += pending[0].settlement.ByteSize() + 8  # the field's tag and length
            if batch and size > MAX_BATCH_BYTES:
                break
            batch.append(pending.popleft())
        return batch

    async def _settle(self, batch: list[_Entry]) -> None:
        """Send a batch until each of its settlements is answered, or will never be."""
        failures = 0
        while batch:
            answers: list[TaskForgeError | None]
            try:
                answers = await self._call(batch)
            except TaskForgeError as error:
                if len(batch) > 1 and _may_be_one_items_fault(error, batch):
                    # One bad item must not fail its neighbours.
                    half = len(batch) // 2
                    await self._settle(batch[:half])
                    batch = batch[half:]
                    continue
                answers = [error] * len(batch)
            again = [
                (entry, error)
                for entry, error in zip(batch, answers, strict=True)
                if error is not None and self._is_to_be_repeated(entry, error)
            ]
            batch = [entry for entry, _ in again]
            if again:
                failures += 1
                wait = self._policy.backoff(failures, random.random())
                logger.warning(
                    "%d settlements are repeated in %.2f s: %s", len(again), wait, again[0][1]
                )
                await asyncio.sleep(wait)

    async def _call(self, batch: list[_Entry]) -> list[TaskForgeError | None]:
        """One call; what each settlement was answered. Those that are done are forgotten."""
        request = pb.BatchSettleJobsRequest(settlements=[entry.settlement for entry in batch])
        answer: pb.BatchSettleJobsResponse = await self._connection.call(
            "BatchSettleJobs", request, seconds=_CALL_TIMEOUT
        )
        if len(answer.results) != len(batch):
            raise TaskForgeError("the server answered another number of settlements")
        self.last_answer = time.monotonic()
        errors: list[TaskForgeError | None] = []
        for entry, result in zip(batch, answer.results, strict=True):
            if result.HasField("error"):
                errors.append(from_status(result.error))
            else:
                self._holdings.forget(entry.held.token)
                errors.append(None)
        return errors

    def _is_to_be_repeated(self, entry: _Entry, error: TaskForgeError) -> bool:
        """Deal with a settlement that was not done; whether to send it again."""
        held = entry.held
        match error:
            case Unavailable():
                return True
            case LeaseLost():
                logger.warning(
                    "the lease of job %s was lost before its settlement",
                    held.job.id,
                    extra=held.log_fields,
                )
                self._holdings.lose(held.token)
                return False
            case InvalidRequest():
                other = outcomes.substitute(entry.settlement, error.message)
                if other is not None:
                    entry.settlement = other
                    return True
            case Unauthenticated() | PermissionDenied():
                pass  # the worker is about to stop, see `Heartbeater`
            case _ if entry.refusals < _REFUSALS:
                entry.refusals += 1
                return True
        logger.error(
            "job %s cannot be settled, its lease will expire: %s",
            held.job.id,
            error,
            extra=held.log_fields,
        )
        self._holdings.forget(held.token)
        return False


def _may_be_one_items_fault(error: TaskForgeError, batch: list[_Entry]) -> bool:
    """Whether a call that failed as a whole may succeed in parts."""
    if isinstance(error, InvalidRequest | ResourceExhausted):
        return True
    return not isinstance(error, Unavailable) and batch[0].refusals >= _REFUSALS
