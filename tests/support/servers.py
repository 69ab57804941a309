"""Real servers for tests: in this process, on a unix socket, over the test's own database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc

from taskforge_core.access import Access
from taskforge_core.database import Database
from taskforge_core.grpc_server import Service, build_server
from taskforge_core.projects import Projects
from taskforge_core.settings import Settings


@asynccontextmanager
async def serving(
    database: Database, service: Service, folder: Path, name: str
) -> AsyncIterator[grpc.aio.Channel]:
    """A started server of one service, and a channel to it; both are closed at the end.

    Args:
        database: What makes the server ready.
        service: What it serves.
        folder: Where its socket is made.
        name: The socket's name, short: the path may have about 100 bytes.
    """
    settings: Settings = database.settings.model_copy(update={"drain_grace": timedelta(0)})
    address = f"unix:{folder / name}"
    access = Access.of(database, Projects(database))
    server = build_server(settings, address, [service], ready=database.ready, access=access)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield channel
    finally:
        await server.stop()
