"""What a stream sends, in which order, while its client takes as much time as it likes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast
from uuid import UUID

import grpc
import pytest
from tests.support.demands import demand, leased

from job_service import streaming
from job_service.calling import Calls
from job_service.demanding import Demand, Leased
from job_service.returning import Returner
from job_service.streaming import Context, Streamer
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.errors import Aborted
from taskforge_core.retrying import Ending, Undelivered

MIB = 1024 * 1024


class Client:
    """The far end: it takes each message when it likes. It stands for the stream's context."""

    def __init__(self) -> None:
        self._offered: asyncio.Queue[pb.LeaseJobsResponse | None] = asyncio.Queue()
        self._done: asyncio.Queue[bool] = asyncio.Queue()

    async def write(self, message: pb.LeaseJobsResponse) -> None:
        self._offered.put_nowait(message)
        if not await self._done.get():
            raise grpc.aio.UsageError

    async def until_writing(self) -> list[str]:
        """What the message holds that is being written, as soon as there is one."""
        async with asyncio.timeout(10):
            message = await self._offered.get()
        assert message is not None
        kind = message.WhichOneof("event")
        assert kind is not None
        tokens = [lease.lease_token for lease in message.leases.leases]
        tokens += [*message.cancel.lease_tokens, *message.lost.lease_tokens]
        return [kind, *tokens]

    def take(self) -> None:
        """Take it."""
        self._done.put_nowait(True)

    def leave(self) -> None:
        """Be gone instead."""
        self._done.put_nowait(False)


class FakeCalls:
    """Opens one call, and notes what it is asked for."""

    def __init__(self, call: Demand) -> None:
        self.call = call
        self.refreshed = 0
        self.woken = 0

    async def open(self, request: pb.LeaseJobsRequest) -> tuple[Demand, None]:
        return self.call, None

    async def refresh(self, call: Demand) -> None:
        self.refreshed += 1

    def wake_for(self, call: Demand) -> None:
        self.woken += 1

    def close(self, call: Demand) -> None:
        call.is_closed = True


class FakeReturner:
    """Notes what is given back."""

    def __init__(self) -> None:
        self.given_back: list[tuple[int, Ending]] = []

    def give_back(self, project_id: UUID, leases: Sequence[Leased], ending: Ending) -> None:
        self.given_back += [(each.lease_seq, ending) for each in leases]


class Stream:
    """A call that is being served to a client."""

    def __init__(self) -> None:
        self.call = demand(max_in_flight=100)
        self.client = Client()
        self.calls = FakeCalls(self.call)
        self.returner = FakeReturner()
        streamer = Streamer(cast("Calls", self.calls), cast("Returner", self.returner))
        self.serving = asyncio.create_task(
            streamer.stream(pb.LeaseJobsRequest(), cast("Context", self.client))
        )

    def claim(self, *lease_seqs: int, size: int = 10) -> None:
        """Leases that a claim brings."""
        for lease_seq in lease_seqs:
            self.call.hold(lease_seq, f"token {lease_seq}", size)
        self.call.send([leased(lease_seq, "x" * size) for lease_seq in lease_seqs])


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    made = Stream()
    yield made
    made.serving.cancel()
    await asyncio.wait([made.serving])


async def test_what_is_lost_is_told_before_the_leases_for_which_it_makes_room(
    stream: Stream,
) -> None:
    """So the worker never holds more than it asked for."""
    stream.claim(1)
    stream.call.sent(stream.call.take(1))
    stream.call.report_lost(1)
    stream.claim(2)
    assert await stream.client.until_writing() == ["lost", "token 1"]
    stream.call.report_lost(2)
    stream.claim(3)
    stream.client.take()
    assert await stream.client.until_writing() == ["leases", "token 3"]


async def test_a_lease_that_ends_behind_a_slow_message_is_never_sent(stream: Stream) -> None:
    """It may be another worker's by then; and nobody has to be told of it."""
    stream.claim(1)
    await stream.client.until_writing()
    stream.claim(2, 3, 4)
    stream.call.report_lost(2)
    stream.call.drop(4)
    stream.client.take()
    assert await stream.client.until_writing() == ["leases", "token 3"]
    assert stream.call.lost == set()


async def test_a_cancellation_is_told_behind_the_lease_it_is_about(stream: Stream) -> None:
    stream.claim(1)
    await stream.client.until_writing()
    stream.claim(2)
    stream.call.report_cancelled(1)
    stream.call.report_cancelled(2)
    stream.client.take()
    assert await stream.client.until_writing() == ["cancel", "token 1"]
    stream.client.take()
    assert await stream.client.until_writing() == ["leases", "token 2"]
    stream.client.take()
    assert await stream.client.until_writing() == ["cancel", "token 2"]


async def test_a_stream_is_compared_with_its_sessions_rows_however_busy_it_is(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what no notification told would never be known, as it is never silent."""
    monkeypatch.setattr(streaming, "REFRESH_SECONDS", 0.0)
    for lease_seq in range(1, 6):
        stream.claim(lease_seq)
        await stream.client.until_writing()
        refreshed = stream.calls.refreshed
        assert refreshed >= lease_seq
        stream.client.take()


async def test_a_stream_that_had_too_much_to_send_looks_for_jobs_when_it_has_sent_some(
    stream: Stream,
) -> None:
    stream.claim(1, 2, 3, size=MIB - 1000)
    assert stream.call.credit == 0
    assert await stream.client.until_writing() == ["leases", "token 1", "token 2"]
    assert stream.calls.woken == 0
    stream.client.take()
    await stream.client.until_writing()
    assert stream.calls.woken == 1
    assert stream.call.credit == 97


async def test_only_the_message_that_failed_may_have_arrived(stream: Stream) -> None:
    stream.claim(1, 2, 3, size=MIB)
    await stream.client.until_writing()
    stream.client.leave()
    await asyncio.wait([stream.serving])
    assert stream.serving.exception() is None
    assert stream.returner.given_back == [(1, Undelivered())]
    assert [each.lease_seq for each in stream.call.outbox] == [2, 3]


async def test_a_stream_that_is_replaced_sends_nothing_more(stream: Stream) -> None:
    stream.claim(1, 2, size=MIB)
    await stream.client.until_writing()
    stream.call.is_replaced = True
    stream.client.take()
    await asyncio.wait([stream.serving])
    assert isinstance(stream.serving.exception(), Aborted)
    assert [each.lease_seq for each in stream.call.outbox] == [2]
