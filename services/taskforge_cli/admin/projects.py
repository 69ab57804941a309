"""`taskforge admin project …`: making, listing and changing projects and their quotas."""

from itertools import islice
from typing import Any

import typer

from taskforge_cli import rendering
from taskforge_cli.admin import documents
from taskforge_cli.admin.naming import (
    NewName,
    OfOrganisation,
    ProjectName,
    organisation_id,
    project_id,
)
from taskforge_cli.admin.quotas import (
    MaxJobsPerSecond,
    MaxLeaseStreams,
    MaxQueues,
    MaxRequestBytes,
    MaxUnfinishedJobs,
    Unlimited,
    quotas_change,
)
from taskforge_cli.admin.rendering import print_projects, print_quotas
from taskforge_cli.asking import ask, on_terminal
from taskforge_cli.connecting import queue_calls
from taskforge_cli.options import AsJson, Limit, QueueAddress, Yes
from taskforge_sdk import Project, ProjectQuotas

app = typer.Typer(help="Make, list and change projects and their quotas.")


@app.command()
def create(
    name: NewName,
    organisation: OfOrganisation = None,
    max_jobs_per_second: MaxJobsPerSecond = None,
    max_unfinished_jobs: MaxUnfinishedJobs = None,
    max_queues: MaxQueues = None,
    max_lease_streams: MaxLeaseStreams = None,
    max_request_bytes: MaxRequestBytes = None,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Make a project; quotas take an operator's key."""
    quotas = ProjectQuotas(
        max_jobs_per_second, max_unfinished_jobs, max_queues, max_lease_streams, max_request_bytes
    )
    with queue_calls(queue_address) as client:
        made = client.create_project(
            name,
            organisation_id=organisation_id(client, organisation),
            quotas=None if quotas == ProjectQuotas() else quotas,
        )
    _show(made, as_json, f"Created the project {made.name} ({made.id}).")


@app.command("list")
def list_(
    organisation: OfOrganisation = None,
    limit: Limit = 1000,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """List an organisation's projects by name."""
    with queue_calls(queue_address) as client:
        listed = client.list_projects(
            organisation_id=organisation_id(client, organisation), page_size=min(limit, 1000)
        )
        projects = list(islice(listed, limit))
    if as_json:
        shown = [documents.project_document(each) for each in projects]
        rendering.print_json({"projects": shown})
    else:
        print_projects(projects)


@app.command()
def rename(
    project: ProjectName,
    name: NewName,
    organisation: OfOrganisation = None,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Give a project another name."""
    changed = _change(queue_address, organisation, project, name=name)
    _show(changed, as_json, f"Renamed the project {project} to {changed.name}.")


@app.command()
def enable(
    project: ProjectName,
    organisation: OfOrganisation = None,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Let a disabled project be used again."""
    changed = _change(queue_address, organisation, project, is_enabled=True)
    _show(changed, as_json, f"Enabled the project {changed.name}.")


@app.command()
def disable(
    project: ProjectName,
    organisation: OfOrganisation = None,
    yes: Yes = False,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Refuse all calls about a project and end its open streams; its jobs stay."""
    question = f"Refuse all calls about the project {project}, and end its open streams?"
    changed = _change(
        queue_address, organisation, project, question="" if yes else question, is_enabled=False
    )
    _show(changed, as_json, f"Disabled the project {changed.name}.")


@app.command()
def quota(
    project: ProjectName,
    organisation: OfOrganisation = None,
    max_jobs_per_second: MaxJobsPerSecond = None,
    max_unfinished_jobs: MaxUnfinishedJobs = None,
    max_queues: MaxQueues = None,
    max_lease_streams: MaxLeaseStreams = None,
    max_request_bytes: MaxRequestBytes = None,
    unlimited: Unlimited = None,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Set the quotas that are given, which takes an operator's key, and show them all."""
    given = {
        "max_jobs_per_second": max_jobs_per_second,
        "max_unfinished_jobs": max_unfinished_jobs,
        "max_queues": max_queues,
        "max_lease_streams": max_lease_streams,
        "max_request_bytes": max_request_bytes,
    }
    change = quotas_change(given, unlimited)
    with queue_calls(queue_address) as client:
        sought = project_id(client, project, organisation_id(client, organisation))
        if change:
            found = client.update_project(sought, quotas=change)
        else:
            found = client.get_project(sought)
    if as_json:
        rendering.print_json(documents.project_document(found))
    else:
        print_quotas(found)


def _change(
    queue_address: str | None,
    organisation: str | None,
    project: str,
    *,
    question: str = "",
    **changes: Any,
) -> Project:
    with queue_calls(queue_address) as client:
        sought = project_id(client, project, organisation_id(client, organisation))
        if question and on_terminal():
            ask(question)
        return client.update_project(sought, **changes)


def _show(project: Project, as_json: bool, line: str) -> None:
    if as_json:
        rendering.print_json(documents.project_document(project))
    else:
        rendering.print_line(line)
