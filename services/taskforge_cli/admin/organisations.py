"""`taskforge admin organisation …`: making, listing and changing tenants."""

from itertools import islice

import typer

from taskforge_cli import rendering
from taskforge_cli.admin import documents
from taskforge_cli.admin.naming import NewName, OrganisationName, organisation_id
from taskforge_cli.admin.quotas import MaxProjects, limit_of
from taskforge_cli.admin.rendering import print_organisation_quota, print_organisations
from taskforge_cli.asking import ask, on_terminal
from taskforge_cli.connecting import queue_calls
from taskforge_cli.options import AsJson, Limit, QueueAddress, Yes
from taskforge_sdk import Organisation

app = typer.Typer(help="Make, list and change organisations.")


@app.command()
def create(name: NewName, queue_address: QueueAddress = None, as_json: AsJson = False) -> None:
    """Make an organisation, which takes an operator's key."""
    with queue_calls(queue_address) as client:
        made = client.create_organisation(name)
    _show(made, as_json, f"Created the organisation {made.name} ({made.id}).")


@app.command("list")
def list_(limit: Limit = 1000, queue_address: QueueAddress = None, as_json: AsJson = False) -> None:
    """List the organisations that the key may see, by name."""
    with queue_calls(queue_address) as client:
        listed = client.list_organisations(page_size=min(limit, 1000))
        organisations = list(islice(listed, limit))
    if as_json:
        shown = [documents.organisation_document(each) for each in organisations]
        rendering.print_json({"organisations": shown})
    else:
        print_organisations(organisations)


@app.command()
def rename(
    organisation: OrganisationName,
    name: NewName,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Give an organisation another name."""
    with queue_calls(queue_address) as client:
        changed = client.update_organisation(organisation_id(client, organisation), name=name)
    _show(changed, as_json, f"Renamed the organisation {organisation} to {changed.name}.")


@app.command()
def enable(
    organisation: OrganisationName, queue_address: QueueAddress = None, as_json: AsJson = False
) -> None:
    """Let a disabled organisation's keys be accepted again."""
    with queue_calls(queue_address) as client:
        changed = client.update_organisation(organisation_id(client, organisation), is_enabled=True)
    _show(changed, as_json, f"Enabled the organisation {changed.name}.")


@app.command()
def disable(
    organisation: OrganisationName,
    yes: Yes = False,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Refuse all keys of an organisation and end its open streams; its jobs stay."""
    with queue_calls(queue_address) as client:
        sought = organisation_id(client, organisation)
        if not yes and on_terminal():
            ask(f"Refuse all keys of the organisation {organisation}, and end its open streams?")
        changed = client.update_organisation(sought, is_enabled=False)
    _show(changed, as_json, f"Disabled the organisation {changed.name}.")


@app.command()
def quota(
    organisation: OrganisationName,
    max_projects: MaxProjects = None,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Set how many projects an organisation may have, which takes an operator's key, or show it."""
    limit = None if max_projects is None else limit_of("--max-projects", max_projects)
    with queue_calls(queue_address) as client:
        sought = organisation_id(client, organisation)
        if max_projects is None:
            found = client.get_organisation(sought)
        else:
            found = client.update_organisation(sought, max_projects=limit)
    if as_json:
        rendering.print_json(documents.organisation_document(found))
    else:
        print_organisation_quota(found)


def _show(organisation: Organisation, as_json: bool, line: str) -> None:
    if as_json:
        rendering.print_json(documents.organisation_document(organisation))
    else:
        rendering.print_line(line)
