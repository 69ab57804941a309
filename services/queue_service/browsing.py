"""Shows queues: one, a page of them, or how one stands."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import RowMapping, Select, select, tuple_

from queue_service.conversion import counts_message, duration_message, queue_message
from queue_service.finding import find_queue
from queue_service.queries import oldest_ready
from taskforge.v1 import queue_pb2, queue_service_pb2
from taskforge_core.counting import read_counts
from taskforge_core.database import Database
from taskforge_core.paging import (
    coerce_page_size,
    decode_page_token,
    encode_page_token,
    filters_digest,
    page_length,
)
from taskforge_core.projects import Projects
from taskforge_core.tables import queues

_LIST = "ListQueues"


class Browser:
    """Reads queues and changes nothing."""

    def __init__(self, database: Database, projects: Projects) -> None:
        self._database = database
        self._projects = projects

    async def get(self, request: queue_service_pb2.GetQueueRequest) -> queue_pb2.Queue:
        """One queue.

        Raises:
            NotFound: `PROJECT_NOT_FOUND`, `QUEUE_NOT_FOUND`.
        """
        project_id = await self._projects.resolve(request.project_id)
        async with self._database.engine.connect() as connection:
            return queue_message(await find_queue(connection, project_id, request.queue))

    async def list(
        self, request: queue_service_pb2.ListQueuesRequest
    ) -> queue_service_pb2.ListQueuesResponse:
        """One page of queues, by name, then id.

        Raises:
            InvalidArgument: `INVALID_PAGE_TOKEN`.
            NotFound: `PROJECT_NOT_FOUND`.
        """
        filters = filters_digest(request)
        after = decode_page_token(request.page_token, _LIST, filters, str)
        visible = await self._projects.visible(request.project_id)
        size = coerce_page_size(request.page_size)
        # One more than asked for tells whether another page follows.
        statement = _page(visible, after).limit(size + 1)
        async with self._database.engine.connect() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        found = [queue_message(row) for row in rows]
        length = page_length(found, size)
        return queue_service_pb2.ListQueuesResponse(
            queues=found[:length], next_page_token=_next_page(filters, rows, length)
        )

    async def stats(
        self, request: queue_service_pb2.GetQueueStatsRequest
    ) -> queue_service_pb2.GetQueueStatsResponse:
        """How a queue stands, all of it as of one snapshot.

        Raises:
            NotFound: `PROJECT_NOT_FOUND`, `QUEUE_NOT_FOUND`.
        """
        project_id = await self._projects.resolve(request.project_id)
        async with self._database.engine.connect() as connection:
            # Takes its snapshot with the first statement and keeps it; a reader cannot conflict.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            row = await find_queue(connection, project_id, request.queue)
            counts = await read_counts(connection, project_id, row["id"])
            age = await oldest_ready(connection, project_id, row["id"])
        return queue_service_pb2.GetQueueStatsResponse(
            queue_id=str(row["id"]),
            is_active=row["is_active"],
            counts=counts_message(counts),
            oldest_ready_age=None if age is None else duration_message(age),
        )


def _page(visible: Sequence[UUID], after: tuple[str, UUID] | None) -> Select[tuple[object, ...]]:
    statement = (
        select(queues)
        .where(queues.c.project_id.in_(visible), queues.c.deleted_at.is_(None))
        .order_by(queues.c.name, queues.c.id)
    )
    if after is not None:
        statement = statement.where(tuple_(queues.c.name, queues.c.id) > after)
    return statement


def _next_page(filters: bytes, rows: Sequence[RowMapping], length: int) -> str:
    if len(rows) <= length:
        return ""
    last = rows[length - 1]
    return encode_page_token(_LIST, filters, last["name"], last["id"])
