"""What is asked of AdminService: organisations, projects, keys and the audit log.

Each call names what it is about, so the client's own project, which comes first here as in every
builder, means nothing. `organisation_id` may be left out: then it is the credential's own.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import TypeAlias, cast

from google.protobuf.field_mask_pb2 import FieldMask

from taskforge.v1 import admin_service_pb2 as pb
from taskforge.v1 import permission_pb2
from taskforge_sdk import calls, tenant_conversion
from taskforge_sdk.calls import Call, Listing, Page
from taskforge_sdk.conversion import timestamp_of
from taskforge_sdk.errors import invalid
from taskforge_sdk.requests.building import UNSET, Unset, request
from taskforge_sdk.tenants import (
    AuditEntry,
    KeyInfo,
    NewKey,
    Organisation,
    Permission,
    Project,
    ProjectQuotas,
    QuotasChange,
)

ChangedQuotas: TypeAlias = ProjectQuotas | QuotasChange


@request
def create_organisation(_project_id: str, name: str) -> Call[Organisation]:
    """Make an organisation, which takes an operator. Never repeated by itself.

    AlreadyExists (`ORGANISATION_NAME_TAKEN`), PermissionDenied.
    """
    message = pb.CreateOrganisationRequest(name=name)
    return calls.CREATE_ORGANISATION.call(
        message, lambda answer: tenant_conversion.organisation(answer.organisation)
    )


@request
def get_organisation(_project_id: str, organisation_id: str = "") -> Call[Organisation]:
    """Show an organisation. NotFound."""
    message = pb.GetOrganisationRequest(organisation_id=organisation_id)
    return calls.GET_ORGANISATION.call(
        message, lambda answer: tenant_conversion.organisation(answer.organisation)
    )


@request
def list_organisations(_project_id: str, *, page_size: int = 100) -> Listing[Organisation]:
    """List the organisations by name: all to an operator, else the credential's own."""

    def page(token: str) -> Call[Page[Organisation]]:
        message = pb.ListOrganisationsRequest(page_size=page_size, page_token=token)
        return calls.LIST_ORGANISATIONS.call(
            message,
            lambda answer: Page(
                [tenant_conversion.organisation(each) for each in answer.organisations],
                answer.next_page_token,
            ),
        )

    return Listing(page)


@request
def update_organisation(
    _project_id: str,
    organisation_id: str = "",
    *,
    name: str | Unset = UNSET,
    is_enabled: bool | Unset = UNSET,
    max_projects: int | Unset | None = UNSET,
) -> Call[Organisation]:
    """Change what is given and nothing else; `max_projects`, which takes an operator, may be None.

    A disabled organisation's credentials are refused. NotFound, AlreadyExists
    (`ORGANISATION_NAME_TAKEN`), InvalidRequest (it cannot disable itself), PermissionDenied.
    """
    message = pb.UpdateOrganisationRequest(organisation_id=organisation_id)
    changes = {"name": name, "is_enabled": is_enabled, "max_projects": max_projects}
    for field, value in changes.items():
        if value is not UNSET:
            message.update_mask.paths.append(field)
            if value is not None:
                setattr(message, field, value)
    return calls.UPDATE_ORGANISATION.call(
        message, lambda answer: tenant_conversion.organisation(answer.organisation)
    )


@request
def create_project(
    _project_id: str,
    name: str,
    *,
    organisation_id: str = "",
    quotas: ProjectQuotas | None = None,
) -> Call[Project]:
    """Make a project; quotas take an operator. Never repeated by itself.

    AlreadyExists (`PROJECT_NAME_TAKEN`), NotFound, PermissionDenied, ResourceExhausted
    (`TOO_MANY_PROJECTS`).
    """
    message = pb.CreateProjectRequest(
        organisation_id=organisation_id,
        name=name,
        quotas=None if quotas is None else tenant_conversion.quotas_message(quotas),
    )
    return calls.CREATE_PROJECT.call(
        message, lambda answer: tenant_conversion.project(answer.project)
    )


@request
def get_project(_project_id: str, project_id: str) -> Call[Project]:
    """Show a project. NotFound."""
    message = pb.GetProjectRequest(project_id=project_id)
    return calls.GET_PROJECT.call(message, lambda answer: tenant_conversion.project(answer.project))


@request
def list_projects(
    _project_id: str, *, organisation_id: str = "", page_size: int = 100
) -> Listing[Project]:
    """List an organisation's projects by name; pages are fetched as they are needed. NotFound."""

    def page(token: str) -> Call[Page[Project]]:
        message = pb.ListProjectsRequest(
            organisation_id=organisation_id, page_size=page_size, page_token=token
        )
        return calls.LIST_PROJECTS.call(
            message,
            lambda answer: Page(
                [tenant_conversion.project(each) for each in answer.projects],
                answer.next_page_token,
            ),
        )

    return Listing(page)


@request
def update_project(
    _project_id: str,
    project_id: str,
    *,
    name: str | Unset = UNSET,
    is_enabled: bool | Unset = UNSET,
    quotas: ChangedQuotas | Unset = UNSET,
) -> Call[Project]:
    """Change what is given and nothing else; quotas take an operator.

    A `ProjectQuotas` replaces all quotas; a dict (`QuotasChange`) changes those it names, and None
    in it lifts one. NotFound, AlreadyExists (`PROJECT_NAME_TAKEN`), PermissionDenied.
    """
    message = pb.UpdateProjectRequest(project_id=project_id)
    mask: list[str] = []
    for field, value in {"name": name, "is_enabled": is_enabled}.items():
        if value is not UNSET:
            setattr(message, field, value)
            mask.append(field)
    if isinstance(quotas, ProjectQuotas):
        mask.append("quotas")
        message.quotas.CopyFrom(tenant_conversion.quotas_message(quotas))
    elif quotas is not UNSET:
        unknown = quotas.keys() - set(tenant_conversion.QUOTA_FIELDS)
        if unknown:
            raise invalid("quotas", f"there is no quota {', '.join(sorted(unknown))}")
        mask += [f"quotas.{field}" for field in quotas]
        message.quotas.CopyFrom(tenant_conversion.quotas_message(quotas))
    message.update_mask.CopyFrom(FieldMask(paths=mask))
    return calls.UPDATE_PROJECT.call(
        message, lambda answer: tenant_conversion.project(answer.project)
    )


@request
def create_api_key(
    _project_id: str,
    name: str,
    permissions: Iterable[Permission],
    *,
    organisation_id: str = "",
    project_id: str = "",
    expires_at: datetime | None = None,
    certificate_name: str = "",
) -> Call[NewKey]:
    """Make a key, whose text is in the answer and nowhere else. Never repeated by itself.

    With a `project_id` it is for that project alone. With a `certificate_name`, which takes an
    operator, a client certificate proves it in the place of a text. It can allow only what the
    caller's credential allows. NotFound, AlreadyExists (`CERTIFICATE_NAME_TAKEN`),
    PermissionDenied.
    """
    message = pb.CreateApiKeyRequest(
        organisation_id=organisation_id,
        project_id=project_id,
        name=name,
        # One each, as the contract wants; IntEnum's numbers are the contract's.
        permissions=cast(
            "list[permission_pb2.Permission.ValueType]", sorted({int(one) for one in permissions})
        ),
        expires_at=timestamp_of(expires_at, "expires_at"),
        certificate_name=certificate_name,
    )
    return calls.CREATE_API_KEY.call(message, tenant_conversion.new_key)


@request
def get_api_key(_project_id: str, api_key_id: str) -> Call[KeyInfo]:
    """Show a key, without its text. NotFound."""
    message = pb.GetApiKeyRequest(api_key_id=api_key_id)
    return calls.GET_API_KEY.call(
        message, lambda answer: tenant_conversion.key_info(answer.api_key)
    )


@request
def list_api_keys(
    _project_id: str, *, organisation_id: str = "", project_id: str = "", page_size: int = 100
) -> Listing[KeyInfo]:
    """List an organisation's keys, the newest first, or those for one project. NotFound."""

    def page(token: str) -> Call[Page[KeyInfo]]:
        message = pb.ListApiKeysRequest(
            organisation_id=organisation_id,
            project_id=project_id,
            page_size=page_size,
            page_token=token,
        )
        return calls.LIST_API_KEYS.call(
            message,
            lambda answer: Page(
                [tenant_conversion.key_info(each) for each in answer.api_keys],
                answer.next_page_token,
            ),
        )

    return Listing(page)


@request
def revoke_api_key(_project_id: str, api_key_id: str) -> Call[KeyInfo]:
    """Make a key worthless for ever; its open streams end within 5 s. NotFound."""
    message = pb.RevokeApiKeyRequest(api_key_id=api_key_id)
    return calls.REVOKE_API_KEY.call(
        message, lambda answer: tenant_conversion.key_info(answer.api_key)
    )


@request
def list_audit_entries(
    _project_id: str, *, organisation_id: str = "", project_id: str = "", page_size: int = 100
) -> Listing[AuditEntry]:
    """List what was changed in an organisation, the latest first, or in one project. NotFound."""

    def page(token: str) -> Call[Page[AuditEntry]]:
        message = pb.ListAuditEntriesRequest(
            organisation_id=organisation_id,
            project_id=project_id,
            page_size=page_size,
            page_token=token,
        )
        return calls.LIST_AUDIT_ENTRIES.call(
            message,
            lambda answer: Page(
                [tenant_conversion.audit_entry(each) for each in answer.entries],
                answer.next_page_token,
            ),
        )

    return Listing(page)
