"""gRPC health: liveness under the empty name, readiness under each service's name.

`grpc.health.v1` for probes and for clients that route by health. Our own servicer instead of the
one of grpcio-health-checking, because that one keeps `Watch` streams open while the server stops,
and each open stream makes the stop last its whole grace.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


_Status = int
"""A `HealthCheckResponse.ServingStatus`."""


class Health(health_pb2_grpc.HealthServicer):
    """The state of one server process.

    Services begin NOT_SERVING until a first `refresh` finds the process ready; the empty name
    (liveness) is SERVING from the start. After `shut_down` everything is NOT_SERVING for good.
    """

    def __init__(self, services: Iterable[str], ready: Callable[[], Awaitable[bool]]) -> None:
        """`services` are full names such as `taskforge.v1.JobService`."""
        self._ready = ready
        self._services = tuple(services)
        self._statuses: dict[str, _Status] = dict.fromkeys(self._services, _NOT_SERVING)
        self._statuses[""] = _SERVING
        self._changed = asyncio.Condition()
        self._shut_down = False

    async def refresh(self) -> None:
        """Ask whether the process is ready and publish the answer; a pass of a loop."""
        status = _SERVING if await self._ready() else _NOT_SERVING
        if not self._shut_down:
            await self._publish(dict.fromkeys(self._services, status))

    async def shut_down(self) -> None:
        """Say NOT_SERVING for all names, end the watches, and ignore later refreshes."""
        self._shut_down = True
        await self._publish(dict.fromkeys(self._statuses, _NOT_SERVING))

    async def Check(  # noqa: N802 - the name is the contract's
        self,
        request: health_pb2.HealthCheckRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> health_pb2.HealthCheckResponse:
        """The state of one service now; NOT_FOUND for a name that is not served here."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "this service is not served here")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802 - the name is the contract's
        self,
        request: health_pb2.HealthCheckRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> None:
        """The state of one service now and at each change, until the server shuts down."""
        last = None
        while True:
            status = self._statuses.get(request.service, _UNKNOWN)
            if status != last:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                last = status
            async with self._changed:
                while self._statuses.get(request.service, _UNKNOWN) == last:
                    if self._shut_down:
                        return
                    await self._changed.wait()

    async def _publish(self, statuses: Mapping[str, _Status]) -> None:
        async with self._changed:
            self._statuses.update(statuses)
            self._changed.notify_all()
