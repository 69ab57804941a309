"""`taskforge migrate` and `taskforge serve …`: what a deployment runs, one process each."""

import asyncio
import enum
import os
from typing import Annotated

import typer

from taskforge_cli import rendering
from taskforge_cli.configuration import load_settings
from taskforge_cli.failures import CommandError, ExitCode, usage_error
from taskforge_cli.options import DatabaseUrl


class ServiceName(enum.StrEnum):
    """A service that can be started alone."""

    QUEUE = "queue"
    JOB = "job"
    SCHEDULER = "scheduler"


def migrate(
    database_url: DatabaseUrl = None,
    runtime_role: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Then let this role do what the services need, and no more: they run as it, while"
            " the database's address given here is its owner's. The role must exist.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Bring the database to the schema of this release; safe to run from many places at once."""
    import asyncpg

    from taskforge_core.granting import CannotGrant, grant_runtime
    from taskforge_core.logs import configure_logging
    from taskforge_core.migrating import SchemaIsNewer
    from taskforge_core.migrating import migrate as migrate_database
    from taskforge_core.settings import MissingDatabaseUrl

    settings = load_settings(database_url=database_url)
    configure_logging(settings.log_format, settings.log_level)
    try:
        url = settings.require_database_url() if database_url else settings.require_listen_url()
        revision = asyncio.run(migrate_database(url))
        if runtime_role is not None:
            asyncio.run(grant_runtime(url, runtime_role))
    except MissingDatabaseUrl as error:
        raise usage_error(f"{error} (or --database-url does)") from error
    except OSError as error:
        raise CommandError(f"cannot reach the database: {error}", ExitCode.UNREACHABLE) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, SchemaIsNewer) as error:
        raise CommandError(f"the database cannot be migrated: {error}") from error
    except CannotGrant as error:
        raise CommandError(f"the database is migrated, but {error}") from error
    rendering.print_line(f"The database is at revision {revision}.")
    if runtime_role is not None:
        rendering.print_line(f"The services may run as {runtime_role}.")


def serve(
    service: Annotated[ServiceName, typer.Argument(help="Which service.")],
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where it listens. Default: TASKFORGE_QUEUE_ADDRESS or TASKFORGE_JOB_ADDRESS,"
            " else 127.0.0.1:50051 or 127.0.0.1:50052.",
            show_default=False,
        ),
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Run one service until SIGTERM. Its database must have been migrated."""
    from taskforge_cli.processes import python_command
    from taskforge_core.settings import MissingDatabaseUrl

    if address is not None and service is ServiceName.SCHEDULER:
        raise usage_error("the scheduler listens nowhere: it takes no --address")
    variables: dict[str, str] = {}
    if address is not None:
        variables[f"TASKFORGE_{service.name}_ADDRESS"] = address
    if database_url is not None:
        variables["TASKFORGE_DATABASE_URL"] = database_url
    try:
        load_settings(database_url=database_url).require_database_url()
    except MissingDatabaseUrl as error:
        raise usage_error(f"{error} (or --database-url does)") from error
    command = python_command(f"{service}_service")
    # The service takes this process' place, so that signals and exit codes are its own.
    os.execve(command[0], command, {**os.environ, **variables})  # noqa: S606, TID251 - handed on
