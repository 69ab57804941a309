"""Makes, shows and revokes API keys. A key's text leaves the process once, in the answer."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from queue_service.admin.conversion import api_key_message
from queue_service.admin.listing import page_of_keys
from queue_service.admin.reach import Reach
from queue_service.taken import refusing_taken
from taskforge.v1 import admin_pb2
from taskforge.v1 import admin_service_pb2 as pb
from taskforge_core.api_keys import new_api_key
from taskforge_core.auditing import append_audit_entry
from taskforge_core.callers import PERMISSION_NAMES, current_caller
from taskforge_core.database import Database
from taskforge_core.errors import invalid_field
from taskforge_core.tables import api_keys


class Keys:
    """The use cases; each change is one transaction with its entry in the audit log."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine

    async def create(self, request: pb.CreateApiKeyRequest) -> pb.CreateApiKeyResponse:
        """Make a key; the answer alone holds its text.

        Raises:
            AlreadyExists: A key that is not revoked has the certificate name
                (`CERTIFICATE_NAME_TAKEN`).
            InvalidArgument: It would expire before it is made (`INVALID_REQUEST`).
            NotFound: `ORGANISATION_NOT_FOUND`, `PROJECT_NOT_FOUND`.
            FailedPrecondition: `PROJECT_DISABLED`.
            PermissionDenied: The caller cannot give what it has not, or a certificate's name
                (`PERMISSION_MISSING`).
        """
        reach = Reach.of_caller()
        reach.require_givable(request.permissions)
        by_certificate = bool(request.certificate_name)
        if by_certificate:
            reach.require_operator("say whose a certificate is")
        expires_at = _expires_at(request)
        key = new_api_key()
        with refusing_taken(
            "api_keys_certificate",
            "CERTIFICATE_NAME_TAKEN",
            f"another key stands for certificates of the name {request.certificate_name}",
            certificate_name=request.certificate_name,
        ):
            async with self._engine.begin() as connection:
                organisation = await reach.organisation(connection, request.organisation_id)
                project_id = await _project(connection, reach, request, organisation["id"])
                if expires_at is not None:
                    await _check_to_come(connection, expires_at)
                statement = (
                    insert(api_keys)
                    .values(
                        id=key.id,
                        organisation_id=organisation["id"],
                        project_id=project_id,
                        name=request.name,
                        secret_hash=None if by_certificate else key.secret_hash,
                        certificate_name=request.certificate_name or None,
                        permissions=sorted(request.permissions),
                        created_by=current_caller().name,
                        expires_at=expires_at,
                    )
                    .returning(api_keys)
                )
                row = (await connection.execute(statement)).mappings().one()
                await _record(connection, "CreateApiKey", row, _detail(row))
        return pb.CreateApiKeyResponse(
            api_key=api_key_message(row), text="" if by_certificate else key.text
        )

    async def get(self, request: pb.GetApiKeyRequest) -> admin_pb2.ApiKey:
        """One key.

        Raises:
            NotFound: `API_KEY_NOT_FOUND`.
            FailedPrecondition: `PROJECT_DISABLED`.
        """
        reach = Reach.of_caller()
        async with self._engine.connect() as connection:
            return api_key_message(await reach.api_key(connection, request.api_key_id))

    async def list(self, request: pb.ListApiKeysRequest) -> pb.ListApiKeysResponse:
        """One page of an organisation's keys, the newest first.

        Raises:
            InvalidArgument: `INVALID_PAGE_TOKEN`.
            NotFound: `ORGANISATION_NOT_FOUND`, `PROJECT_NOT_FOUND`.
            FailedPrecondition: `PROJECT_DISABLED`.
        """
        reach = Reach.of_caller()
        async with self._engine.connect() as connection:
            rows = await reach.belongings(
                connection, api_keys, request.organisation_id, request.project_id
            )
            page, token = await page_of_keys(connection, request, rows)
        return pb.ListApiKeysResponse(api_keys=map(api_key_message, page), next_page_token=token)

    async def revoke(self, request: pb.RevokeApiKeyRequest) -> admin_pb2.ApiKey:
        """Make a key worthless for ever; one that is revoked already stays as it is.

        Raises:
            NotFound: `API_KEY_NOT_FOUND`.
            FailedPrecondition: `PROJECT_DISABLED`.
        """
        reach = Reach.of_caller()
        async with self._engine.begin() as connection:
            row = await reach.api_key(connection, request.api_key_id, lock=True)
            if row["revoked_at"] is None:
                statement = (
                    update(api_keys)
                    .where(api_keys.c.id == row["id"])
                    .values(revoked_at=func.clock_timestamp())
                    .returning(api_keys)
                )
                row = (await connection.execute(statement)).mappings().one()
                await _record(connection, "RevokeApiKey", row, {"name": row["name"]})
        return api_key_message(row)


async def _project(
    connection: AsyncConnection,
    reach: Reach,
    request: pb.CreateApiKeyRequest,
    organisation_id: UUID,
) -> UUID | None:
    """The one project that the key is for."""
    # The caller's own is looked up too: a token may name whatever its issuer wrote.
    sought = request.project_id or reach.project_id
    if not sought:
        return None
    row = await reach.project(connection, str(sought), organisation_id)
    project_id: UUID = row["id"]
    return project_id


def _expires_at(request: pb.CreateApiKeyRequest) -> datetime | None:
    return request.expires_at.ToDatetime(tzinfo=UTC) if request.HasField("expires_at") else None


async def _check_to_come(connection: AsyncConnection, expires_at: datetime) -> None:
    now: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    if expires_at <= now:
        raise invalid_field("expires_at", "must be a time to come")


def _detail(row: RowMapping) -> dict[str, Any]:
    """What the audit log keeps of a new key: all but its secret's hash."""
    given = {
        "name": row["name"],
        "permissions": [PERMISSION_NAMES[permission] for permission in row["permissions"]],
        "certificate_name": row["certificate_name"],
        "expires_at": row["expires_at"],
    }
    return {name: value for name, value in given.items() if value is not None}


async def _record(
    connection: AsyncConnection, action: str, row: RowMapping, detail: dict[str, Any]
) -> None:
    await append_audit_entry(
        connection,
        action,
        f"api_keys/{row['id']}",
        organisation_id=row["organisation_id"],
        project_id=row["project_id"],
        detail=detail,
    )
