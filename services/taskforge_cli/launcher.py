"""All of TaskForge on one machine: Postgres, the schema, and the three services as processes.

`taskforge dev`, `taskforge demo` and the end-to-end tests start the system through this, so what
they show is what users run. Nothing outlives the launcher, not even when it gets SIGKILL.
"""

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2

from taskforge_cli.identifying import tls_of
from taskforge_cli.kept_postgres import KeptPostgres
from taskforge_cli.ports import ReservedPort
from taskforge_cli.processes import ChildProcess, how_it_ended, python_command, restart_pause
from taskforge_core.local_key import KeyRefused, ensure_local_key
from taskforge_core.migrating import migrate
from taskforge_core.settings import Settings
from taskforge_sdk import Tls
from taskforge_sdk.channels import open_blocking_channel
from taskforge_sdk.tls import Security

_READY_TIMEOUT = 60.0
_HEALTH_CALL_TIMEOUT = 2.0
_POLL = 0.05
_KILL_AFTER_GRACE = 5.0
_STABLE_AFTER = 30.0
_TLS_OF_CLIENTS = ("tls_authorities", "tls_client_certificate", "tls_client_key")


class LaunchError(Exception):
    """The system cannot be started; the message tells why in one line."""


@dataclass(frozen=True, slots=True)
class _Service:
    """A service as the launcher knows it; without a gRPC name it has no health to ask for."""

    name: str
    module: str
    grpc_name: str | None = None
    address: str = ""


class Launcher:
    """The whole system. A context manager: it serves when entered, and is gone when left.

    A service or an embedded Postgres that dies is started again after a pause, which doubles from
    0.5 s up to 10 s and is forgotten when the process has lived for 30 s.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        queue_port: int = 0,
        job_port: int = 0,
        job_servers: int = 1,
        logs: Path | None = None,
        key_file: Path | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Describe the system; nothing is touched before `start`.

        Args:
            settings: `database_url` names the Postgres to use; without it an embedded one runs on
                `data_folder`.
            queue_port: Where queue_service listens on the loopback; 0: on a free port.
            job_port: Where job_service listens on the loopback; 0: on a free port.
            job_servers: How many replicas of job_service run; those after the first listen on free
                ports.
            logs: The folder for a log file of each service. Default: they share our stderr.
            key_file: Where the system's API key is kept. Default: in the data folder.
            report: Called from any thread with a line for people when a process has died.
        """
        self._settings = settings
        self._wanted_ports = (queue_port, job_port, *(0 for _ in range(1, job_servers)))
        self._logs = logs
        self._key_file = key_file or settings.local_key_file
        self._api_key: str | None = None
        self._report = report
        self._ports: list[ReservedPort] = []
        self._postgres: KeptPostgres | None = None
        self._children: dict[str, ChildProcess] = {}
        self._services: list[_Service] = []
        self._failures: dict[str, int] = {}
        self._started_at: dict[str, float] = {}
        self._credentials: grpc.ChannelCredentials | None = None
        self._lock = threading.Lock()
        self._ready = False
        self._interrupted = False
        self._stopping = threading.Event()

    @property
    def queue_address(self) -> str:
        """Where queue_service is: `127.0.0.1:port`."""
        return self._ports[0].address

    @property
    def job_address(self) -> str:
        """Where job_service is: `127.0.0.1:port`; of several, the first."""
        return self._ports[1].address

    @property
    def job_addresses(self) -> tuple[str, ...]:
        """Where each replica of job_service is."""
        return tuple(port.address for port in self._ports[1:])

    @property
    def database_url(self) -> str:
        """The address of the Postgres in use, once started."""
        return self._postgres.dsn if self._postgres else self._settings.database_url or ""

    @property
    def api_key(self) -> str | None:
        """A key for all that the system does, once started; None: it asks for none."""
        return self._api_key

    @property
    def key_file(self) -> Path | None:
        """The file with `api_key`, which its owner alone can read."""
        return self._key_file if self._api_key is not None else None

    @property
    def tls(self) -> Tls | None:
        """How clients connect to the services; None: in plaintext."""
        return tls_of(self._settings) if self._settings.tls_certificate is not None else None

    @property
    def client_environment(self) -> dict[str, str]:
        """The variables that lead a command to this system; an empty one counts as none."""
        plaintext = {f"TASKFORGE_{name.upper()}": "" for name in _TLS_OF_CLIENTS}
        return {
            "TASKFORGE_QUEUE_ADDRESS": self.queue_address,
            "TASKFORGE_JOB_ADDRESS": self.job_address,
            "TASKFORGE_API_KEY": "",
            "TASKFORGE_API_KEY_FILE": str(self.key_file or ""),
            **(plaintext if self.tls is None else {}),
        }

    @property
    def pids(self) -> dict[str, int]:
        """The processes that run now, by name."""
        with self._lock:
            pids = {name: child.pid for name, child in self._children.items()}
        if self._postgres is not None and self._postgres.pid is not None:
            pids["postgres"] = self._postgres.pid
        return pids

    def start(self) -> None:
        """Start everything; returns when both servers say that they serve.

        Raises:
            LaunchError: A service ended, or did not get ready within a minute; or the key or the
                files of TLS cannot be used; or the database is one that others use.
            PortUnavailable: A port is in use.
            EmbeddedPostgresError: Postgres cannot start; its data folder may be in use.
            OSError, asyncpg.PostgresError, SchemaIsNewer: The database cannot be migrated.
        """
        try:
            self._credentials = self._channel_credentials()
            for port in self._wanted_ports:
                self._ports.append(ReservedPort(port))
            self._start_database()
            self._start_services()
            self._wait_until_ready()
            self._ready = True
            # One that ended before it was to be started again.
            self._check_alive()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Drain the services, then stop Postgres; returns when all are gone."""
        self._stopping.set()
        with self._lock:
            children = list(self._children.values())
        for child in children:
            child.send(signal.SIGTERM)
        grace = self._settings.drain_grace.total_seconds() + _KILL_AFTER_GRACE
        deadline = time.monotonic() + grace
        for child in children:
            if not child.wait(max(0.0, deadline - time.monotonic())):
                self._report(f"{child.name} does not stop; killing it")
                child.send(signal.SIGKILL)
                child.wait(_KILL_AFTER_GRACE)
        if self._postgres is not None:
            self._postgres.stop()
        for port in self._ports:
            port.release()

    def interrupt(self) -> None:
        """Make a `start` that waits give up. For a signal handler: it takes no lock."""
        self._interrupted = True

    def kill_services(self) -> None:
        """Do not wait for the services to drain. For a signal handler: it takes no lock."""
        for child in list(self._children.values()):
            child.send(signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # -- Postgres ---------------------------------------------------------------------------

    def _start_database(self) -> None:
        if self._settings.database_url is None:
            self._postgres = KeptPostgres(
                self._settings.data_folder,
                stopping=self._stopping,
                report=self._report,
                on_move=self.kill_services,
            )
            self._postgres.start()
            direct_url = self._postgres.dsn
        else:
            direct_url = self._settings.require_listen_url()
        asyncio.run(self._prepare(direct_url))

    async def _prepare(self, direct_url: str) -> None:
        await migrate(direct_url)
        if self._settings.authentication == "off":
            return
        try:
            self._api_key = await ensure_local_key(
                direct_url, self._key_file, shared=self._settings.database_url is not None
            )
        except KeyRefused as error:
            raise LaunchError(
                f"{error}, so no key is made there: put one of yours into {self._key_file}"
                " (taskforge admin key create makes one, or taskforge admin bootstrap), or use"
                " another database"
            ) from error
        except PermissionError as error:
            raise LaunchError(f"cannot keep the API key in {self._key_file}: {error}") from error

    # -- the services -----------------------------------------------------------------------

    def _start_services(self) -> None:
        self._services = [
            _Service(
                "queue_service", "queue_service", "taskforge.v1.QueueService", self.queue_address
            ),
            *(
                _Service(
                    "job_service" if number == 1 else f"job_service-{number}",
                    "job_service",
                    "taskforge.v1.JobService",
                    address,
                )
                for number, address in enumerate(self.job_addresses, start=1)
            ),
            _Service("scheduler_service", "scheduler_service"),
        ]
        with self._lock:
            for service in self._services:
                self._start(service)

    def _start(self, service: _Service) -> None:
        """Start the service's process; called with the lock held."""
        self._started_at[service.name] = time.monotonic()
        self._children[service.name] = ChildProcess(
            service.name,
            python_command(service.module),
            environment=self._environment(service),
            output=self.log_file(service.name),
            on_end=lambda child: self._restart(service, child),
        )

    def log_file(self, name: str) -> Path | None:
        """The log of a service; None where it shares our stderr."""
        return self._logs / f"{name}.log" if self._logs is not None else None

    def _environment(self, service: _Service) -> dict[str, str]:
        is_job_service = service.module == "job_service"
        listen_url = self._settings.listen_url if self._postgres is None else None
        return {
            "TASKFORGE_DATABASE_URL": self.database_url,
            "TASKFORGE_LISTEN_URL": listen_url or "",
            "TASKFORGE_QUEUE_ADDRESS": self.queue_address,
            "TASKFORGE_JOB_ADDRESS": service.address if is_job_service else self.job_address,
            "TASKFORGE_AUTHENTICATION": self._settings.authentication,
            "TASKFORGE_REFLECTION": "true",
            # The launcher holds the ports for them.
            "TASKFORGE_REUSE_PORT": "true",
        }

    def _restart(self, service: _Service, child: ChildProcess) -> None:
        """Called by the thread of a child that has ended."""
        if not self._ready or self._stopping.is_set():
            return
        if time.monotonic() - self._started_at[service.name] >= _STABLE_AFTER:
            self._failures[service.name] = 0
        failures = self._failures.get(service.name, 0)
        self._failures[service.name] = failures + 1
        pause = restart_pause(failures)
        how = how_it_ended(child.exit_code or 0)
        self._report(f"{service.name} {how}; starting it again in {pause:g} s")
        if self._stopping.wait(pause):
            return
        with self._lock:
            if self._stopping.is_set():
                return
            try:
                self._start(service)
            except OSError as error:
                self._report(f"{service.name} cannot be started again: {error}")

    def _channel_credentials(self) -> grpc.ChannelCredentials | None:
        if self._settings.tls_certificate is not None and self._settings.tls_authorities is None:
            raise LaunchError(
                "TASKFORGE_TLS_CERTIFICATE is set, so TASKFORGE_TLS_AUTHORITIES must name who has"
                " signed it"
            )
        try:
            return Security(self.tls).credentials
        except ValueError as error:
            raise LaunchError(str(error)) from error

    # -- readiness --------------------------------------------------------------------------

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT
        for service in self._services:
            while not self._is_ready(service):
                self._check_alive()
                if self._interrupted:
                    raise LaunchError("interrupted before everything was ready")
                if time.monotonic() > deadline:
                    raise LaunchError(f"{service.name} did not get ready within 60 s")
                self._stopping.wait(_POLL)

    def _check_alive(self) -> None:
        for child in self._children.values():
            if child.exit_code is not None:
                how = how_it_ended(child.exit_code)
                raise LaunchError(f"{child.name} {how} before it was ready{self._why(child.name)}")

    def _why(self, name: str) -> str:
        log = self.log_file(name)
        if log is None:
            return ""
        lines = log.read_text(errors="replace").split("\n")
        words = [line.strip() for line in lines if line.strip()]
        return f": {words[-1]}" if words else ""

    def _is_ready(self, service: _Service) -> bool:
        if service.grpc_name is None:
            return True
        request = health_pb2.HealthCheckRequest(service=service.grpc_name)
        with open_blocking_channel(service.address, self._credentials) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            try:
                answer = check(request, timeout=_HEALTH_CALL_TIMEOUT)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
