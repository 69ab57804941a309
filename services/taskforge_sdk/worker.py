"""The worker: what users write handlers for."""

import asyncio
import logging
import os
import signal
import socket
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from taskforge_sdk.channels import DEFAULT_JOB_ADDRESS
from taskforge_sdk.conversion import seconds_of
from taskforge_sdk.credentials import ApiKey, Credential
from taskforge_sdk.models import Span
from taskforge_sdk.registry import Function, Registry
from taskforge_sdk.session import Session, WorkerOptions
from taskforge_sdk.tls import Tls

_MAX_CONCURRENCY = 10_000
_MAX_JOB_TYPES = 100

logger = logging.getLogger("taskforge.worker")


class Worker:
    """Runs jobs of the types that it has handlers for.

        worker = Worker(queues=["emails"], concurrency=20)

        @worker.job("send-email")
        async def send_email(job: JobContext) -> dict[str, str]:
            return {"sent_to": job.payload["to"]}

        worker.run_forever()

    `address`: of the job service. `queues`: ids or names; none means every queue of the project.
    `concurrency`: how many jobs run at once, 1 to 10,000; it asks for no more than it can run.
    `lease_duration`: how long jobs stay this worker's when it falls silent, 1 s to 1 h; heartbeats
    go out three times as often, so that a longer job is no reason for a longer lease.
    `worker_id`: a label for people; default host and process. `grace`: how long a stopped worker
    waits for its running handlers before it gives their jobs back.
    `api_key`, `tls` and `allow_plaintext_key` are those of `Client`.
    """

    def __init__(
        self,
        address: str = DEFAULT_JOB_ADDRESS,
        *,
        queues: Sequence[str] = (),
        concurrency: int = 10,
        lease_duration: Span = 30,
        worker_id: str | None = None,
        project_id: str = "",
        grace: Span = 30,
        api_key: ApiKey | None = None,
        tls: Tls | None = None,
        allow_plaintext_key: bool = False,
    ) -> None:
        self.session_id = ""
        """UUID of the session; drawn anew by each `run`."""
        self._worker_id = worker_id
        self._options = WorkerOptions(
            address=address,
            queues=tuple(queues),
            concurrency=_checked_concurrency(concurrency),
            lease_duration=seconds_of(lease_duration, "lease_duration"),
            worker_id="",
            project_id=project_id,
            grace=_grace(grace),
            credential=Credential(api_key),
            tls=tls,
            allow_plaintext_key=allow_plaintext_key,
        )
        self._registry = Registry()
        self._session: Session | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def options(self) -> WorkerOptions:
        """How the worker works."""
        worker_id = self._worker_id or f"{socket.gethostname()}:{os.getpid()}"
        return replace(self._options, worker_id=worker_id)

    @property
    def job_types(self) -> tuple[str, ...]:
        """The types that have handlers."""
        return self._registry.job_types

    def job(self, job_type: str) -> Callable[[Function], Function]:
        """Make the decorated function the handler of a type of job.

        It gets a `JobContext`, and what it returns, JSON or None, is the job's result. An `async
        def` runs in the event loop; any other function in a thread. A handler that raises `Retry`,
        `Fatal` or `Snooze` says itself what is to become of the job; any other exception is a
        failure, tried again by the queue's rules.
        """

        def register(function: Function) -> Function:
            return self._registry.register(job_type, function)

        return register

    def configure(
        self,
        *,
        address: str | None = None,
        queues: Sequence[str] | None = None,
        concurrency: int | None = None,
        lease_duration: Span | None = None,
        worker_id: str | None = None,
        project_id: str | None = None,
        grace: Span | None = None,
        api_key: ApiKey | None = None,
        tls: Tls | None = None,
        allow_plaintext_key: bool | None = None,
    ) -> None:
        """Change how the worker works from its next `run` on; None leaves a setting as it is.

        Raises ValueError for a value out of its limits, and as `run` does.
        """
        changes: dict[str, Any] = {
            "address": address,
            "queues": None if queues is None else tuple(queues),
            "concurrency": None if concurrency is None else _checked_concurrency(concurrency),
            "lease_duration": (
                None if lease_duration is None else seconds_of(lease_duration, "lease_duration")
            ),
            "project_id": project_id,
            "grace": None if grace is None else _grace(grace),
            "credential": None if api_key is None else Credential(api_key),
            "tls": tls,
            "allow_plaintext_key": allow_plaintext_key,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        options = replace(self._options, **given)
        options.check()
        self._options = options
        self._worker_id = worker_id or self._worker_id

    async def run(self, *, install_signal_handlers: bool = False) -> None:
        """Work until `stop` is called, then leave gracefully.

        With `install_signal_handlers`, SIGTERM and SIGINT call `stop`. A lost server is waited for.
        Raises TaskForgeError for what waiting does not cure, such as a queue that does not exist,
        after running jobs have ended as they do on `stop`; if the credential is refused, at once
        (Unauthenticated, PermissionDenied): nobody could be told how they ended. Raises ValueError
        for a key that would go out in plaintext, and for files of TLS that cannot be used.
        """
        if self._session is not None:
            raise RuntimeError("the worker runs already")
        if not 1 <= len(self.job_types) <= _MAX_JOB_TYPES:
            raise ValueError(f"a worker needs handlers for 1 to {_MAX_JOB_TYPES} types of jobs")
        self._options.check()
        loop = asyncio.get_running_loop()
        options = self.options
        self.session_id = str(uuid.uuid4())
        self._loop = loop
        self._session = session = Session(self.session_id, options, self._registry)
        signals = (signal.SIGTERM, signal.SIGINT) if install_signal_handlers else ()
        before = {number: signal.getsignal(number) for number in signals}
        for number in signals:
            loop.add_signal_handler(number, session.stop)
        logger.info(
            "worker %s takes %s from %s, %d at once",
            options.worker_id,
            ", ".join(self.job_types),
            ", ".join(options.queues) or "every queue",
            options.concurrency,
        )
        try:
            await session.run()
        finally:
            self._session = None
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def stop(self) -> None:
        """Take no more jobs and leave when the running ones have ended, at most `grace` later.

        Called again, it gives them back at once. From any thread; without effect when not running.
        """
        session, loop = self._session, self._loop
        if session is not None and loop is not None:
            loop.call_soon_threadsafe(session.stop)

    def run_forever(self) -> None:
        """Work until SIGTERM or SIGINT, in an event loop of its own: the main function of a worker.

        A second signal does not wait for running jobs. Raises what `run` does.
        """
        asyncio.run(self.run(install_signal_handlers=True))

    main = run_forever


def _checked_concurrency(concurrency: int) -> int:
    if not 1 <= concurrency <= _MAX_CONCURRENCY:
        raise ValueError(f"concurrency is 1 to {_MAX_CONCURRENCY:,}, not {concurrency}")
    return concurrency


def _grace(span: Span) -> float:
    return 0.0 if span == 0 else seconds_of(span, "grace")
