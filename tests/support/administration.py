"""The server of QueueService and AdminService with authentication on, called by many keys."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from tests.support.stubs import AdminStub, QueueStub
from tests.support.tenants import bearing_channel

from queue_service.__main__ import compose, compose_admin
from taskforge.v1 import admin_service_pb2 as pb
from taskforge.v1.admin_service_pb2_grpc import AdminServiceStub
from taskforge.v1.queue_service_pb2_grpc import QueueServiceStub
from taskforge_core.access import Access
from taskforge_core.database import Database
from taskforge_core.grpc_server import build_server
from taskforge_core.notifications import Notifier
from taskforge_core.projects import Projects
from taskforge_core.settings import Settings


class Administration:
    """A running server; each key has a channel of its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channels: dict[str, grpc.aio.Channel] = {}

    def admin(self, key: str) -> AdminStub:
        """Calls of AdminService by this key; an empty one is not sent."""
        return AdminServiceStub(self._channel(key))

    def queues(self, key: str) -> QueueStub:
        """Calls of QueueService by this key."""
        return QueueServiceStub(self._channel(key))

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close(None)

    def _channel(self, key: str) -> grpc.aio.Channel:
        channel = self._channels.get(key)
        if channel is None:
            channel = (
                bearing_channel(self.address, key)
                if key
                else grpc.aio.insecure_channel(self.address)
            )
            self._channels[key] = channel
        return channel


@asynccontextmanager
async def administration(database: Database, folder: Path) -> AsyncIterator[Administration]:
    """A server over the database; it and its channels are closed at the end."""
    settings: Settings = database.settings.model_copy(update={"drain_grace": timedelta(0)})
    notifier = Notifier(database.hot, origin="queue_service")
    projects = Projects(database)
    server = build_server(
        settings,
        f"unix:{folder / 'admin'}",
        [compose(database, projects, notifier), compose_admin(database)],
        ready=database.ready,
        access=Access.of(database, projects),
    )
    await server.start()
    served = Administration(server.address)
    try:
        yield served
    finally:
        await served.close()
        await server.stop()
        await notifier.flushed()


def update_organisation(*paths: str, **fields: Any) -> pb.UpdateOrganisationRequest:
    return pb.UpdateOrganisationRequest(update_mask=FieldMask(paths=paths), **fields)


def update_project(project_id: object, *paths: str, **fields: Any) -> pb.UpdateProjectRequest:
    return pb.UpdateProjectRequest(
        project_id=str(project_id), update_mask=FieldMask(paths=paths), **fields
    )
