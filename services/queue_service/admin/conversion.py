"""Rows of tenants, keys and the audit log to messages, and quotas back to columns.

A quota has the same name in the contract and in the table, and one that is not set is NULL.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import RowMapping

from taskforge.v1 import admin_pb2

QUOTAS = tuple(field.name for field in admin_pb2.ProjectQuotas.DESCRIPTOR.fields)
"""The names of all quotas, in the contract's order."""


def organisation_message(row: RowMapping) -> admin_pb2.Organisation:
    """The organisation of a row."""
    return admin_pb2.Organisation(
        id=str(row["id"]),
        name=row["name"],
        is_operator=row["is_operator"],
        is_enabled=row["disabled_at"] is None,
        disabled_at=_moment(row["disabled_at"]),
        created_at=_moment(row["created_at"]),
        updated_at=_moment(row["updated_at"]),
        max_projects=row["max_projects"],
    )


def project_message(row: RowMapping) -> admin_pb2.Project:
    """The project of a row."""
    quotas = {name: row[name] for name in QUOTAS if row[name] is not None}
    return admin_pb2.Project(
        id=str(row["id"]),
        organisation_id=str(row["organisation_id"]),
        name=row["name"],
        is_enabled=row["disabled_at"] is None,
        disabled_at=_moment(row["disabled_at"]),
        quotas=admin_pb2.ProjectQuotas(**quotas),
        created_at=_moment(row["created_at"]),
        updated_at=_moment(row["updated_at"]),
    )


def quota_columns(
    quotas: admin_pb2.ProjectQuotas, names: Iterable[str] = QUOTAS
) -> dict[str, int | None]:
    """The columns for the named quotas; None for what is not set."""
    fields: Any = quotas
    return {name: getattr(fields, name) if fields.HasField(name) else None for name in names}


def api_key_message(row: RowMapping) -> admin_pb2.ApiKey:
    """The key of a row, without what proves it."""
    return admin_pb2.ApiKey(
        id=str(row["id"]),
        organisation_id=str(row["organisation_id"]),
        project_id=_id(row["project_id"]),
        name=row["name"],
        permissions=row["permissions"],
        certificate_name=row["certificate_name"] or "",
        created_by=row["created_by"],
        created_at=_moment(row["created_at"]),
        expires_at=_moment(row["expires_at"]),
        revoked_at=_moment(row["revoked_at"]),
        last_used_at=_moment(row["last_used_at"]),
    )


def entry_message(row: RowMapping) -> admin_pb2.AuditEntry:
    """The entry of a row."""
    return admin_pb2.AuditEntry(
        id=row["id"],
        at=_moment(row["at"]),
        organisation_id=_id(row["organisation_id"]),
        project_id=_id(row["project_id"]),
        actor=row["actor"],
        action=row["action"],
        target=row["target"],
        detail=row["detail"],
        request_id=row["request_id"],
    )


def _id(value: object) -> str:
    return "" if value is None else str(value)


def _moment(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message
