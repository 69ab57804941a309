"""What both kinds of client are made of: where the services are, and a line to each."""

import threading
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import grpc

from taskforge.v1.admin_service_pb2_grpc import AdminServiceStub
from taskforge.v1.job_service_pb2_grpc import JobServiceStub
from taskforge.v1.queue_service_pb2_grpc import QueueServiceStub
from taskforge_sdk import channels
from taskforge_sdk.calls import Call, Result, Service
from taskforge_sdk.conversion import seconds_of
from taskforge_sdk.credentials import ApiKey, Credential
from taskforge_sdk.models import Span
from taskforge_sdk.retrying import Attempts, RetryPolicy
from taskforge_sdk.tls import Security, Tls

Channel = TypeVar("Channel", grpc.Channel, grpc.aio.Channel)

# The types of a stub are those of one kind of channel.
_STUBS: dict[Service, Any] = {
    Service.QUEUES: QueueServiceStub,
    Service.JOBS: JobServiceStub,
    Service.ADMIN: AdminServiceStub,
}


class Line(Generic[Channel]):
    """A channel, and how many calls are on it; `generation` is None where it is not ours."""

    __slots__ = ("calls", "channel", "generation", "stub")

    def __init__(self, service: Service, channel: Channel, generation: int | None) -> None:
        self.channel: Channel = channel
        self.stub = _STUBS[service](channel)
        self.generation = generation
        self.calls = 0


class Connected(ABC, Generic[Channel]):
    """The settings of a client; it opens each channel with the first call that needs it.

    When the files of TLS change, calls go over a new channel; the old one is closed when the calls
    on it have ended.
    """

    def __init__(
        self,
        *,
        queue_address: str = channels.DEFAULT_QUEUE_ADDRESS,
        job_address: str = channels.DEFAULT_JOB_ADDRESS,
        project_id: str = "",
        api_key: ApiKey | None = None,
        tls: Tls | None = None,
        allow_plaintext_key: bool = False,
        timeout: Span = 30,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - it is immutable
        queue_channel: Channel | None = None,
        job_channel: Channel | None = None,
    ) -> None:
        self.project_id = project_id
        self._timeout = seconds_of(timeout, "timeout")
        self._retry = retry
        self._addresses = {
            Service.QUEUES: queue_address,
            Service.JOBS: job_address,
            Service.ADMIN: queue_address,
        }
        self._injected: dict[Service, Channel | None] = {
            Service.QUEUES: queue_channel,
            Service.JOBS: job_channel,
            Service.ADMIN: queue_channel,
        }
        self._credential = Credential(api_key)
        if self._credential.is_given and tls is None and not allow_plaintext_key:
            channels.refuse_plaintext_key(
                self._addresses[service]
                for service, channel in self._injected.items()
                if channel is None
            )
        self._security = Security(tls)
        self._lines: dict[Service, Line[Channel]] = {}
        self._retired: list[Line[Channel]] = []
        self._lock = threading.Lock()

    @abstractmethod
    def _open_channel(self, address: str) -> Channel:
        """A channel of the client's kind."""

    def _attempts(self, call: Call[Result]) -> Attempts:
        return Attempts(
            self._retry,
            repeatable=call.rpc.repeatable,
            timeout=self._timeout,
            seconds=call.rpc.seconds,
        )

    def _take_line(self, service: Service) -> Line[Channel]:
        """The line for one call; to be given back."""
        with self._lock:
            line = self._lines.get(service)
            if line is None or self._is_outdated(line):
                if line is not None:
                    self._retired.append(line)
                line = self._lines[service] = self._open_line(service)
            line.calls += 1
            return line

    def _give_back(self, line: Line[Channel]) -> list[Channel]:
        """End a call; the channels that are to be closed, since no call is on them any more."""
        with self._lock:
            line.calls -= 1
            if not self._retired:
                return []
            unused = [each.channel for each in self._retired if not each.calls]
            self._retired = [each for each in self._retired if each.calls]
        return unused

    def _forget_channels(self) -> list[Channel]:
        """All channels that the client has opened itself."""
        with self._lock:
            lines = self._retired
            lines.extend(self._lines.values())
            self._lines, self._retired = {}, []
        return [line.channel for line in lines if line.generation is not None]

    def _is_outdated(self, line: Line[Channel]) -> bool:
        return line.generation is not None and line.generation != self._security.generation()

    def _open_line(self, service: Service) -> Line[Channel]:
        injected = self._injected[service]
        if injected is not None:
            return Line(service, injected, None)
        generation = self._security.generation()
        return Line(service, self._open_channel(self._addresses[service]), generation)
