"""Makes, shows and changes projects and their quotas."""

from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from queue_service.admin.changing import change
from queue_service.admin.conversion import QUOTAS, project_message, quota_columns
from queue_service.admin.listing import page_by_name
from queue_service.admin.reach import SET_QUOTAS, Reach
from queue_service.masking import Reader, masked_name, masked_values
from queue_service.naming import check_name
from queue_service.taken import refusing_taken
from taskforge.v1 import admin_pb2
from taskforge.v1 import admin_service_pb2 as pb
from taskforge_core.auditing import append_audit_entry
from taskforge_core.database import Database
from taskforge_core.errors import ResourceExhausted
from taskforge_core.ids import uuid7
from taskforge_core.tables import projects


def _quota(name: str) -> Reader[pb.UpdateProjectRequest]:
    return lambda request: quota_columns(request.quotas, [name])


_READERS: dict[str, Reader[pb.UpdateProjectRequest]] = {
    "name": masked_name,
    "is_enabled": lambda request: {"is_enabled": request.is_enabled},
    "quotas": lambda request: quota_columns(request.quotas),
    **{f"quotas.{name}": _quota(name) for name in QUOTAS},
}


class TenantProjects:
    """The use cases; each change is one transaction with its entry in the audit log."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine

    async def create(self, request: pb.CreateProjectRequest) -> admin_pb2.Project:
        """Make a project.

        Raises:
            AlreadyExists: Another of the organisation has the name (`PROJECT_NAME_TAKEN`).
            InvalidArgument: The name looks like a UUID (`INVALID_REQUEST`).
            NotFound: `ORGANISATION_NOT_FOUND`.
            PermissionDenied: The credential is for one project, or there are quotas and it is no
                operator's (`PERMISSION_MISSING`).
            ResourceExhausted: The organisation has as many as it may (`TOO_MANY_PROJECTS`).
        """
        reach = Reach.of_caller()
        reach.require_organisation("make a project")
        if request.HasField("quotas"):
            reach.require_operator(SET_QUOTAS)
        name = check_name(request.name)
        with _refusing_taken_name(name):
            async with self._engine.begin() as connection:
                # Its other creations wait, so that none goes uncounted.
                organisation = await reach.organisation(
                    connection, request.organisation_id, lock=True
                )
                await _check_room(connection, organisation)
                organisation_id: UUID = organisation["id"]
                if reach.is_operator:
                    quotas = quota_columns(request.quotas)
                else:
                    quotas = await _strictest(connection, organisation_id)
                statement = (
                    insert(projects)
                    .values(id=uuid7(), organisation_id=organisation_id, name=name, **quotas)
                    .returning(projects)
                )
                row = (await connection.execute(statement)).mappings().one()
                given = {quota: limit for quota, limit in quotas.items() if limit is not None}
                await _record(connection, "CreateProject", row, {"name": name, **given})
        return project_message(row)

    async def get(self, request: pb.GetProjectRequest) -> admin_pb2.Project:
        """One project.

        Raises:
            NotFound: `PROJECT_NOT_FOUND`.
            FailedPrecondition: `PROJECT_DISABLED`.
        """
        reach = Reach.of_caller()
        async with self._engine.connect() as connection:
            return project_message(await reach.project(connection, request.project_id))

    async def list(self, request: pb.ListProjectsRequest) -> pb.ListProjectsResponse:
        """One page of an organisation's projects, by name, then id.

        Raises:
            InvalidArgument: `INVALID_PAGE_TOKEN`.
            NotFound: `ORGANISATION_NOT_FOUND`.
            FailedPrecondition: `PROJECT_DISABLED`.
        """
        reach = Reach.of_caller()
        async with self._engine.connect() as connection:
            organisation = await reach.organisation(connection, request.organisation_id)
            rows = select(projects).where(
                reach.projects(), projects.c.organisation_id == organisation["id"]
            )
            page, token = await page_by_name(connection, request, projects, rows)
        return pb.ListProjectsResponse(projects=map(project_message, page), next_page_token=token)

    async def update(self, request: pb.UpdateProjectRequest) -> admin_pb2.Project:
        """Change the fields that the mask names.

        Raises:
            AlreadyExists: Another of the organisation has the new name (`PROJECT_NAME_TAKEN`).
            InvalidArgument: The mask or the new name is wrong (`INVALID_UPDATE_MASK`,
                `INVALID_REQUEST`).
            NotFound: `PROJECT_NOT_FOUND`.
            PermissionDenied: The credential is for one project, or quotas are named and it is no
                operator's (`PERMISSION_MISSING`).
        """
        reach = Reach.of_caller()
        reach.require_organisation("change its project")
        wanted = masked_values(request, _READERS)
        if wanted.keys() & set(QUOTAS):
            reach.require_operator(SET_QUOTAS)
        with _refusing_taken_name(wanted.get("name", "")):
            async with self._engine.begin() as connection:
                before = await reach.project(connection, request.project_id, lock=True)
                row, changed = await change(connection, projects, before, wanted)
                if changed:
                    await _record(connection, "UpdateProject", row, changed)
        return project_message(row)


async def _check_room(connection: AsyncConnection, organisation: RowMapping) -> None:
    """Let a locked organisation have one more project, if it may.

    Raises:
        ResourceExhausted: `TOO_MANY_PROJECTS`.
    """
    limit: int | None = organisation["max_projects"]
    if limit is None:
        return
    # Disabled ones too: they can be enabled again, and their jobs are there.
    present = (
        select(func.count())
        .select_from(projects)
        .where(projects.c.organisation_id == organisation["id"])
    )
    if (await connection.execute(present)).scalar_one() >= limit:
        raise ResourceExhausted(
            "TOO_MANY_PROJECTS",
            f"the organisation has as many projects as it may: {limit}",
            metadata={"limit": str(limit)},
        )


async def _strictest(connection: AsyncConnection, organisation_id: UUID) -> dict[str, Any]:
    """What a project gets that a tenant makes itself: of each quota, the least that it has."""
    statement = select(*(func.min(projects.c[name]).label(name) for name in QUOTAS)).where(
        projects.c.organisation_id == organisation_id
    )
    return dict((await connection.execute(statement)).mappings().one())


async def _record(
    connection: AsyncConnection, action: str, row: RowMapping, detail: dict[str, Any]
) -> None:
    await append_audit_entry(
        connection,
        action,
        f"projects/{row['id']}",
        organisation_id=row["organisation_id"],
        project_id=row["id"],
        detail=detail,
    )


def _refusing_taken_name(name: str) -> Any:
    return refusing_taken(
        "projects_organisation_id_name_key",
        "PROJECT_NAME_TAKEN",
        f"another project of the organisation is named {name}",
        project=name,
    )
