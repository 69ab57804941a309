"""Organisations, projects, keys and audit entries as tables for people."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from rich.text import Text

from taskforge_cli.rendering import (
    format_time,
    make_console,
    new_table,
    print_line,
    print_pairs,
    print_rich,
)
from taskforge_sdk import AuditEntry, KeyInfo, Organisation, Project

_WIDTH_FOR_MAKERS = 180
"""Columns of a terminal: a maker may be `key` and an id."""


def print_organisations(organisations: Sequence[Organisation]) -> None:
    """A table of organisations."""
    if not organisations:
        print_line("There is no organisation.")
        return
    table = new_table("ID", "NAME", "STATE", "MAX PROJECTS", "CREATED")
    for organisation in organisations:
        state = _enabled(organisation.is_enabled)
        if organisation.is_operator:
            state.append(", operator")
        limit = organisation.max_projects
        table.add_row(
            organisation.id,
            Text(organisation.name),
            state,
            "-" if limit is None else f"{limit:,}",
            format_time(organisation.created_at),
        )
    print_rich(table)


def print_organisation_quota(organisation: Organisation) -> None:
    """An organisation's quota."""
    print_pairs(
        [("Organisation", organisation.name), ("Max projects", _limit(organisation.max_projects))]
    )


def print_projects(projects: Sequence[Project]) -> None:
    """A table of projects."""
    if not projects:
        print_line("There is no project.")
        return
    table = new_table("ID", "NAME", "STATE", "QUOTAS", "CREATED")
    for project in projects:
        limits = {name: limit for name, limit in asdict(project.quotas).items() if limit}
        quotas = ", ".join(f"{name.replace('_', '-')} {limit:,}" for name, limit in limits.items())
        table.add_row(
            project.id,
            Text(project.name),
            _enabled(project.is_enabled),
            quotas or "-",
            format_time(project.created_at),
        )
    print_rich(table)


def print_quotas(project: Project) -> None:
    """A project's quotas, one a line."""
    quotas = asdict(project.quotas)
    print_pairs(
        [
            ("Project", project.name),
            *(
                (name.replace("_", " ").capitalize(), _limit(limit))
                for name, limit in quotas.items()
            ),
        ]
    )


def print_keys(keys: Sequence[KeyInfo], names: dict[str, str]) -> None:
    """A table of keys; `names` are those of projects, by id.

    Who made them is shown where there is room for it.
    """
    if not keys:
        print_line("There is no key.")
        return
    columns = ["ID", "NAME", "STATE", "PROJECT", "PERMISSIONS", "CREATED", "LAST USED"]
    with_certificates = any(key.certificate_name for key in keys)
    with_makers = make_console().width >= _WIDTH_FOR_MAKERS
    table = new_table(*columns, *["CERTIFICATE"] * with_certificates, *["MADE BY"] * with_makers)
    for key in keys:
        table.add_row(
            key.id,
            Text(key.name),
            _key_state(key),
            Text("(all)" if key.project_id is None else names.get(key.project_id, key.project_id)),
            " ".join(permission.written for permission in key.permissions),
            format_time(key.created_at),
            format_time(key.last_used_at) or "-",
            *[Text(key.certificate_name or "-")] * with_certificates,
            *[Text(key.created_by)] * with_makers,
        )
    print_rich(table)


def print_entries(entries: Sequence[AuditEntry], *, more: bool) -> None:
    """A table of audit entries; `more`: there are others that are not shown."""
    if not entries:
        print_line("Nothing was changed.")
        return
    table = new_table("AT", "ACTOR", "ACTION", "TARGET", "DETAIL")
    for entry in entries:
        table.add_row(
            format_time(entry.at),
            Text(entry.actor),
            entry.action,
            Text(entry.target),
            Text(entry.detail_json),
        )
    print_rich(table)
    if more:
        print_line(f"These are the latest {len(entries)}; --limit shows more.")


def _limit(limit: int | None) -> str:
    return "(no limit)" if limit is None else f"{limit:,}"


def _enabled(is_enabled: bool) -> Text:
    return Text("enabled", style="green") if is_enabled else Text("disabled", style="red")


def _key_state(key: KeyInfo) -> Text:
    if key.revoked_at is not None:
        return Text(f"revoked {format_time(key.revoked_at)}", style="red")
    if key.expires_at is None:
        return Text("valid", style="green")
    expired = key.expires_at <= datetime.now(UTC)
    words = "expired" if expired else "valid until"
    return Text(f"{words} {format_time(key.expires_at)}", style="red" if expired else "green")
