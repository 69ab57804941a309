"""One run of a worker: a session with its stream, heartbeat, handlers and settling, and its end.

    run ──▶ stop ──▶ no new jobs ──▶ handlers end (grace) ──▶ the rest is given back ──▶ settled
                                       │ a second stop ──────▶┘

The heartbeat goes on until the last settlement is answered.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from taskforge.v1 import job_service_pb2 as pb
from taskforge_sdk.channels import refuse_plaintext_key
from taskforge_sdk.connection import Connection
from taskforge_sdk.conversion import duration_of
from taskforge_sdk.credentials import Credential
from taskforge_sdk.errors import PermissionDenied, Unauthenticated
from taskforge_sdk.heartbeating import Heartbeater, interval_for
from taskforge_sdk.holding import Holdings
from taskforge_sdk.registry import Registry
from taskforge_sdk.retrying import RetryPolicy
from taskforge_sdk.running import Runner
from taskforge_sdk.settling import Settler
from taskforge_sdk.streaming import Streamer
from taskforge_sdk.tls import Security, Tls

_LAST_SETTLEMENTS: Final = 5.0
"""Seconds in which the last settlements must be answered when the worker leaves."""

_LONGEST_BACKOFF: Final = 2.0
"""Seconds after which a lost server is looked for again at the latest."""

_CALM: Final = 1.0
"""Seconds for which settlements in flight are waited for before the stream is closed."""

_REFILL: Final = 1.0
"""Seconds after an answered settlement within which new jobs may be on their way for it."""

logger = logging.getLogger("taskforge.worker")


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works; `lease_duration` and `grace` are in seconds."""

    address: str
    queues: tuple[str, ...]
    concurrency: int
    lease_duration: float
    worker_id: str
    project_id: str
    grace: float
    credential: Credential
    tls: Tls | None = None
    allow_plaintext_key: bool = False

    def check(self) -> None:
        """Raise ValueError if the key would go out readable for everybody, or TLS has no files."""
        Security(self.tls)
        if self.credential.is_given and self.tls is None and not self.allow_plaintext_key:
            refuse_plaintext_key([self.address])


class Session:
    """A session of the worker protocol, from its first stream to its last settlement."""

    def __init__(self, session_id: str, options: WorkerOptions, registry: Registry) -> None:
        policy = RetryPolicy(maximum=_LONGEST_BACKOFF)
        self._options = options
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._connection = Connection(options.address, options.credential, Security(options.tls))
        self._holdings = Holdings()
        self._settler = Settler(self._connection, self._holdings, policy)
        self._runner = Runner(
            registry,
            self._holdings,
            self._settler,
            slots=options.concurrency,
            on_progress=self._hurry_heartbeat,
        )
        request = pb.LeaseJobsRequest(
            project_id=options.project_id,
            queues=options.queues,
            job_types=registry.job_types,
            session_id=session_id,
            worker_id=options.worker_id,
            max_in_flight=options.concurrency,
            lease_duration=duration_of(options.lease_duration, "lease_duration"),
        )
        self._streamer = Streamer(
            self._connection,
            request,
            self._runner,
            policy,
        )
        self._heartbeater = Heartbeater(
            self._connection,
            self._holdings,
            project_id=options.project_id,
            session_id=session_id,
            interval=interval_for(options.lease_duration),
            policy=policy,
            on_cancel=self._runner.cancel,
            on_lost=self._runner.lose,
            stream_number=lambda: self._streamer.number,
            on_reconnect=self._streamer.reconnect,
        )

    def stop(self) -> None:
        """Leave gracefully; called again: at once."""
        if self._stopping.is_set():
            self._hurrying.set()
        else:
            self._stopping.set()
            self._start_nothing_more()

    async def run(self) -> None:
        """Work until `stop`; raises what waiting does not cure, after leaving gracefully."""
        streaming = asyncio.create_task(self._streamer.run(), name="taskforge-stream")
        beating = asyncio.create_task(self._heartbeater.run(), name="taskforge-heartbeat")
        stopping = asyncio.create_task(self._stopping.wait(), name="taskforge-stop")
        tasks = [streaming, beating, stopping]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await self._leave(0 if _are_refused(ended) else self._options.grace)
        except asyncio.CancelledError:
            await self._leave(0)
            raise
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._connection.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _hurry_heartbeat(self) -> None:
        self._heartbeater.hurry()

    def _start_nothing_more(self) -> None:
        # Each answered settlement makes the server send another job. None is sent from here until
        # the stream is closed, so that no job is on its way to a worker that no longer listens.
        self._settler.pause()
        self._runner.close()

    async def _leave(self, grace: float) -> None:
        logger.info("leaving: %d jobs are held", len(self._holdings))
        self._start_nothing_more()
        await self._settler.calm(_CALM)
        just_settled = time.monotonic() - self._settler.last_answer < _REFILL
        await self._streamer.close(quietly=just_settled)
        self._settler.resume()
        await self._wait_for_handlers(grace)
        abandoned = await self._runner.abandon()
        await self._settler.finish(_LAST_SETTLEMENTS)
        self._runner.shut_down()
        logger.info(
            "left: %d running jobs given back, %d unsettled", abandoned, len(self._holdings)
        )

    async def _wait_for_handlers(self, grace: float) -> None:
        idle = asyncio.ensure_future(self._runner.idle())
        hurrying = asyncio.ensure_future(self._hurrying.wait())
        try:
            await asyncio.wait({idle, hurrying}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()
            hurrying.cancel()
            await asyncio.gather(idle, hurrying, return_exceptions=True)


def _are_refused(ended: Iterable[asyncio.Task[Any]]) -> bool:
    """Whether the credential is refused: nothing that is held can be renewed or settled then."""
    for task in ended:
        error = task.exception()
        if isinstance(error, Unauthenticated | PermissionDenied):
            logger.error("the worker stops, since its credential is refused: %s", error)
            return True
    return False
