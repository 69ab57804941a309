"""What both kinds of client are made of: where the services are, and a stub for each."""

import threading
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import grpc

from taskforge.v1.job_service_pb2_grpc import JobServiceStub
from taskforge.v1.queue_service_pb2_grpc import QueueServiceStub
from taskforge_sdk import channels
from taskforge_sdk.calls import Call, Result, Service
from taskforge_sdk.conversion import seconds_of
from taskforge_sdk.models import Span
from taskforge_sdk.retrying import Attempts, RetryPolicy

Channel = TypeVar("Channel", grpc.Channel, grpc.aio.Channel)


class Connected(ABC, Generic[Channel]):
    """The settings of a client; it opens each channel with the first call that needs it."""

    def __init__(
        self,
        *,
        queue_address: str = channels.DEFAULT_QUEUE_ADDRESS,
        job_address: str = channels.DEFAULT_JOB_ADDRESS,
        project_id: str = "",
        timeout: Span = 30,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - it is immutable
        credentials: grpc.ChannelCredentials | None = None,
        queue_channel: Channel | None = None,
        job_channel: Channel | None = None,
    ) -> None:
        self.project_id = project_id
        self._timeout = seconds_of(timeout, "timeout")
        self._retry = retry
        self._credentials = credentials
        self._addresses = {Service.QUEUES: queue_address, Service.JOBS: job_address}
        self._injected: dict[Service, Channel | None] = {
            Service.QUEUES: queue_channel,
            Service.JOBS: job_channel,
        }
        self._opened: list[Channel] = []
        self._stubs: dict[Service, QueueServiceStub | JobServiceStub] = {}
        self._opening = threading.Lock()

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

    def _stub(self, service: Service) -> QueueServiceStub | JobServiceStub:
        with self._opening:
            stub = self._stubs.get(service)
            if stub is None:
                channel = self._injected[service]
                if channel is None:
                    channel = self._open_channel(self._addresses[service])
                    self._opened.append(channel)
                stub = (QueueServiceStub if service is Service.QUEUES else JobServiceStub)(channel)
                self._stubs[service] = stub
            return stub

    def _forget_channels(self) -> list[Channel]:
        with self._opening:
            opened, self._opened, self._stubs = self._opened, [], {}
        return opened
