"""What the administrative calls take and return: organisations, projects, keys, the audit log."""

import enum
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, TypedDict

from taskforge_sdk import documents


class Permission(enum.IntEnum):
    """What a credential allows; none includes another."""

    UNSPECIFIED = 0
    QUEUE_READ = 1
    QUEUE_WRITE = 2
    JOB_READ = 3
    JOB_WRITE = 4
    ADMIN = 5

    @property
    def written(self) -> str:
        """As people write it: `queue:read`, `admin`."""
        return self.name.lower().replace("_", ":")

    @classmethod
    def _missing_(cls, _value: object) -> "Permission":
        return cls.UNSPECIFIED  # a newer server may know more


@dataclass(frozen=True, slots=True)
class Organisation:
    """A tenant. Administrators of an operator manage all organisations.

    `max_projects` is how many projects it may have; None is no limit.
    """

    id: str
    name: str
    is_operator: bool
    is_enabled: bool
    disabled_at: datetime | None
    created_at: datetime
    updated_at: datetime
    max_projects: int | None = None


@dataclass(frozen=True, slots=True)
class ProjectQuotas:
    """How much a project may use; None is no limit."""

    max_jobs_per_second: int | None = None
    max_unfinished_jobs: int | None = None
    max_queues: int | None = None
    max_lease_streams: int | None = None
    max_request_bytes: int | None = None


class QuotasChange(TypedDict, total=False):
    """The quotas to change, each alone; None lifts one."""

    max_jobs_per_second: int | None
    max_unfinished_jobs: int | None
    max_queues: int | None
    max_lease_streams: int | None
    max_request_bytes: int | None


@dataclass(frozen=True, slots=True)
class Project:
    """What an organisation keeps apart: queues and jobs belong to one project."""

    id: str
    organisation_id: str
    name: str
    is_enabled: bool
    disabled_at: datetime | None
    quotas: ProjectQuotas
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """An API key, without the text that proves it.

    `project_id` is None where the key is for all projects of its organisation; `certificate_name`
    is None where it has a text.
    """

    id: str
    organisation_id: str
    project_id: str | None
    name: str
    permissions: tuple[Permission, ...]
    certificate_name: str | None
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made; `text` is its secret, None where a certificate proves it."""

    info: KeyInfo
    text: str | None = field(repr=False)


@dataclass(frozen=True)
class AuditEntry:
    """One administrative change; `project_id` is None for a thing of the whole organisation."""

    id: int
    at: datetime
    organisation_id: str
    project_id: str | None
    actor: str
    action: str
    target: str
    detail_json: str
    request_id: str

    @cached_property
    def detail(self) -> Any:
        """The fields that were changed and their new values, or how many jobs were."""
        return documents.decode(self.detail_json)
