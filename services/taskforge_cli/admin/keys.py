"""`taskforge admin key …`: making, listing and revoking API keys."""

import enum
import sys
from datetime import datetime, timedelta
from itertools import islice
from typing import Annotated

import typer

from taskforge_cli import rendering
from taskforge_cli.admin import documents
from taskforge_cli.admin.naming import OfOrganisation, OfProject, organisation_id, project_id
from taskforge_cli.admin.rendering import print_keys
from taskforge_cli.asking import ask, on_terminal
from taskforge_cli.connecting import queue_calls
from taskforge_cli.failures import usage_error
from taskforge_cli.options import AsJson, Limit, QueueAddress, Yes, duration_option, time_option
from taskforge_cli.parsing import point_in_time
from taskforge_core.queue_names import parse_queue_id
from taskforge_sdk import Permission

app = typer.Typer(help="Make, list and revoke API keys.")


class Granted(enum.StrEnum):
    """What a key may allow, as people write it."""

    QUEUE_READ = "queue:read"
    QUEUE_WRITE = "queue:write"
    JOB_READ = "job:read"
    JOB_WRITE = "job:write"
    ADMIN = "admin"


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the key.")],
    permission: Annotated[
        list[Granted],
        typer.Option(
            "--permission",
            metavar="PERMISSION",
            help="What it allows: queue:read, queue:write, job:read, job:write or admin; may be"
            " given several times.",
            show_default=False,
        ),
    ],
    project: Annotated[
        str | None,
        typer.Option(
            "--project",
            metavar="PROJECT",
            help="The only project that it is for, by name or id. Default: all of them.",
            show_default=False,
        ),
    ] = None,
    organisation: OfOrganisation = None,
    expires_at: Annotated[
        datetime | None, time_option("--expires-at", "Until when it is accepted.")
    ] = None,
    expires_after: Annotated[
        timedelta | None, duration_option("--expires-after", "For how long it is accepted.")
    ] = None,
    certificate_name: Annotated[
        str | None,
        typer.Option(
            "--certificate-name",
            metavar="NAME",
            help="The name in a client certificate that proves it, in the place of a text; takes"
            " an operator's key.",
            show_default=False,
        ),
    ] = None,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, alone, on stdout; it cannot be shown again."""
    until = point_in_time(expires_after, expires_at, "--expires-after", "--expires-at")
    with queue_calls(queue_address) as client:
        owner = organisation_id(client, organisation)
        made = client.create_api_key(
            name,
            [Permission[each.name] for each in permission],
            organisation_id=owner,
            project_id=project_id(client, project, owner),
            expires_at=until,
            certificate_name=certificate_name or "",
        )
    if as_json:
        rendering.print_json(documents.new_key_document(made))
    elif made.text is None:
        proof = f"certificates of the name {made.info.certificate_name}"
        rendering.print_line(f"Created the key {name} ({made.info.id}) for {proof}.")
    else:
        print_secret(made.text, f"Created the key {name} ({made.info.id}).")


@app.command("list")
def list_(
    organisation: OfOrganisation = None,
    project: OfProject = None,
    limit: Limit = 100,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """List an organisation's keys, the newest first, also revoked and expired ones."""
    with queue_calls(queue_address) as client:
        owner = organisation_id(client, organisation)
        listed = client.list_api_keys(
            organisation_id=owner,
            project_id=project_id(client, project, owner),
            page_size=min(limit, 1000),
        )
        keys = list(islice(listed, limit))
        names: dict[str, str] = {}
        if not as_json and any(key.project_id for key in keys):
            projects = client.list_projects(organisation_id=owner, page_size=1000)
            names = {each.id: each.name for each in projects}
    if as_json:
        rendering.print_json({"api_keys": [documents.key_document(key) for key in keys]})
    else:
        print_keys(keys, names)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's id, as list shows it.")],
    yes: Yes = False,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Make a key worthless for ever; within 5 s no server accepts it."""
    # Names need not be unique.
    if parse_queue_id(key) is None:
        raise usage_error(f"{key!r} is no id of a key: taskforge admin key list shows the ids")
    with queue_calls(queue_address) as client:
        if not yes and on_terminal():
            ask(f"Revoke the key {client.get_api_key(key).name} for ever?")
        revoked = client.revoke_api_key(key)
    if as_json:
        rendering.print_json(documents.key_document(revoked))
    else:
        rendering.print_line(f"Revoked the key {revoked.name} ({revoked.id}).")


def print_secret(text: str, message: str) -> None:
    """A key alone on stdout, so that a script can keep it; what people read goes to stderr."""
    sys.stderr.write(f"{message} It cannot be shown again:\n")
    sys.stderr.flush()
    sys.stdout.write(f"{text}\n")
