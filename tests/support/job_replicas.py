"""Replicas of job_service in this process: each with connections of its own, on a unix socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
from tests.support.stubs import JobStub
from tests.support.waiting import PATIENCE, eventually

from job_service.composing import JobServer
from taskforge.v1.job_service_pb2_grpc import JobServiceStub
from taskforge_core.database import Database
from taskforge_core.settings import Settings

DRAIN_GRACE = timedelta(seconds=10)
"""Far longer than a drain takes, so that one that does not end its streams is seen by its time."""


@dataclass
class JobReplica:
    """A running replica, and what its callers use."""

    server: JobServer
    stub: JobStub
    channel: grpc.aio.Channel
    is_draining: bool = False

    async def dispatch(self) -> None:
        """Let every lease call take what it can: what it has not got then, it does not get."""
        for group in self.server.dispatcher.groups():
            await group.run_once()

    async def until_taking(self, calls: int) -> None:
        """Return when exactly so many lease calls are open for jobs here."""

        async def are_taking() -> bool:
            groups = self.server.dispatcher.groups()
            return sum(len(group.demands) for group in groups) == calls

        await eventually(are_taking, f"{calls} lease calls take jobs")

    async def drain(self) -> None:
        """Leave, as the process does after SIGTERM; returns when no call is open any more."""
        self.is_draining = True
        await self.server.grpc.stop(drain=[self.server.drain])


@asynccontextmanager
async def job_replica(settings: Settings, folder: Path, name: str) -> AsyncIterator[JobReplica]:
    """A replica that serves and hears the others, until it drains or the test ends.

    Args:
        settings: What it is started with; only its grace is set here.
        folder: Where its socket is made.
        name: The socket's name, short: the path may have about 100 bytes.
    """
    database = await Database.open(
        settings.model_copy(update={"drain_grace": DRAIN_GRACE}), application_name=name
    )
    address = f"unix:{folder / name}"
    server = JobServer(database, address)
    await server.start()
    await server.grpc.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            replica = JobReplica(server, JobServiceStub(channel), channel)
            yield replica
        if not replica.is_draining:
            await replica.drain()
    finally:
        await server.stop()
        await database.close()


async def until_connected(*replicas: JobReplica) -> None:
    """Return when each of them hears what the others tell."""
    async with asyncio.timeout(PATIENCE):
        for replica in replicas:
            await replica.server.listener.connected.wait()
