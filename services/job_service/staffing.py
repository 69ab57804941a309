"""UpdateWorker and ListWorkers: who takes jobs, how many, and what they hold."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import ARRAY, RowMapping, Text, Uuid, bindparam, text

from job_service.dispatching import Dispatcher
from job_service.queries import LIST_WORKERS, update_session
from job_service.reconciling import Reconciler
from job_service.waking import Waker
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.errors import NotFound
from taskforge_core.paging import (
    coerce_page_size,
    decode_page_token,
    encode_page_token,
    filters_digest,
    page_length,
)
from taskforge_core.projects import Projects

_LIST = "ListWorkers"
_list_workers = text(LIST_WORKERS).bindparams(
    bindparam("project_ids", type_=ARRAY(Uuid)),
    bindparam("session_id", type_=Uuid),
    bindparam("after_worker", type_=Text),
    bindparam("after_session", type_=Uuid),
)


class Staff:
    """The worker processes of all replicas, by their sessions."""

    def __init__(
        self,
        database: Database,
        projects: Projects,
        dispatcher: Dispatcher,
        reconciler: Reconciler,
        waker: Waker,
    ) -> None:
        self._database = database
        self._projects = projects
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._waker = waker

    async def update(self, request: pb.UpdateWorkerRequest) -> pb.Worker:
        """Change how many jobs a session takes; its open stream follows at once.

        Raises:
            NotFound: The project has no such session (`SESSION_NOT_FOUND`).
        """
        project_id = await self._projects.resolve(request.project_id)
        session_id = UUID(request.session_id)
        found = await update_session(
            self._database.hot,
            project_id,
            session_id,
            request.max_in_flight if request.HasField("max_in_flight") else None,
            request.draining if request.HasField("draining") else None,
        )
        if not found:
            raise _session_not_found(request.session_id)
        demand = self._dispatcher.of_session(project_id, session_id)
        if demand is None:
            self._waker.session_changed(session_id)
        else:
            await self._reconciler.reconcile(demand)
        rows = await self._rows([project_id], 1, session_id=session_id)
        if not rows:
            raise _session_not_found(request.session_id)
        return _worker(rows[0])

    async def list(self, request: pb.ListWorkersRequest) -> pb.ListWorkersResponse:
        """List workers by their labels.

        Raises:
            InvalidArgument: The page token is of another list (`INVALID_PAGE_TOKEN`).
        """
        project_ids = await self._projects.visible(request.project_id)
        filters = filters_digest(request)
        after = decode_page_token(request.page_token, _LIST, filters, str)
        page_size = coerce_page_size(request.page_size)
        # One more than asked for tells whether another page follows.
        rows = await self._rows(project_ids, page_size + 1, after=after)
        workers = [_worker(row) for row in rows]
        length = page_length(workers, page_size)
        response = pb.ListWorkersResponse(workers=workers[:length])
        if len(rows) > length:
            last = rows[length - 1]
            response.next_page_token = encode_page_token(
                _LIST, filters, last["worker_id"], last["session_id"]
            )
        return response

    async def _rows(
        self,
        project_ids: Sequence[UUID],
        page_size: int,
        *,
        session_id: UUID | None = None,
        after: tuple[str, UUID] | None = None,
    ) -> Sequence[RowMapping]:
        """See `list_workers.sql`."""
        parameters = {
            "project_ids": list(project_ids),
            "session_id": session_id,
            "after_worker": None if after is None else after[0],
            "after_session": None if after is None else after[1],
            "page_size": page_size,
        }
        async with self._database.engine.connect() as connection:
            return (await connection.execute(_list_workers, parameters)).mappings().all()


def _session_not_found(session_id: str) -> NotFound:
    return NotFound(
        "SESSION_NOT_FOUND",
        f"there is no session {session_id}",
        metadata={"session_id": session_id},
    )


def _worker(row: RowMapping) -> pb.Worker:
    return pb.Worker(
        session_id=str(row["session_id"]),
        project_id=str(row["project_id"]),
        worker_id=row["worker_id"],
        max_in_flight=row["max_in_flight"],
        draining=row["draining"],
        connected=row["connected"],
        held_jobs=row["held_jobs"],
        held_job_ids=row["held_job_ids"],
        created_at=_moment(row["created_at"]),
        last_heartbeat_at=_moment(row["last_heartbeat_at"]),
        expires_at=_moment(row["expires_at"]),
    )


def _moment(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message
