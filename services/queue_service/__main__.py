"""The process of QueueService and AdminService: `python -m queue_service`.

Settings come from the environment, logs go to stderr. Exits with 1 and one line when it cannot
start; SIGTERM drains and ends it with 0.
"""

import asyncio
import sys
import uuid

from pydantic import ValidationError

from queue_service.admin.servicer import AdminServicer
from queue_service.administering import Administrator
from queue_service.browsing import Browser
from queue_service.purging import Purger
from queue_service.redriving import Redriver
from queue_service.servicer import QueueServicer
from taskforge.v1 import admin_service_pb2, queue_service_pb2
from taskforge.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from taskforge.v1.queue_service_pb2_grpc import add_QueueServiceServicer_to_server
from taskforge_core.access import Access
from taskforge_core.database import Database
from taskforge_core.grpc_server import CannotListen, Service, build_server, serve
from taskforge_core.logs import configure_logging
from taskforge_core.notifications import Notifier
from taskforge_core.projects import Projects
from taskforge_core.settings import MissingDatabaseUrl, Settings


def compose(database: Database, projects: Projects, notifier: Notifier) -> Service:
    """QueueService with its use cases, ready to be given to a server."""
    servicer = QueueServicer(
        Administrator(database, projects, notifier),
        Browser(database, projects),
        Purger(database, projects),
        Redriver(database, projects, notifier),
    )
    return Service(
        queue_service_pb2.DESCRIPTOR.services_by_name["QueueService"],
        lambda server: add_QueueServiceServicer_to_server(servicer, server),
    )


def compose_admin(database: Database) -> Service:
    """AdminService with its use cases, ready to be given to a server."""
    servicer = AdminServicer(database)
    return Service(
        admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
        lambda server: add_AdminServiceServicer_to_server(servicer, server),
    )


async def run(settings: Settings) -> None:
    """Serve until a signal ends it.

    Raises:
        CannotListen: The address cannot be bound.
        MissingDatabaseUrl: The settings name no database.
    """
    database = await Database.open(settings, application_name="queue_service")
    try:
        notifier = Notifier(database.hot, origin=str(uuid.uuid4()))
        projects = Projects(database)
        server = build_server(
            settings,
            settings.queue_address,
            [compose(database, projects, notifier), compose_admin(database)],
            ready=database.ready,
            access=Access.of(database, projects),
        )
        await serve(server)
        await notifier.flushed()
    finally:
        await database.close()


def main() -> None:
    """Start the process as its environment says."""
    try:
        settings = Settings()
        configure_logging(settings.log_format, settings.log_level)
        asyncio.run(run(settings))
    except ValidationError as error:
        sys.exit(f"queue_service: {_wrong_settings(error)}")
    except (CannotListen, MissingDatabaseUrl) as error:
        sys.exit(f"queue_service: {error}")


def _wrong_settings(error: ValidationError) -> str:
    """Which variables of the environment are wrong, and why; never what they hold."""
    return "; ".join(
        ": ".join([*(_variable(part) for part in each["loc"]), each["msg"]])
        for each in error.errors(include_input=False)
    )


def _variable(field: int | str) -> str:
    return f"TASKFORGE_{str(field).upper().removeprefix('TASKFORGE_')}"


if __name__ == "__main__":
    main()
