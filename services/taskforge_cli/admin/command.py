"""`taskforge admin …` as a whole, and `admin audit`."""

from itertools import islice

import typer

from taskforge_cli import rendering
from taskforge_cli.admin import bootstrapping, documents, keys, organisations, projects
from taskforge_cli.admin.naming import OfOrganisation, OfProject, organisation_id, project_id
from taskforge_cli.admin.rendering import print_entries
from taskforge_cli.connecting import queue_calls
from taskforge_cli.options import AsJson, Limit, QueueAddress

app = typer.Typer(help="Manage organisations, projects and keys.")
app.command()(bootstrapping.bootstrap)
app.add_typer(organisations.app, name="organisation")
app.add_typer(projects.app, name="project")
app.add_typer(keys.app, name="key")


@app.command()
def audit(
    organisation: OfOrganisation = None,
    project: OfProject = None,
    limit: Limit = 50,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Show who changed what, the latest first."""
    with queue_calls(queue_address) as client:
        owner = organisation_id(client, organisation)
        listed = client.list_audit_entries(
            organisation_id=owner,
            project_id=project_id(client, project, owner),
            page_size=min(limit + 1, 1000),
        )
        # One more than asked for tells whether others follow.
        entries = list(islice(listed, limit + 1))
    if as_json:
        shown = [documents.entry_document(entry) for entry in entries[:limit]]
        rendering.print_json({"entries": shown})
    else:
        print_entries(entries[:limit], more=len(entries) > limit)
