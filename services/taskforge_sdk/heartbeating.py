"""The heartbeat: renews all that the worker holds, carries progress, hears what was lost."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final

from taskforge.v1 import job_service_pb2 as pb
from taskforge_sdk.connection import Connection
from taskforge_sdk.errors import (
    InvalidRequest,
    PermissionDenied,
    TaskForgeError,
    Unauthenticated,
)
from taskforge_sdk.holding import Held, Holdings
from taskforge_sdk.retrying import RetryPolicy

MAX_HELD: Final = 10_000
"""How many leases a heartbeat lists at most, by the contract."""

_PROGRESS_SPACING: Final = 1.0
"""Seconds between two heartbeats that are sent early for the sake of progress."""

_CANCEL_REQUESTED = pb.LeaseVerdict.VERDICT_CANCEL_REQUESTED
_LOST = pb.LeaseVerdict.VERDICT_LOST

logger = logging.getLogger("taskforge.worker")


def interval_for(lease_duration: float) -> float:
    """Seconds between two heartbeats: three in a lease, at least one in 10 s."""
    return min(lease_duration / 3, 10.0)


class Heartbeater:
    """Sends a heartbeat every `interval` seconds while anything is held, or may be amiss."""

    def __init__(
        self,
        connection: Connection,
        holdings: Holdings,
        *,
        project_id: str,
        session_id: str,
        interval: float,
        policy: RetryPolicy,
        on_cancel: Callable[[str], None],
        on_lost: Callable[[str], None],
        stream_number: Callable[[], int],
        on_reconnect: Callable[[int], None],
    ) -> None:
        """`on_reconnect` gets what `stream_number` was before the heartbeat that says it."""
        self._connection = connection
        self._holdings = holdings
        self._project_id = project_id
        self._session_id = session_id
        self._interval = interval
        self._policy = policy
        self._on_cancel = on_cancel
        self._on_lost = on_lost
        self._stream_number = stream_number
        self._on_reconnect = on_reconnect
        self._loop = asyncio.get_running_loop()
        self._progress = asyncio.Event()
        self._progress_waits = False
        self._sequence = 0
        self._failures = 0

    def hurry(self) -> None:
        """There is progress to report; from any thread."""
        if not self._progress_waits:
            self._progress_waits = True
            self._loop.call_soon_threadsafe(self._progress.set)

    async def run(self) -> None:
        """Send heartbeats until cancelled; raises the error if the credential is refused."""
        last = time.monotonic()
        while True:
            await self._wait_until_due(last)
            last = time.monotonic()
            self._progress_waits = False
            self._progress.clear()
            # Also while nothing is held: a session that was taken for dead gets no jobs until it
            # speaks, and a lease that was lost on its way is given back for not being listed.
            await self.run_once()

    async def run_once(self) -> None:
        """Send one heartbeat with all that is held, and do what its answer says."""
        self._sequence += 1
        listed = self._holdings.listed()[:MAX_HELD]
        carried = [(held, held.progress) for held in listed if held.progress is not None]
        stream = self._stream_number()
        request = pb.HeartbeatRequest(
            project_id=self._project_id,
            session_id=self._session_id,
            sequence=self._sequence,
            held=[pb.HeldLease(lease_token=held.token, progress=held.progress) for held in listed],
        )
        try:
            answer: pb.HeartbeatResponse = await self._connection.call(
                "Heartbeat", request, seconds=max(self._interval, 2.0)
            )
        except (Unauthenticated, PermissionDenied):
            raise
        except TaskForgeError as error:
            self._failed(error, carried)
            return
        self._failures = 0
        _drop_progress(carried)
        for verdict in answer.verdicts:
            if verdict.verdict == _CANCEL_REQUESTED:
                self._on_cancel(verdict.lease_token)
            elif verdict.verdict == _LOST:
                self._on_lost(verdict.lease_token)
        if answer.reconnect:
            self._on_reconnect(stream)

    def _failed(self, error: TaskForgeError, carried: list[tuple[Held, str]]) -> None:
        self._failures += 1
        logger.warning("a heartbeat failed: %s", error)
        if isinstance(error, InvalidRequest):
            # A progress that the server does not take must not cost the leases.
            _drop_progress(carried)

    async def _wait_until_due(self, last: float) -> None:
        due = last + self._interval
        if self._failures:
            due = min(due, last + self._policy.backoff(self._failures, random.random()))
        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                await self._progress.wait()
        except TimeoutError:
            return
        spacing = last + _PROGRESS_SPACING - time.monotonic()
        await asyncio.sleep(max(0.0, min(spacing, due - time.monotonic())))


def _drop_progress(carried: list[tuple[Held, str]]) -> None:
    for held, progress in carried:
        if held.progress is progress:
            held.progress = None
