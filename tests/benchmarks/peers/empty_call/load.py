"""What gRPC itself allows: a unary call without content (Health/Check) to our job_service."""

import asyncio
import time

from grpc_health.v1 import health_pb2
from tests.benchmarks.peers.loading import Order, answer, order

from taskforge_cli.configuration import load_settings
from taskforge_cli.identifying import tls_of
from taskforge_sdk.channels import open_channel
from taskforge_sdk.tls import Security


async def main(told: Order) -> None:
    channel = open_channel(told.where, Security(tls_of(load_settings())).credentials)
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    request = health_pb2.HealthCheckRequest(service="taskforge.v1.JobService")

    async def call(calls: int) -> None:
        for _ in range(calls):
            await check(request)

    for calls in (told.warm_up, told.jobs):
        first_ns = time.monotonic_ns()
        await asyncio.gather(*(call(calls // told.callers) for _ in range(told.callers)))
        last_ns = time.monotonic_ns()
    jobs = told.jobs // told.callers * told.callers
    answer({"first_ns": first_ns, "last_ns": last_ns, "left": jobs})
    await channel.close(None)


if __name__ == "__main__":
    asyncio.run(main(order()))
