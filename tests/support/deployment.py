"""Services as an operator runs them: processes on a Postgres of the test's own, with fsync on.

Nobody starts again what dies: a test kills and starts each part itself.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2
from tests.conftest import run_apart
from tests.support.processes import PATIENCE, until, until_gone

from taskforge_cli.ports import ReservedPort
from taskforge_cli.processes import ChildProcess, python_command
from taskforge_core.embedded import EmbeddedPostgres
from taskforge_core.local_key import ensure_local_key
from taskforge_core.migrating import migrate
from taskforge_sdk import BlockingClient

_ADDRESS_OF = {"queue_service": "TASKFORGE_QUEUE_ADDRESS", "job_service": "TASKFORGE_JOB_ADDRESS"}
_GRPC_NAME = {
    "queue_service": "taskforge.v1.QueueService",
    "job_service": "taskforge.v1.JobService",
}
_CALL_TIMEOUT = 2.0
_DEATH_SECONDS = 5.0


class Replica:
    """A process of one service, which keeps its port while it is dead."""

    def __init__(
        self,
        service: str,
        name: str,
        port: ReservedPort,
        database_url: str,
        log: Path,
        variables: Mapping[str, str],
    ) -> None:
        """Start it, with these variables added. It writes to `log`."""
        self.name = name
        self.service = service
        self.log = log
        self._port = port
        self._database_url = database_url
        self._variables = variables
        self._process = self._spawn()

    @property
    def address(self) -> str:
        """Where it serves."""
        return self._port.address

    @property
    def pid(self) -> int:
        """Its process; dead or alive, the latest."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process.exit_code is None

    def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        self._process.send(signal.SIGKILL)
        assert self._process.wait(_DEATH_SECONDS)

    def start_again(self) -> None:
        """Start another process on the same port."""
        assert not self.is_running
        self._process = self._spawn()

    def stop(self) -> None:
        """SIGTERM; SIGKILL when that takes long."""
        self._process.send(signal.SIGTERM)
        if not self._process.wait(PATIENCE):
            self.kill()

    def has_logged(self, event: str) -> bool:
        """Whether an event of this name stands in the log."""
        return f"] {event} " in self.log.read_text(errors="replace")

    def is_serving(self) -> bool:
        """Whether it says that it serves; of a scheduler: that it runs."""
        assert self.is_running, f"{self.name} has ended: {self.log.read_text(errors='replace')}"
        if self.service not in _GRPC_NAME:
            return self.has_logged("scheduling")
        request = health_pb2.HealthCheckRequest(service=_GRPC_NAME[self.service])
        with grpc.insecure_channel(self.address) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            try:
                answer = check(request, timeout=_CALL_TIMEOUT)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def is_leading(self) -> bool:
        """Whether it has become the leader; of a scheduler."""
        return self.has_logged("leading")

    def _spawn(self) -> ChildProcess:
        environment = {
            "TASKFORGE_DATABASE_URL": self._database_url,
            "TASKFORGE_LISTEN_URL": "",
            "TASKFORGE_LOG_FORMAT": "console",
            "TASKFORGE_LOG_LEVEL": "info",
            # The test holds the port.
            "TASKFORGE_REUSE_PORT": "true",
            **self._variables,
        }
        if self.service in _ADDRESS_OF:
            environment[_ADDRESS_OF[self.service]] = self.address
        return ChildProcess(
            self.name, python_command(self.service), environment=environment, output=self.log
        )


class Deployment:
    """A migrated Postgres, and the replicas that the test asks for. A context manager."""

    def __init__(self, folder: Path, logs: Path) -> None:
        """`folder` is for Postgres' data (nobody must be able to enter it), `logs` for the logs."""
        self.postgres = EmbeddedPostgres(folder / "postgres")
        self.replicas: dict[str, Replica] = {}
        self.key_file = logs / "api.key"
        """The file with a key for everything."""
        self._logs = logs
        self._stack = ExitStack()

    def add(self, *services: str, variables: Mapping[str, str] | None = None) -> list[Replica]:
        """Start a replica of each of these services; returns when all of them serve.

        `variables` are added to their environment.
        """
        added = []
        for service in services:
            name = f"{service}-{len(self.replicas) + 1}"
            port = self._stack.enter_context(ReservedPort())
            log = self._logs / f"{name}.log"
            replica = Replica(service, name, port, self.postgres.dsn, log, variables or {})
            self._stack.callback(replica.stop)
            self.replicas[name] = replica
            added.append(replica)
        self.until_serving(added)
        return added

    def of(self, service: str) -> list[Replica]:
        """All replicas of the service, dead or alive, in the order in which they were added."""
        return [replica for replica in self.replicas.values() if replica.service == service]

    def until_serving(self, replicas: Sequence[Replica]) -> None:
        """Return when all of them serve."""
        for replica in replicas:
            until(replica.is_serving, f"{replica.name} serves")

    def client(self, queue: Replica, job: Replica) -> BlockingClient:
        """A client of these two."""
        return self.client_at(queue.address, job.address)

    def client_at(self, queue_address: str, job_address: str) -> BlockingClient:
        """A client of what is at these addresses."""
        return BlockingClient(
            queue_address=queue_address,
            job_address=job_address,
            api_key=self.key_file.read_text().strip(),
        )

    def crash_postgres(self) -> None:
        """Stop Postgres immediately, as `pg_ctl stop -m immediate` does: it must recover."""
        pid = self.postgres.pid
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        until_gone([pid])
        self.postgres.stop()

    def __enter__(self) -> Self:
        try:
            self.postgres.start()
            self._stack.callback(self.postgres.stop)
            run_apart(migrate(self.postgres.dsn))
            run_apart(ensure_local_key(self.postgres.dsn, self.key_file))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
