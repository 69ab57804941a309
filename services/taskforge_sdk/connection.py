"""The worker's way to the job service: one channel at a time, exchanged without breaking a call."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from taskforge.v1.job_service_pb2_grpc import JobServiceStub
from taskforge_sdk.channels import open_channel
from taskforge_sdk.credentials import Credential
from taskforge_sdk.errors import Unauthenticated, from_rpc_error
from taskforge_sdk.tls import Security


class _Line:
    """A channel, and how many calls are on it."""

    __slots__ = ("calls", "channel", "generation", "retired", "stub")

    def __init__(self, channel: grpc.aio.Channel, generation: int) -> None:
        self.channel = channel
        self.generation = generation
        # The stub of an asyncio channel; its type is known to the type checker alone.
        self.stub: Any = JobServiceStub(cast("Any", channel))
        self.calls = 0
        self.retired = False


class Connection:
    """Gives out stubs of the current channel, and sends calls with the worker's key.

    After `renew`, or when the files of TLS have changed, new calls go over a new channel with a
    connection of its own, which may lead to another replica; calls that are under way end on the
    old one, which is then closed.
    """

    def __init__(self, address: str, credential: Credential, security: Security) -> None:
        self.credential = credential
        self._address = address
        self._security = security
        self._line = self._open()
        self._closing: set[asyncio.Task[None]] = set()

    async def call(self, rpc: str, request: Message, *, seconds: float) -> Any:
        """The answer of a unary RPC within so many seconds; raises TaskForgeError.

        A call whose key is refused is repeated once, where there is another key.
        """
        has_renewed = False
        while True:
            metadata = await self.credential.metadata_apart()
            try:
                with self.stub() as stub:
                    return await getattr(stub, rpc)(request, timeout=seconds, metadata=metadata)
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
            if not isinstance(error, Unauthenticated) or has_renewed:
                raise error
            has_renewed = True
            if not await self.credential.renew_apart(metadata):
                raise error

    @contextmanager
    def stub(self) -> Iterator[Any]:
        """A stub, for one call."""
        if self._line.generation != self._security.generation():
            self.renew()
        line = self._line
        line.calls += 1
        try:
            yield line.stub
        finally:
            line.calls -= 1
            if line.retired and not line.calls:
                self._close(line)

    def renew(self) -> None:
        """Make new calls go over a new channel."""
        old, self._line = self._line, self._open()
        old.retired = True
        if not old.calls:
            self._close(old)

    async def close(self) -> None:
        """Close every channel; calls that are under way end."""
        self._close(self._line)
        await asyncio.gather(*self._closing)

    def _open(self) -> _Line:
        generation = self._security.generation()
        credentials = self._security.credentials
        return _Line(open_channel(self._address, credentials, own_connection=True), generation)

    def _close(self, line: _Line) -> None:
        task = asyncio.create_task(line.channel.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
