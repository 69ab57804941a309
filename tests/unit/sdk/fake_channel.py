"""Plays the server behind gRPC's fake channel, which has no asynchronous twin."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from tests.unit.sdk.fake_job_service import PATIENCE

from taskforge.v1 import job_service_pb2 as jobs
from taskforge.v1 import queue_service_pb2 as queues

T = TypeVar("T")


@dataclass
class Server:
    """Plays the server for one call after the other."""

    channel: Any
    threads: ThreadPoolExecutor

    def during(self, work: Callable[[], T]) -> "Future[T]":
        return self.threads.submit(work)

    def take(self, rpc: str) -> tuple[Any, Any]:
        """The next call of this RPC: its request, and what ends it."""
        services = {
            **jobs.DESCRIPTOR.services_by_name["JobService"].methods_by_name,
            **queues.DESCRIPTOR.services_by_name["QueueService"].methods_by_name,
        }
        _, request, call = self.channel.take_unary_unary(services[rpc])
        return request, call

    def answer(self, rpc: str, response: Message) -> Any:
        request, call = self.take(rpc)
        call.send_initial_metadata(())
        call.terminate(response, (), grpc.StatusCode.OK, "")
        return request

    def refuse(self, rpc: str, error: status_pb2.Status) -> Any:
        request, call = self.take(rpc)
        code = next(each for each in grpc.StatusCode if each.value[0] == error.code)
        details = (("grpc-status-details-bin", error.SerializeToString()),)
        call.send_initial_metadata(())
        call.terminate(None, details, code, error.message)
        return request


def done(future: "Future[T]") -> T:
    return future.result(PATIENCE)
