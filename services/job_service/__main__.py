"""The JobService process: `python -m job_service`.

Settings come from the environment, logs go to stderr. Exits with 1 and one line when it cannot
start; SIGTERM drains and ends it with 0.
"""

import asyncio
import sys

from pydantic import ValidationError

from job_service.composing import JobServer
from taskforge_core.database import Database
from taskforge_core.grpc_server import CannotListen, serve
from taskforge_core.logs import configure_logging
from taskforge_core.settings import MissingDatabaseUrl, Settings


async def run(settings: Settings) -> None:
    """Serve until a signal ends it.

    Raises:
        CannotListen: The address cannot be bound.
        MissingDatabaseUrl: The settings name no database.
    """
    database = await Database.open(settings, application_name="job_service")
    try:
        server = JobServer(database, settings.job_address)
        await server.start()
        try:
            await serve(server.grpc, drain=[server.drain])
        finally:
            await server.stop()
    finally:
        await database.close()


def main() -> None:
    """Start the process as its environment says."""
    try:
        settings = Settings()
        configure_logging(settings.log_format, settings.log_level)
        asyncio.run(run(settings))
    except (CannotListen, MissingDatabaseUrl, ValidationError) as error:
        sys.exit(f"job_service: {error}")


if __name__ == "__main__":
    main()
