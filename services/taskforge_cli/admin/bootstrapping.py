"""`taskforge admin bootstrap`: the first key, by whoever may write to the database."""

import asyncio
from typing import Annotated

import typer

from taskforge_cli.admin.keys import print_secret
from taskforge_cli.configuration import load_settings
from taskforge_cli.failures import CommandError, ExitCode, usage_error
from taskforge_cli.options import DatabaseUrl


def bootstrap(
    organisation: Annotated[
        str | None,
        typer.Option(
            "--organisation",
            metavar="NAME",
            help="The organisation that manages all others. Default: the oldest such one that is"
            " enabled, else default.",
            show_default=False,
        ),
    ] = None,
    project: Annotated[
        str, typer.Option("--project", metavar="NAME", help="Its first project.")
    ] = "default",
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Make another key although there is one, such as when it was lost."
        ),
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Make the first organisation, project and key, straight in the database.

    The key has all permissions in all projects of the organisation, and manages every other
    organisation. It is printed, alone, on stdout. What was disabled stays so: where that is all,
    name another organisation, whose key can enable it.
    """
    import asyncpg

    from taskforge_core.bootstrapping import CannotBootstrap
    from taskforge_core.bootstrapping import bootstrap as bootstrap_database
    from taskforge_core.settings import MissingDatabaseUrl

    try:
        url = load_settings(database_url=database_url).require_database_url()
        key = asyncio.run(
            bootstrap_database(url, organisation=organisation, project=project, again=again)
        )
    except MissingDatabaseUrl as error:
        raise usage_error(f"{error} (or --database-url does)") from error
    except CannotBootstrap as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"cannot reach the database: {error}", ExitCode.UNREACHABLE) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CommandError(f"the database refused it: {error}") from error
    print_secret(
        key.text, f"Made a key of the operator {key.organisation}, whose project is {key.project}."
    )
