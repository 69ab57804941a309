"""`taskforge worker …`: running a worker that a module defines, and seeing who works."""

import importlib
import sys
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from taskforge_cli import documents, rendering
from taskforge_cli.configuration import load_settings
from taskforge_cli.connecting import job_calls, refusal
from taskforge_cli.failures import CommandError, usage_error
from taskforge_cli.identifying import given_key, local_key, tls_of
from taskforge_cli.options import AsJson, JobAddress, Limit, PageSize, duration_option
from taskforge_sdk import TaskForgeError, Worker

app = typer.Typer(help="Run workers, and see and steer those that run.")


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
    unless the module names another. So it is with the key and the files of TLS; a worker without
    any key shows that of taskforge dev to servers on this machine.
    """
    from taskforge_core.logs import configure_logging

    settings = load_settings(job_address=job_address)
    loaded = load_worker(worker)
    configure_logging(settings.log_format, settings.log_level)
    # A default of ours must not win over what the module says.
    is_given = "job_address" in settings.model_fields_set
    address = settings.job_address if is_given else loaded.options.address
    api_key = given_key(settings)
    if api_key is None and not loaded.options.credential.is_given:
        api_key = local_key(settings, address)
    try:
        loaded.configure(
            address=settings.job_address if is_given else None,
            api_key=api_key,
            tls=tls_of(settings),
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
        raise refusal(error, "job", address) from error


@app.command("list")
def list_(
    limit: Limit = 1000,
    page_size: PageSize = None,
    job_address: JobAddress = None,
    as_json: AsJson = False,
) -> None:
    """List the workers: who is connected, and how many jobs each holds."""
    with job_calls(job_address) as client:
        listed = client.list_workers(page_size=min(limit, 1000) if page_size is None else page_size)
        workers = list(islice(listed, limit))
    if as_json:
        rendering.print_json(documents.workers_document(workers))
    else:
        rendering.print_workers(workers)


@app.command()
def update(
    session: Annotated[
        str, typer.Argument(metavar="SESSION", help="The worker's session, as the list shows it.")
    ],
    max_in_flight: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="How many jobs it may hold at once, until it connects anew.",
            show_default=False,
        ),
    ] = None,
    drain: Annotated[
        bool | None,
        typer.Option("--drain/--resume", help="Give it no more jobs, or jobs again."),
    ] = None,
    job_address: JobAddress = None,
    as_json: AsJson = False,
) -> None:
    """Change how many jobs a running worker gets; what it holds it finishes."""
    if max_in_flight is None and drain is None:
        raise usage_error("there is nothing to change: give --max-in-flight, --drain or --resume")
    with job_calls(job_address) as client:
        worker = client.update_worker(session, max_in_flight=max_in_flight, draining=drain)
    if as_json:
        rendering.print_json(documents.worker_document(worker))
    else:
        label = worker.worker_id or worker.session_id
        most = f"may hold {worker.max_in_flight:,} at once"
        what = "gets no more jobs" if worker.draining else f"gets jobs, and {most}"
        rendering.print_line(f"The worker {label} {what}.")


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
