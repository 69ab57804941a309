"""Makes, shows and changes organisations."""

from typing import Any

from sqlalchemy import RowMapping, insert, select

from queue_service.admin.changing import change
from queue_service.admin.conversion import organisation_message
from queue_service.admin.listing import page_by_name
from queue_service.admin.reach import SET_QUOTAS, Reach
from queue_service.masking import Reader, masked_name, masked_values
from queue_service.naming import check_name
from queue_service.taken import refusing_taken
from taskforge.v1 import admin_pb2
from taskforge.v1 import admin_service_pb2 as pb
from taskforge_core.auditing import append_audit_entry
from taskforge_core.database import Database
from taskforge_core.errors import invalid_field
from taskforge_core.ids import uuid7
from taskforge_core.tables import organisations

_READERS: dict[str, Reader[pb.UpdateOrganisationRequest]] = {
    "name": masked_name,
    "is_enabled": lambda request: {"is_enabled": request.is_enabled},
    "max_projects": lambda request: {
        "max_projects": request.max_projects if request.HasField("max_projects") else None
    },
}


class Organisations:
    """The use cases; each change is one transaction with its entry in the audit log."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine

    async def create(self, request: pb.CreateOrganisationRequest) -> admin_pb2.Organisation:
        """Make an organisation.

        Raises:
            AlreadyExists: Another has the name (`ORGANISATION_NAME_TAKEN`).
            InvalidArgument: The name looks like a UUID (`INVALID_REQUEST`).
            PermissionDenied: The caller is no operator (`PERMISSION_MISSING`).
        """
        Reach.of_caller().require_operator("make an organisation")
        name = check_name(request.name)
        statement = (
            insert(organisations)
            .values(id=uuid7(), name=name, is_operator=False)
            .returning(organisations)
        )
        with _refusing_taken_name(name):
            async with self._engine.begin() as connection:
                row = (await connection.execute(statement)).mappings().one()
                await append_audit_entry(
                    connection,
                    "CreateOrganisation",
                    _target(row),
                    organisation_id=row["id"],
                    detail={"name": name},
                )
        return organisation_message(row)

    async def get(self, request: pb.GetOrganisationRequest) -> admin_pb2.Organisation:
        """One organisation.

        Raises:
            NotFound: `ORGANISATION_NOT_FOUND`.
            FailedPrecondition: `PROJECT_DISABLED`.
        """
        reach = Reach.of_caller()
        async with self._engine.connect() as connection:
            row = await reach.organisation(connection, request.organisation_id)
        return organisation_message(row)

    async def list(self, request: pb.ListOrganisationsRequest) -> pb.ListOrganisationsResponse:
        """One page of the organisations that the caller may see, by name, then id.

        Raises:
            InvalidArgument: `INVALID_PAGE_TOKEN`.
            FailedPrecondition: `PROJECT_DISABLED`.
        """
        reach = Reach.of_caller()
        rows = select(organisations).where(reach.organisations())
        async with self._engine.connect() as connection:
            await reach.require_enabled(connection)
            page, token = await page_by_name(connection, request, organisations, rows)
        return pb.ListOrganisationsResponse(
            organisations=map(organisation_message, page), next_page_token=token
        )

    async def update(self, request: pb.UpdateOrganisationRequest) -> admin_pb2.Organisation:
        """Change the fields that the mask names.

        Raises:
            AlreadyExists: Another has the new name (`ORGANISATION_NAME_TAKEN`).
            InvalidArgument: The mask or the new name is wrong (`INVALID_UPDATE_MASK`,
                `INVALID_REQUEST`), or the caller would lock itself out (`INVALID_REQUEST`).
            NotFound: `ORGANISATION_NOT_FOUND`.
            PermissionDenied: The credential is for one project, or the quota is named and it is no
                operator's (`PERMISSION_MISSING`).
        """
        reach = Reach.of_caller()
        reach.require_organisation("change its organisation")
        wanted = masked_values(request, _READERS)
        if "max_projects" in wanted:
            reach.require_operator(SET_QUOTAS)
        with _refusing_taken_name(wanted.get("name", "")):
            async with self._engine.begin() as connection:
                before = await reach.organisation(connection, request.organisation_id, lock=True)
                _check_not_locked_out(reach, before, wanted)
                row, changed = await change(connection, organisations, before, wanted)
                if changed:
                    await append_audit_entry(
                        connection,
                        "UpdateOrganisation",
                        _target(row),
                        organisation_id=row["id"],
                        detail=changed,
                    )
        return organisation_message(row)


def _check_not_locked_out(reach: Reach, row: RowMapping, wanted: dict[str, Any]) -> None:
    """Nobody may disable the organisation of its own credential: who would enable it again?"""
    if reach.is_own and row["id"] == reach.organisation_id and not wanted.get("is_enabled", True):
        raise invalid_field("is_enabled", "an organisation cannot disable itself")


def _target(row: RowMapping) -> str:
    return f"organisations/{row['id']}"


def _refusing_taken_name(name: str) -> Any:
    return refusing_taken(
        "organisations_name_key",
        "ORGANISATION_NAME_TAKEN",
        f"another organisation is named {name}",
        organisation=name,
    )
