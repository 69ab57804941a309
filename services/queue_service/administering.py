"""Makes, changes, pauses, resumes and deletes queues."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, and_, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from queue_service import dead_letters
from queue_service.conversion import (
    SETTINGS_COLUMNS,
    queue_message,
    settings_columns,
)
from queue_service.finding import find_queue
from queue_service.masking import masked_columns
from queue_service.naming import check_name
from queue_service.pausing import OPEN, paused, paused_until
from queue_service.quota import take_room
from queue_service.taken import refusing_taken
from queue_service.topics import QUEUES_CHANGED, WORK_READY
from taskforge.v1 import queue_pb2, queue_service_pb2
from taskforge_core.auditing import append_audit_entry
from taskforge_core.database import Database
from taskforge_core.errors import FailedPrecondition, PreconditionViolation
from taskforge_core.ids import uuid7
from taskforge_core.notifications import Notifier
from taskforge_core.projects import Projects
from taskforge_core.tables import jobs, queues


class Administrator:
    """Changes queues, one transaction a call, and tells the other processes after its commit."""

    def __init__(self, database: Database, projects: Projects, notifier: Notifier) -> None:
        self._database = database
        self._projects = projects
        self._notifier = notifier

    async def create(self, request: queue_service_pb2.CreateQueueRequest) -> queue_pb2.Queue:
        """Make a queue, open from the start.

        Raises:
            AlreadyExists: Another queue of the project has the name (`QUEUE_NAME_TAKEN`).
            InvalidArgument: The name looks like a UUID (`INVALID_REQUEST`).
            NotFound: `PROJECT_NOT_FOUND`; its dead-letter queue is not there (`QUEUE_NOT_FOUND`).
            ResourceExhausted: The project has as many queues as it may (`TOO_MANY_QUEUES`).
        """
        name = check_name(request.name)
        project_id = await self._projects.resolve(request.project_id)
        settings = settings_columns(request.settings)
        target_id: UUID | None = settings["dead_letter_queue_id"]
        statement = (
            insert(queues)
            .values(
                project_id=project_id,
                id=uuid7(),
                name=name,
                description=request.description,
                priority=request.priority,
                **settings,
            )
            .returning(queues)
        )
        with _refusing_taken_name(name):
            async with self._database.engine.begin() as connection:
                await take_room(connection, project_id)
                if target_id is not None:
                    # It cannot lead back here: nobody can have named a queue before it is there.
                    await dead_letters.take_turn(connection, project_id)
                    await dead_letters.check_exists(connection, project_id, target_id)
                row = (await connection.execute(statement)).mappings().one()
                await _record(connection, "CreateQueue", row, _given(row))
        self._notifier.notify(QUEUES_CHANGED, str(project_id))
        return queue_message(row)

    async def update(self, request: queue_service_pb2.UpdateQueueRequest) -> queue_pb2.Queue:
        """Change the fields that the mask names.

        Raises:
            AlreadyExists: Another queue of the project has the new name (`QUEUE_NAME_TAKEN`).
            FailedPrecondition: The dead-letter queue leads back here (`DEAD_LETTER_CYCLE`).
            InvalidArgument: The mask or the new name is wrong (`INVALID_UPDATE_MASK`,
                `INVALID_REQUEST`).
            NotFound: `PROJECT_NOT_FOUND`; the queue or its dead-letter queue is not there
                (`QUEUE_NOT_FOUND`).
        """
        columns = masked_columns(request)
        project_id = await self._projects.resolve(request.project_id)
        return await self._change("UpdateQueue", project_id, request.queue, columns)

    async def pause(self, request: queue_service_pb2.PauseQueueRequest) -> queue_pb2.Queue:
        """Hand out no job from now on; take new ones, and end by itself, as asked.

        Raises:
            InvalidArgument: `resume_at` is no valid time (`INVALID_REQUEST`).
            NotFound: `PROJECT_NOT_FOUND`, `QUEUE_NOT_FOUND`.
        """
        project_id = await self._projects.resolve(request.project_id)
        resume_at = _resume_at(request)
        if resume_at is None:
            columns = paused(keep_accepting=request.keep_accepting)
        else:
            columns = paused_until(
                await self._now(), resume_at, keep_accepting=request.keep_accepting
            )
        return await self._change("PauseQueue", project_id, request.queue, columns)

    async def resume(self, request: queue_service_pb2.ResumeQueueRequest) -> queue_pb2.Queue:
        """Open a paused queue.

        Raises:
            NotFound: `PROJECT_NOT_FOUND`, `QUEUE_NOT_FOUND`.
        """
        project_id = await self._projects.resolve(request.project_id)
        return await self._change("ResumeQueue", project_id, request.queue, OPEN)

    async def delete(self, request: queue_service_pb2.DeleteQueueRequest) -> None:
        """Delete a queue that has no unfinished job; its name is free from then on.

        Inserts do not wait for this, which would make them wait for each other. A job whose
        transaction began before this one's commit may slip in: the scheduler cancels it.

        Raises:
            FailedPrecondition: It has a job that is not finished (`QUEUE_NOT_EMPTY`), or is
                another queue's dead-letter queue (`QUEUE_IN_USE`).
            NotFound: `PROJECT_NOT_FOUND`, `QUEUE_NOT_FOUND`.
        """
        project_id = await self._projects.resolve(request.project_id)
        async with self._database.engine.begin() as connection:
            await dead_letters.take_turn(connection, project_id)
            row = await find_queue(connection, project_id, request.queue, lock=True)
            await dead_letters.check_unused(connection, row)
            unfinished = await _count_unfinished(connection, project_id, row["id"])
            if unfinished:
                raise _not_empty(row, unfinished)
            now = func.statement_timestamp()  # One moment for both columns.
            await connection.execute(
                update(queues).where(_is(row)).values(deleted_at=now, updated_at=now)
            )
            await _record(connection, "DeleteQueue", row, {"name": row["name"]})
        self._notifier.notify(QUEUES_CHANGED, str(project_id))

    async def _change(
        self, action: str, project_id: UUID, queue: str, columns: Mapping[str, Any]
    ) -> queue_pb2.Queue:
        """Set columns of a queue; do nothing at all where they hold these values already."""
        target_id: UUID | None = columns.get("dead_letter_queue_id")
        with _refusing_taken_name(columns.get("name", "")):
            async with self._database.engine.begin() as connection:
                if target_id is not None:
                    await dead_letters.take_turn(connection, project_id)
                before = await find_queue(connection, project_id, queue, lock=True)
                if target_id is not None:
                    await dead_letters.check_exists(connection, project_id, target_id)
                    await dead_letters.check_no_cycle(connection, before, target_id)
                changes = {key: new for key, new in columns.items() if before[key] != new}
                if not changes:
                    return queue_message(before)
                statement = (
                    update(queues)
                    .where(_is(before))
                    .values(**changes, updated_at=func.clock_timestamp())
                    .returning(queues)
                )
                after = (await connection.execute(statement)).mappings().one()
                await _record(connection, action, after, changes)
        if changes.keys() != {"description"}:
            self._notifier.notify(QUEUES_CHANGED, str(project_id))
        if changes.get("is_active") or changes.keys() & SETTINGS_COLUMNS:
            # A higher limit may make work available, as opening does.
            self._notifier.notify(WORK_READY, str(after["id"]))
        return queue_message(after)

    async def _now(self) -> datetime:
        """The time by the database's clock."""
        async with self._database.engine.connect() as connection:
            now: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
        return now


def _resume_at(request: queue_service_pb2.PauseQueueRequest) -> datetime | None:
    return request.resume_at.ToDatetime(tzinfo=UTC) if request.HasField("resume_at") else None


def _is(row: RowMapping) -> ColumnElement[bool]:
    return and_(queues.c.project_id == row["project_id"], queues.c.id == row["id"])


async def _count_unfinished(connection: AsyncConnection, project_id: UUID, queue_id: UUID) -> int:
    """How many jobs of the queue are in the table of unfinished ones; reads jobs_listing."""
    statement = select(func.count()).where(
        jobs.c.project_id == project_id, jobs.c.queue_id == queue_id
    )
    return (await connection.execute(statement)).scalar_one()


def _not_empty(row: RowMapping, unfinished: int) -> FailedPrecondition:
    name = row["name"]
    message = f"queue {name} still has unfinished jobs: {unfinished}"
    return FailedPrecondition(
        "QUEUE_NOT_EMPTY",
        message,
        metadata={"queue": name, "unfinished_jobs": str(unfinished)},
        precondition=PreconditionViolation("QUEUE_STATE", f"queues/{row['id']}", message),
    )


def _given(row: RowMapping) -> dict[str, Any]:
    """What was said of a new queue, beyond what every queue is."""
    columns = ("name", "description", "priority", *sorted(SETTINGS_COLUMNS))
    values = {column: row[column] for column in columns}
    return {
        column: value
        for column, value in values.items()
        if value is not None and value is not False and value != ""
    }


async def _record(
    connection: AsyncConnection, action: str, row: RowMapping, detail: Mapping[str, Any]
) -> None:
    await append_audit_entry(
        connection, action, f"queues/{row['id']}", project_id=row["project_id"], detail=detail
    )


def _refusing_taken_name(name: str) -> AbstractContextManager[None]:
    return refusing_taken(
        "queues_name",
        "QUEUE_NAME_TAKEN",
        f"another queue of the project is named {name}",
        queue=name,
    )
