"""Finds the queue that a request names: by its id, or by its name within the project."""

from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from taskforge_core.errors import NotFound
from taskforge_core.queue_names import parse_queue_id
from taskforge_core.tables import queues


async def find_queue(
    connection: AsyncConnection, project_id: UUID, queue: str, *, lock: bool = False
) -> RowMapping:
    """The queue's row; `lock` keeps all others from changing it until the transaction ends.

    Raises:
        NotFound: The project has no such queue, or it was deleted (`QUEUE_NOT_FOUND`).
    """
    statement = select(queues).where(_named(project_id, queue))
    if lock:
        statement = statement.with_for_update()
    row = (await connection.execute(statement)).mappings().one_or_none()
    if row is None:
        raise NotFound("QUEUE_NOT_FOUND", f"there is no queue {queue}", metadata={"queue": queue})
    return row


def _named(project_id: UUID, queue: str) -> ColumnElement[bool]:
    queue_id = parse_queue_id(queue)
    named = queues.c.name == queue if queue_id is None else queues.c.id == queue_id
    return and_(queues.c.project_id == project_id, named, queues.c.deleted_at.is_(None))
