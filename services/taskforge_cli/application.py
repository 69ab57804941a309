"""The command as a whole: its parts, and the border where errors become lines and exit codes."""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from taskforge_cli import developing, jobs, queues, serving, workers
from taskforge_cli.admin import command as admin
from taskforge_cli.bench.command import bench
from taskforge_cli.demo.command import demo
from taskforge_cli.failures import CommandError, ExitCode, one_line

app = typer.Typer(
    help="TaskForge: a job queue over gRPC whose only shared state is Postgres.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("dev")(developing.dev)
app.command("demo")(demo)
app.command("bench")(bench)
app.command("migrate")(serving.migrate)
app.command("serve")(serving.serve)
app.add_typer(queues.app, name="queue")
app.add_typer(jobs.app, name="job")
app.add_typer(workers.app, name="worker")
app.add_typer(admin.app, name="admin")


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. A user's mistake is one line on stderr."""
    try:
        outcome = typer.main.get_command(app).main(
            args=list(arguments), prog_name="taskforge", standalone_mode=False
        )
    except typer.TyperException as error:
        message = error.format_message().replace("Value error, ", "")
        _complain(message.replace("Missing command.", "Missing command: see --help."))
        return error.exit_code
    except CommandError as error:
        _complain(str(error))
        return error.code
    except typer.Abort:
        _complain("aborted")
        return ExitCode.FAILED
    return outcome if isinstance(outcome, int) else ExitCode.OK


def _complain(message: str) -> None:
    sys.stderr.write(f"error: {one_line(message)}\n")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"taskforge {version('taskforge')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass
