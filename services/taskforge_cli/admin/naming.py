"""Organisations and projects as people name them: by name or by id; calls take ids."""

from collections.abc import Iterable
from typing import Annotated

import typer

from taskforge_cli.failures import CommandError
from taskforge_core.queue_names import parse_queue_id
from taskforge_sdk import BlockingClient, Organisation, Project

OrganisationName = Annotated[
    str, typer.Argument(metavar="ORGANISATION", help="The organisation's name or id.")
]
ProjectName = Annotated[str, typer.Argument(metavar="PROJECT", help="The project's name or id.")]
NewName = Annotated[
    str, typer.Argument(metavar="NAME", help="Up to 100 letters, digits and . _ - : /")
]
OfOrganisation = Annotated[
    str | None,
    typer.Option(
        "--organisation",
        metavar="ORGANISATION",
        help="Which organisation's, by name or id. Default: that of the key that is used.",
        show_default=False,
    ),
]
OfProject = Annotated[
    str | None,
    typer.Option(
        "--project", metavar="PROJECT", help="Only this project's, by name or id.",
        show_default=False,
    ),
]  # fmt: skip


def organisation_id(client: BlockingClient, named: str | None) -> str:
    """The id of the organisation that an option or an argument names; empty for none.

    Raises:
        CommandError: There is none of this name.
    """
    if named is None or parse_queue_id(named) is not None:
        return named or ""
    return _find(client.list_organisations(page_size=1000), "organisation", named)


def project_id(client: BlockingClient, named: str | None, organisation: str) -> str:
    """The id of the project that an option or an argument names; empty for none.

    Args:
        client: Asked for the projects' names.
        named: A name or an id.
        organisation: The id of the organisation in which a name is looked for.

    Raises:
        CommandError: There is none of this name.
    """
    if named is None or parse_queue_id(named) is not None:
        return named or ""
    projects = client.list_projects(organisation_id=organisation, page_size=1000)
    return _find(projects, "project", named)


def _find(things: Iterable[Organisation] | Iterable[Project], kind: str, name: str) -> str:
    for thing in things:
        if thing.name == name:
            return thing.id
    # The reason is the one that the server has for an id.
    raise CommandError(f"{kind.upper()}_NOT_FOUND: there is no {kind} {name}")
