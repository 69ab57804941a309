"""`taskforge demo`: the command that puts the parts of the demo together."""

import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from taskforge_cli.configuration import load_settings
from taskforge_cli.connecting import refusal
from taskforge_cli.developing import launch_failures_as_lines, report_line
from taskforge_cli.failures import CommandError, ExitCode, usage_error
from taskforge_cli.options import DatabaseUrl
from taskforge_cli.rendering import print_line
from taskforge_sdk import BlockingClient, TaskForgeError

if TYPE_CHECKING:
    from taskforge_cli.demo.planning import Plan
    from taskforge_cli.launcher import Launcher

T = TypeVar("T")


def demo(
    path: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Whose files to work on. Default: Python's standard library.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=32, help="How many worker processes.")] = 3,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="At most this many files.", show_default=False),
    ] = None,
    kill: Annotated[
        bool,
        typer.Option(help="Kill a worker, unless it is the only one, when a third is done."),
    ] = True,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the data folder, to look at the jobs later.")
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Watch real work go through the whole system, and check every result.

    Every regular file below the folder (installed packages and __pycache__ left out) becomes a job
    that digests it, one that counts its words, and for Python files one that counts its functions.
    They go in bulk into four queues of different priority. Three worker processes do them; about
    3 % of the jobs fail at their first attempt, and one worker is killed on the way. At the end
    each result is compared with what this process computed itself. Ends with 1 if one differs, is
    missing or is double.

    Postgres is the one of --database-url or TASKFORGE_DATABASE_URL, else one on a new temporary
    folder.
    """
    from taskforge_cli.demo.planning import default_folder, find_files, make_plan
    from taskforge_cli.launcher import Launcher
    from taskforge_core.logs import configure_logging

    source = (path or default_folder()).absolute()
    if not source.is_dir():
        raise usage_error(f"--path: there is no folder {source}")
    if next(find_files(source), None) is None:
        raise usage_error(f"--path: there is no file in {source}")
    settings = load_settings(database_url=database_url)
    configure_logging(settings.log_format, "warning")
    signal.signal(signal.SIGTERM, _leave)
    with _temporary_folder(keep) as folder:
        own_database = settings.database_url is None
        if own_database:
            settings = settings.model_copy(update={"data_folder": folder / "data"})
        logs = folder / "logs"
        logs.mkdir()
        # The key of another database is not the one that `taskforge dev` uses.
        key_file = None if own_database else folder / "local.key"
        launcher = Launcher(settings, logs=logs, key_file=key_file, report=report_line)
        print_line(f"Starting the system, and reading {source} …")
        planning = _in_background(lambda: make_plan(source, limit))
        with launch_failures_as_lines():
            launcher.start()
        try:
            _run(
                planning.result(),
                launcher,
                logs,
                worker_count=workers,
                kill=kill,
                own_database=own_database,
            )
        finally:
            launcher.stop()


def _run(
    plan: "Plan",
    launcher: "Launcher",
    logs: Path,
    *,
    worker_count: int,
    kill: bool,
    own_database: bool,
) -> None:
    from taskforge_cli.demo.checking import check
    from taskforge_cli.demo.reporting import print_table, print_verdict
    from taskforge_cli.demo.running import Run
    from taskforge_cli.demo.watching import watching

    if not plan.expected:
        raise usage_error("--path: there is no file that can be read")
    skipped = f" ({plan.skipped_count:,} cannot be read)" if plan.skipped_count else ""
    print_line(
        f"{plan.file_count:,} files{skipped}, {plan.total_bytes / 1e6:,.1f} MB:"
        f" {len(plan.expected):,} jobs, each computed directly too."
    )
    queue_address, job_address = launcher.queue_address, launcher.job_address
    try:
        with BlockingClient(
            queue_address=queue_address,
            job_address=job_address,
            api_key=launcher.api_key,
            tls=launcher.tls,
        ) as client:
            run = Run(client, launcher, plan, logs)
            run.make_queues()
            with run.workers(worker_count) as workers:
                seconds = run.create_jobs()
                print_line(f"Created {len(plan.expected):,} jobs in bulk in {seconds:.2f} s.")
                with watching(len(plan.expected)) as watcher:
                    run.watch(workers, watcher, kill=kill and worker_count > 1)
            jobs = run.finished_jobs()
            if not own_database:
                run.delete_queues()
                run.revoke_key()
    except TaskForgeError as error:
        raise refusal(error, "queue or job", f"{queue_address} or {job_address}") from error
    print_table(jobs)
    verdict = check(plan, [job for listed in jobs.values() for job in listed])
    print_verdict(verdict)
    if verdict.faults:
        raise typer.Exit(ExitCode.FAILED)


@contextmanager
def _temporary_folder(keep: bool) -> Iterator[Path]:
    """A folder for data and logs; after a failure it stays, so that one can look into it."""
    folder = Path(tempfile.mkdtemp(prefix="taskforge-demo-"))
    # As root, Postgres runs as nobody, who must get in.
    folder.chmod(0o755)
    try:
        yield folder
    except (CommandError, typer.Exit):
        print_line(f"Data and logs are in {folder}.")
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if keep:
        print_line(f"To look at the jobs: taskforge dev --data-folder {folder / 'data'}")
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _in_background(make: Callable[[], T]) -> Future[T]:
    """Call it in a thread that nobody waits for when the demo ends early."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(make())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            future.set_exception(error)

    threading.Thread(target=work, name="demo plan", daemon=True).start()
    return future


def _leave(number: int, _frame: object) -> None:
    """On SIGTERM: unwind, so that everything is stopped and removed."""
    sys.exit(128 + number)
