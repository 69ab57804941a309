"""Organisations, projects, keys and audit entries as JSON: what `--json` prints.

The keys are those of the contract; a key is always there: what is not set is null.
"""

from dataclasses import asdict
from typing import Any

import orjson

from taskforge_cli.documents import time_value
from taskforge_sdk import AuditEntry, KeyInfo, NewKey, Organisation, Project


def organisation_document(organisation: Organisation) -> dict[str, Any]:
    """An organisation."""
    return {
        "id": organisation.id,
        "name": organisation.name,
        "is_operator": organisation.is_operator,
        "is_enabled": organisation.is_enabled,
        "disabled_at": time_value(organisation.disabled_at),
        "created_at": time_value(organisation.created_at),
        "updated_at": time_value(organisation.updated_at),
        "max_projects": organisation.max_projects,
    }


def project_document(project: Project) -> dict[str, Any]:
    """A project with its quotas."""
    return {
        "id": project.id,
        "organisation_id": project.organisation_id,
        "name": project.name,
        "is_enabled": project.is_enabled,
        "disabled_at": time_value(project.disabled_at),
        "quotas": asdict(project.quotas),
        "created_at": time_value(project.created_at),
        "updated_at": time_value(project.updated_at),
    }


def key_document(key: KeyInfo) -> dict[str, Any]:
    """A key without its text."""
    return {
        "id": key.id,
        "organisation_id": key.organisation_id,
        "project_id": key.project_id,
        "name": key.name,
        "permissions": [permission.written for permission in key.permissions],
        "certificate_name": key.certificate_name,
        "created_by": key.created_by,
        "created_at": time_value(key.created_at),
        "expires_at": time_value(key.expires_at),
        "revoked_at": time_value(key.revoked_at),
        "last_used_at": time_value(key.last_used_at),
    }


def new_key_document(key: NewKey) -> dict[str, Any]:
    """A new key; its text is shown this once."""
    return {**key_document(key.info), "text": key.text}


def entry_document(entry: AuditEntry) -> dict[str, Any]:
    """An entry of the audit log."""
    return {
        "id": entry.id,
        "at": time_value(entry.at),
        "organisation_id": entry.organisation_id,
        "project_id": entry.project_id,
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "detail": orjson.Fragment(entry.detail_json),
        "request_id": entry.request_id,
    }
