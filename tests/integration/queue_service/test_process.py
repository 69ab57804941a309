"""QueueService as a process: how it starts, why it does not, and how it ends."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from taskforge.v1 import queue_service_pb2 as pb
from taskforge.v1.queue_service_pb2_grpc import QueueServiceStub
from taskforge_core.settings import Settings


@asynccontextmanager
async def process(**variables: str) -> AsyncIterator[Process]:
    """`python -m queue_service` with these settings and no others."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("TASKFORGE_")
    }
    settings = {f"TASKFORGE_{name.upper()}": value for name, value in variables.items()}
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "queue_service"), env=inherited | settings, stderr=PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def last_words(started: Process) -> str:
    """What it writes until it ends, which it must do by itself."""
    async with asyncio.timeout(30):
        _, written = await started.communicate()
    return written.decode()


async def health_of(channel: grpc.aio.Channel) -> int:
    """What the server says of QueueService, as soon as it answers."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="taskforge.v1.QueueService")
    status: int = (await stub.Check(request, wait_for_ready=True, timeout=30)).status
    return status


async def test_it_serves_and_drains_on_sigterm(settings: Settings, open_folder: Path) -> None:
    address = f"unix:{open_folder / 'queue'}"
    variables = {"database_url": settings.require_database_url(), "queue_address": address}
    async with process(**variables, authentication="off", log_format="json") as started:
        async with grpc.aio.insecure_channel(address) as channel:
            answer = await QueueServiceStub(channel).CreateQueue(
                pb.CreateQueueRequest(name="emails"), wait_for_ready=True, timeout=30
            )
            health = await health_of(channel)
        assert answer.queue.name == "emails"
        assert health == health_pb2.HealthCheckResponse.SERVING
        started.send_signal(signal.SIGTERM)
        log = await last_words(started)
        assert started.returncode == 0, log
    assert '"event": "stopped"' in log


async def test_without_its_database_it_says_that_it_is_not_serving(open_folder: Path) -> None:
    address = f"unix:{open_folder / 'queue'}"
    nowhere = f"postgresql://nobody@/none?host={open_folder}"
    async with (
        process(database_url=nowhere, queue_address=address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        health = await health_of(channel)
    assert health == health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "TASKFORGE_DATABASE_URL is not set"),
        ({"database_url": "mysql://user:secret@host/db"}, "TASKFORGE_DATABASE_URL: "),
        ({"database_url": "postgresql://x", "drain_grace": "-1"}, "TASKFORGE_DRAIN_GRACE: "),
        ({"database_url": "postgresql://x", "queue_address": "unix:/none/q"}, "cannot listen on"),
    ],
)
async def test_what_prevents_the_start_is_told_in_one_line(
    variables: dict[str, str], words: str
) -> None:
    async with process(**variables) as started:
        written = await last_words(started)
        assert started.returncode == 1
    # gRPC's core writes lines of its own about an address, which begin with their level and time.
    [line] = [line for line in written.splitlines() if "add_port.cc" not in line]
    assert line.startswith("queue_service: ")
    assert words in line
    assert "secret" not in written
