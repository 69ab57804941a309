"""`taskforge worker …`: running a worker that a module defines."""

import importlib
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from taskforge_cli.configuration import load_settings
from taskforge_cli.connecting import refusal
from taskforge_cli.failures import CommandError, usage_error
from taskforge_cli.options import JobAddress, duration_option
from taskforge_sdk import TaskForgeError, Worker

app = typer.Typer(help="Run workers.")


@app.callback()
def _workers() -> None:
    """Run workers."""  # a group, although it has one command


@app.command()
def run(
    worker: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:WORKER",
            help="The module, looked for in the current folder too, and its Worker's name.",
        ),
    ],
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", metavar="QUEUE", help="Take jobs from this queue; repeatable."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(metavar="N", help="How many jobs run at once.", show_default=False),
    ] = None,
    lease_duration: Annotated[
        timedelta | None,
        duration_option("--lease-duration", "After this long a silent worker loses its jobs."),
    ] = None,
    worker_id: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="What people see. Default: host and process."),
    ] = None,
    grace: Annotated[
        timedelta | None,
        duration_option("--grace", "How long running jobs may finish after SIGTERM."),
    ] = None,
    job_address: JobAddress = None,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C; a second Ctrl-C gives its jobs back at once.

    An option that is not given leaves what the module says; the address is that of the settings
    unless the module names another.
    """
    from taskforge_core.logs import configure_logging

    settings = load_settings(job_address=job_address)
    loaded = load_worker(worker)
    configure_logging(settings.log_format, settings.log_level)
    # A default of ours must not win over what the module says.
    is_given = "job_address" in settings.model_fields_set
    try:
        loaded.configure(
            address=settings.job_address if is_given else None,
            queues=queue or None,
            concurrency=concurrency,
            lease_duration=lease_duration,
            worker_id=worker_id,
            grace=grace,
        )
    except ValueError as error:
        raise usage_error(str(error)) from error
    try:
        loaded.run_forever()
    except TaskForgeError as error:
        raise refusal(error, "job", settings.job_address) from error


def load_worker(reference: str) -> Worker:
    """Import `module:name`, with the current folder first on the path.

    Raises:
        CommandError: There is no such module or name, or it is no Worker.
    """
    module_name, separator, attribute = reference.partition(":")
    if not separator or not module_name or not attribute:
        raise usage_error(f"{reference!r} is no MODULE:WORKER, such as my_package.tasks:worker")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise CommandError(f"{module_name} needs a missing module: {error.name}") from error
        raise usage_error(f"there is no module {error.name}, here or installed") from error
    except (ImportError, SyntaxError, ValueError) as error:
        raise CommandError(f"{module_name} cannot be imported: {error}") from error
    worker = getattr(module, attribute, None)
    if worker is None:
        raise usage_error(f"the module {module_name} has no {attribute}")
    if not isinstance(worker, Worker):
        raise usage_error(f"{reference} is no taskforge_sdk.Worker but {type(worker).__name__}")
    if not worker.job_types:
        raise usage_error(f"{reference} has no handler: decorate one with @{attribute}.job(…)")
    return worker
