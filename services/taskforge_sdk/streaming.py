"""The lease stream: opened again with the same session for as long as the worker runs.

open ──▶ leases, cancel, lost, keepalive …
  ▲         │ drain, or a heartbeat says `reconnect`: the next stream is opened over a new
  │         │ connection, and the old one is read to its end, so that no lease on it is missed
  │         │ ends, breaks, is silent, is replaced
  └─ wait ──┘
"""

import asyncio
import logging
import random
from collections.abc import Iterable
from typing import Final, Protocol

import grpc
import grpc.aio

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_sdk.connection import Connection
from taskforge_sdk.credentials import Metadata
from taskforge_sdk.errors import (
    InvalidRequest,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    StreamReplaced,
    TaskForgeError,
    Unauthenticated,
    Unavailable,
    from_rpc_error,
)
from taskforge_sdk.retrying import RetryPolicy

SILENCE: Final = 45.0
"""Seconds without a message after which a stream is given up: three times the keepalive's 15 s."""

_HANDED_OVER: Final = 30.0
"""Seconds for which a stream is still read after another has taken its place."""

_QUIET: Final = 0.1
"""A closing stream is read until nothing has come for so many seconds …"""

_CLOSING: Final = 1.0
"""… and for no more than these."""

_HOPELESS: Final = (
    InvalidRequest, NotFound, Unauthenticated, PermissionDenied, PreconditionFailed,
)  # fmt: skip
"""What waiting does not cure: the worker ends with the error."""

logger = logging.getLogger("taskforge.worker")


class Receiver(Protocol):
    """Who is told what the stream says."""

    def accept(self, leases: Iterable[job_pb2.Lease]) -> None:
        """Jobs to run."""

    def cancel(self, token: str) -> None:
        """A lease whose job was cancelled."""

    def lose(self, token: str) -> None:
        """A lease that is no longer held."""


class _Stream:
    """One call of LeaseJobs."""

    def __init__(self) -> None:
        # Done when the next stream is to be opened; its result is why this one broke, if it did.
        self.over: asyncio.Future[TaskForgeError | None]
        self.over = asyncio.get_running_loop().create_future()
        self.arrival = asyncio.Event()
        self.has_spoken = False
        self.metadata: Metadata | None = None
        self.call: grpc.aio.UnaryStreamCall[pb.LeaseJobsRequest, pb.LeaseJobsResponse] | None = None
        self.abandoned = False

    def hand_over(self, error: TaskForgeError | None = None) -> None:
        if not self.over.done():
            self.over.set_result(error)

    def abandon(self) -> None:
        self.abandoned = True
        if self.call is not None:
            self.call.cancel()


class Streamer:
    """Keeps a lease stream open and hands on what comes."""

    def __init__(
        self,
        connection: Connection,
        request: pb.LeaseJobsRequest,
        receiver: Receiver,
        policy: RetryPolicy,
    ) -> None:
        self._connection = connection
        self._request = request
        self._receiver = receiver
        self._policy = policy
        self._stream: _Stream | None = None
        self._readers: set[asyncio.Task[None]] = set()
        self._closed = False
        self.number = 0
        """How many streams have been opened."""

    async def run(self) -> None:
        """Keep a stream open until `close`; raises the error that waiting does not cure."""
        failures = 0
        has_renewed = False
        while not self._closed:
            stream = self._open()
            error = await stream.over
            if self._closed:
                return
            if stream.has_spoken or (error is not None and error.reason == "CREDENTIAL_EXPIRED"):
                # Its key was good, for a while at least.
                has_renewed = False
            if error is not None and _is_hopeless(error):
                # A stream also ends when the key it was opened with expires.
                if has_renewed or not await self._is_renewed(stream, error):
                    raise error
                has_renewed = True
            failures = 1 if stream.has_spoken else failures + 1
            wait = self._policy.backoff(failures, random.random())
            logger.log(
                logging.WARNING if error else logging.INFO,
                "the lease stream is opened again in %.2f s: %s",
                wait,
                error or "the server asked for it",
            )
            await asyncio.sleep(wait)

    def reconnect(self, number: int) -> None:
        """Open another stream over a new connection, unless that has been done since `number`."""
        if number == self.number and self._stream is not None and not self._stream.over.done():
            self._connection.renew()
            self._stream.hand_over()

    async def close(self, *, quietly: bool) -> None:
        """Receive no more jobs.

        `quietly`: read on until nothing comes any more. A job that was on its way would otherwise
        be known to nobody until its lease ended, and lose an attempt.
        """
        self._closed = True
        stream = self._stream
        if quietly and stream is not None and not stream.over.done():
            try:
                async with asyncio.timeout(_CLOSING):
                    while await _arrives(stream):
                        pass
            except TimeoutError:
                logger.debug("jobs kept coming until the lease stream was closed")
        if stream is not None:
            stream.abandon()
            stream.hand_over()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _is_renewed(self, stream: _Stream, error: TaskForgeError) -> bool:
        """Whether a stream was refused for its key, and there is another one."""
        if stream.metadata is None or not isinstance(error, Unauthenticated):
            return False
        try:
            return await self._connection.credential.renew_apart(stream.metadata)
        except Unavailable as keyless:
            logger.warning("the lease stream waits for another key: %s", keyless)
            return True

    def _open(self) -> _Stream:
        self.number += 1
        self._stream = stream = _Stream()
        reader = asyncio.create_task(self._read(stream))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        return stream

    async def _read(self, stream: _Stream) -> None:
        """Read a stream to its end."""
        error: TaskForgeError | None = None
        try:
            stream.metadata = await self._connection.credential.metadata_apart()
            with self._connection.stub() as stub:
                stream.call = stub.LeaseJobs(self._request, metadata=stream.metadata)
                await self._read_messages(stream)
            error = Unavailable("the server ended the lease stream")
        except grpc.RpcError as rpc_error:
            error = from_rpc_error(rpc_error)
        except Unavailable as keyless:
            error = keyless
        except TimeoutError:
            error = Unavailable(f"the lease stream was silent for {SILENCE:.0f} s")
            if not stream.over.done():
                self._connection.renew()
        except asyncio.CancelledError:
            # Cancelling the call raises this here, too, though nobody cancels this task.
            if not stream.abandoned:
                raise
        except Exception as fault:  # a fault of ours must not leave `over` waiting for ever
            if not stream.over.done():
                stream.over.set_exception(fault)
            raise
        if isinstance(error, StreamReplaced) and stream.over.done():
            return  # by our own next stream
        if error is not None and error.reason == "SERVER_DRAINING" and not stream.over.done():
            self._connection.renew()
        stream.hand_over(error)

    async def _read_messages(self, stream: _Stream) -> None:
        assert stream.call is not None
        while True:
            async with asyncio.timeout(_HANDED_OVER if stream.over.done() else SILENCE):
                message = await stream.call.read()
            if not isinstance(message, pb.LeaseJobsResponse):
                return
            self._receive(stream, message)
            stream.arrival.set()

    def _receive(self, stream: _Stream, message: pb.LeaseJobsResponse) -> None:
        match message.WhichOneof("event"):
            case "leases":
                self._receiver.accept(message.leases.leases)
            case "cancel":
                for token in message.cancel.lease_tokens:
                    self._receiver.cancel(token)
            case "lost":
                for token in message.lost.lease_tokens:
                    self._receiver.lose(token)
            case "drain":
                if not stream.over.done():
                    self._connection.renew()
                    stream.hand_over()
                return
            case _:
                pass  # a keepalive, or an event of a newer server
        stream.has_spoken = True


async def _arrives(stream: _Stream) -> bool:
    """Whether another message comes before the stream has been quiet."""
    stream.arrival.clear()
    try:
        async with asyncio.timeout(_QUIET):
            await stream.arrival.wait()
    except TimeoutError:
        return False
    return True


def _is_hopeless(error: TaskForgeError) -> bool:
    return isinstance(error, _HOPELESS) or error.code is grpc.StatusCode.UNIMPLEMENTED
