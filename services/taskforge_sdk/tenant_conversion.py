"""Between the contract's messages and the SDK's values of tenants, keys and the audit log."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from google.protobuf.message import Message

from taskforge.v1 import admin_pb2, admin_service_pb2
from taskforge_sdk import tenants
from taskforge_sdk.conversion import moment

QUOTA_FIELDS: Final = tuple(field.name for field in admin_pb2.ProjectQuotas.DESCRIPTOR.fields)


def organisation(message: admin_pb2.Organisation) -> tenants.Organisation:
    """An organisation as the server described it."""
    return tenants.Organisation(
        id=message.id,
        name=message.name,
        is_operator=message.is_operator,
        is_enabled=message.is_enabled,
        disabled_at=_moment_of(message, "disabled_at"),
        created_at=moment(message.created_at),
        updated_at=moment(message.updated_at),
        max_projects=message.max_projects if message.HasField("max_projects") else None,
    )


def project(message: admin_pb2.Project) -> tenants.Project:
    """A project as the server described it."""
    quotas = {field.name: value for field, value in message.quotas.ListFields()}
    return tenants.Project(
        id=message.id,
        organisation_id=message.organisation_id,
        name=message.name,
        is_enabled=message.is_enabled,
        disabled_at=_moment_of(message, "disabled_at"),
        # A newer server may know more.
        quotas=tenants.ProjectQuotas(**{name: quotas.get(name) for name in QUOTA_FIELDS}),
        created_at=moment(message.created_at),
        updated_at=moment(message.updated_at),
    )


def quotas_message(
    quotas: tenants.ProjectQuotas | tenants.QuotasChange,
) -> admin_pb2.ProjectQuotas:
    """Quotas, of which those that are None stay unset."""
    given: Mapping[str, Any] = (
        quotas
        if isinstance(quotas, dict)
        else {name: getattr(quotas, name) for name in QUOTA_FIELDS}
    )
    return admin_pb2.ProjectQuotas(
        **{name: limit for name, limit in given.items() if limit is not None}
    )


def key_info(message: admin_pb2.ApiKey) -> tenants.KeyInfo:
    """A key as the server described it."""
    return tenants.KeyInfo(
        id=message.id,
        organisation_id=message.organisation_id,
        project_id=message.project_id or None,
        name=message.name,
        permissions=tuple(tenants.Permission(each) for each in message.permissions),
        certificate_name=message.certificate_name or None,
        created_by=message.created_by,
        created_at=moment(message.created_at),
        expires_at=_moment_of(message, "expires_at"),
        revoked_at=_moment_of(message, "revoked_at"),
        last_used_at=_moment_of(message, "last_used_at"),
    )


def new_key(message: admin_service_pb2.CreateApiKeyResponse) -> tenants.NewKey:
    """A key with the text that is shown this once."""
    return tenants.NewKey(info=key_info(message.api_key), text=message.text or None)


def audit_entry(message: admin_pb2.AuditEntry) -> tenants.AuditEntry:
    """An entry of the audit log."""
    return tenants.AuditEntry(
        id=message.id,
        at=moment(message.at),
        organisation_id=message.organisation_id,
        project_id=message.project_id or None,
        actor=message.actor,
        action=message.action,
        target=message.target,
        detail_json=message.detail,
        request_id=message.request_id,
    )


def _moment_of(message: Message, field: str) -> datetime | None:
    return moment(getattr(message, field)) if message.HasField(field) else None
