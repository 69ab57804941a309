"""`taskforge dev`: the whole system in one terminal, for as long as the command runs."""

import queue
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from taskforge_cli.configuration import load_settings
from taskforge_cli.failures import CommandError, ExitCode
from taskforge_cli.options import DatabaseUrl, DataFolder

if TYPE_CHECKING:
    from taskforge_cli.launcher import Launcher
    from taskforge_core.settings import Settings

DEFAULT_QUEUE_PORT = 50051
DEFAULT_JOB_PORT = 50052

_STATS_METHOD = "taskforge.v1.QueueService/GetQueueStats"


def dev(
    data_folder: DataFolder = None,
    queue_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where queue_service listens; 0: any free port.")
    ] = DEFAULT_QUEUE_PORT,
    job_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where job_service listens; 0: any free port.")
    ] = DEFAULT_JOB_PORT,
    database_url: DatabaseUrl = None,
) -> None:
    """Run everything on this machine: Postgres, its schema and the three services.

    Postgres is the one of --database-url or TASKFORGE_DATABASE_URL, else one that comes with
    TaskForge and keeps its data in the data folder. Ctrl-C stops all; the jobs stay.
    """
    from taskforge_cli.launcher import Launcher
    from taskforge_core.logs import configure_logging

    settings = load_settings(data_folder=data_folder, database_url=database_url)
    configure_logging(settings.log_format, "warning")
    launcher = Launcher(settings, queue_port=queue_port, job_port=job_port, report=report_line)
    stops: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()

    def on_signal(number: int, _frame: object) -> None:
        # SimpleQueue.put takes no lock that this thread could hold.
        if not stops.empty():
            launcher.kill_services()
        launcher.interrupt()
        stops.put(signal.Signals(number))

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    with launch_failures_as_lines():
        report_line("starting …")
        launcher.start()
    try:
        sys.stdout.write(_welcome(launcher, settings))
        sys.stdout.flush()
        stops.put(first := stops.get())
        report_line(f"{first.name}: stopping …")
    finally:
        launcher.stop()
    report_line("stopped")


def report_line(text: str) -> None:
    """Tell people at the terminal what happens; any thread may."""
    sys.stderr.write(f"taskforge: {text}\n")
    sys.stderr.flush()


@contextmanager
def launch_failures_as_lines() -> Iterator[None]:
    """Turn what can go wrong while the system starts into one line for the user."""
    import asyncpg

    from taskforge_cli.launcher import LaunchError
    from taskforge_cli.ports import PortUnavailable
    from taskforge_core.embedded import EmbeddedPostgresError
    from taskforge_core.migrating import SchemaIsNewer

    try:
        yield
    except (LaunchError, PortUnavailable, EmbeddedPostgresError, SchemaIsNewer) as error:
        raise CommandError(str(error)) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CommandError(f"the database cannot be migrated: {error}") from error
    except OSError as error:
        raise CommandError(f"cannot reach the database: {error}", ExitCode.UNREACHABLE) from error


def _welcome(launcher: "Launcher", settings: "Settings") -> str:
    lines = [
        "",
        "TaskForge is ready.",
        f"  queue service   {launcher.queue_address}",
        f"  job service     {launcher.job_address}",
        f"  database        {_describe_database(settings)}",
        f"  API key         {launcher.key_file or 'none is needed: authentication is off'}",
        "",
        "Try it in another terminal:",
    ]
    if exports := _exports(launcher, settings):
        lines.append(f"  export {' '.join(exports)}")
    payload = shlex.quote('{"to": "ann@example.org"}')
    command = _own_command()
    lines += [
        f"  {command} queue create emails",
        f"  {command} job create emails send-email --payload {payload}",
        f"  {command} job list",
        "",
        "In any other language, or with grpcurl:",
        *_without_us(launcher, settings),
        "",
        *_to_manage(launcher, settings),
        "Ctrl-C stops it; the jobs stay.",
        "",
    ]
    return "\n".join([*lines, ""])


def _exports(launcher: "Launcher", settings: "Settings") -> list[str]:
    """What commands elsewhere cannot know."""
    variables = {
        "TASKFORGE_QUEUE_ADDRESS": (launcher.queue_address, f"127.0.0.1:{DEFAULT_QUEUE_PORT}"),
        "TASKFORGE_JOB_ADDRESS": (launcher.job_address, f"127.0.0.1:{DEFAULT_JOB_PORT}"),
    }
    exports = [f"{name}={now}" for name, (now, default) in variables.items() if now != default]
    found = "data_folder" not in settings.model_fields_set and settings.api_key_file is None
    if launcher.key_file is not None and not found:
        exports.append(f"TASKFORGE_API_KEY_FILE={shlex.quote(str(launcher.key_file))}")
    return exports


def _without_us(launcher: "Launcher", settings: "Settings") -> list[str]:
    """The same from anywhere; the key stands on no command line, where others could read it."""
    lines = []
    words = ["grpcurl"]
    if launcher.tls is None:
        words.append("-plaintext")
    else:
        words += ["-cacert", shlex.quote(str(settings.tls_authorities))]
        if settings.tls_client_certificate is not None:
            words += ["-cert", shlex.quote(str(settings.tls_client_certificate))]
            words += ["-key", shlex.quote(str(settings.tls_client_key))]
    if launcher.key_file is not None:
        lines.append(f"  export TASKFORGE_API_KEY=$(cat {shlex.quote(str(launcher.key_file))})")
        words += ["-expand-headers", "-H", "'authorization: Bearer ${TASKFORGE_API_KEY}'"]
    request = shlex.quote('{"queue": "emails"}')
    words += ["-d", request, launcher.queue_address, _STATS_METHOD]
    return [*lines, f"  {' '.join(words)}"]


def _to_manage(launcher: "Launcher", settings: "Settings") -> list[str]:
    """What makes an operator; nobody is needed to be one while authentication is off."""
    if launcher.key_file is None:
        return []
    command = f"  {_own_command()} admin bootstrap"
    if settings.database_url is None:
        # It holds no password: its socket is the way in, which others have none to.
        command += f" --database-url {shlex.quote(launcher.database_url)}"
        heading = "To manage organisations and quotas too, make an operator's key:"
    else:
        heading = (
            "To manage organisations and quotas too, make an operator's key, with"
            " TASKFORGE_DATABASE_URL set to this database:"
        )
    return [heading, command, ""]


def _own_command() -> str:
    """What starts this command in any other terminal: its name where that is enough."""
    script = Path(sys.argv[0]).absolute()
    found = shutil.which("taskforge")
    if script.name != "taskforge":
        return f"{shlex.quote(sys.executable)} -m taskforge_cli"
    if found is not None and Path(found).absolute() == script:
        return "taskforge"
    return shlex.quote(str(script))


def _describe_database(settings: "Settings") -> str:
    """Where the data is, without a password."""
    if settings.database_url is None:
        return f"embedded Postgres, data in {settings.data_folder}"
    url = urlsplit(settings.database_url)
    return f"{url.netloc.rpartition('@')[2] or 'local socket'}{url.path}"
