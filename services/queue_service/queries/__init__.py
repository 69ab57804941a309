"""The statements of this service that are better read as SQL: one a file, a function each."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Interval, text
from sqlalchemy.ext.asyncio import AsyncConnection

from taskforge_core.queries import Statements

_statements = Statements(__name__)
_oldest_ready = text(_statements["oldest_ready"]).columns(age=Interval)


async def oldest_ready(
    connection: AsyncConnection, project_id: UUID, queue_id: UUID
) -> timedelta | None:
    """See `oldest_ready.sql`."""
    parameters = {"project_id": project_id, "queue_id": queue_id}
    age: timedelta | None = await connection.scalar(_oldest_ready, parameters)
    return age
