"""The worker's way to the job service: one channel at a time, exchanged without breaking a call."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc
import grpc.aio

from taskforge.v1.job_service_pb2_grpc import JobServiceStub
from taskforge_sdk.channels import open_channel


class _Line:
    """A channel, and how many calls are on it."""

    __slots__ = ("calls", "channel", "retired", "stub")

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        # The stub of an asyncio channel; its type is known to the type checker alone.
        self.stub: Any = JobServiceStub(cast("Any", channel))
        self.calls = 0
        self.retired = False


class Connection:
    """Gives out stubs of the current channel.

    After `renew` new calls go over a new channel with a connection of its own, which may lead to
    another replica; calls that are under way end on the old one, which is then closed.
    """

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None) -> None:
        self._address = address
        self._credentials = credentials
        self._line = self._open()
        self._closing: set[asyncio.Task[None]] = set()

    @contextmanager
    def stub(self) -> Iterator[Any]:
        """A stub, for one call."""
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
        return _Line(open_channel(self._address, self._credentials, own_connection=True))

    def _close(self, line: _Line) -> None:
        task = asyncio.create_task(line.channel.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
