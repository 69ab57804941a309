"""Where a measurement takes place: a system of the bench's own, or one that is there already."""

import shutil
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from taskforge_cli.bench.crew import Crew, Load
from taskforge_cli.bench.orders import Produce, Work
from taskforge_cli.bench.planning import Sizes
from taskforge_cli.bench.usage import Usage
from taskforge_cli.developing import launch_failures_as_lines, report_line
from taskforge_cli.failures import CommandError, usage_error
from taskforge_cli.identifying import given_key, local_key, tls_of
from taskforge_cli.launcher import Launcher
from taskforge_core.settings import Settings
from taskforge_sdk import (
    BlockingClient,
    JobCounts,
    JobStatus,
    Queue,
    QueueSettings,
    TaskForgeError,
)

_SETTLE_POLL_SECONDS = 0.002
_SETTLE_SECONDS = 60.0
_WARM_UP_CALLS = 50


class Stage(ABC):
    """A system to measure, with its load processes. One queue or more a measurement."""

    def __init__(self, sizes: Sizes, client: BlockingClient, crew: Crew) -> None:
        self.sizes = sizes
        self.client = client
        self.crew = crew
        self._queues: list[Queue] = []
        self._loads: dict[str, list[Load]] = {}

    @property
    @abstractmethod
    def addresses(self) -> list[str]:
        """Of each job_service."""

    @property
    @abstractmethod
    def dsn(self) -> str | None:
        """Of its database; None: it is not ours to touch."""

    @property
    @abstractmethod
    def services(self) -> Callable[[], Mapping[str, int]] | None:
        """The processes of the system by name; None: they are not known."""

    def require_dsn(self) -> str:
        """The database's address, which a scenario cannot do without."""
        if self.dsn is None:
            raise CommandError("this scenario needs a database of its own")
        return self.dsn

    def addresses_for(self, number: int) -> list[str]:
        """Those of all job services, beginning with another one for each load process."""
        first = number % len(self.addresses)
        return self.addresses[first:] + self.addresses[:first]

    def loads(self, role: str, count: int = 1) -> list[Load]:
        """The load processes of a role; started when they are asked for first."""
        loads = self._loads.setdefault(role, [])
        loads += self.crew.start(role, max(0, count - len(loads)))
        return loads[:count]

    def make_queue(self, *, priority: int = 0, settings: QueueSettings | None = None) -> Queue:
        """A queue of a name that nothing else has."""
        queue = self.client.create_queue(
            f"bench-{uuid.uuid4().hex[:8]}",
            description="made by taskforge bench",
            priority=priority,
            settings=settings,
        )
        self._queues.append(queue)
        return queue

    def counts(self, queues: Sequence[Queue]) -> JobCounts:
        """The jobs of these queues."""
        each = [self.client.queue_stats(queue.id).counts for queue in queues]
        return JobCounts(
            **{
                name: sum(getattr(counts, name) for counts in each)
                for name in (
                    "pending", "scheduled", "processing", "succeeded", "failed", "cancelled",
                )
            }
        )  # fmt: skip

    def until_succeeded(self, queues: Sequence[Queue], jobs: int) -> tuple[int, int]:
        """Wait until so many jobs have succeeded; how many then have, and when (monotonic ns)."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            succeeded = self.counts(queues).succeeded
            now = time.monotonic_ns()
            if succeeded >= jobs:
                return succeeded, now
            if time.monotonic() > deadline:
                raise CommandError(
                    f"of {jobs:,} jobs that were run only {succeeded:,} are settled after"
                    f" {_SETTLE_SECONDS:g} s"
                )
            time.sleep(_SETTLE_POLL_SECONDS)

    def usage(self, workers: Sequence[Load] = ()) -> Usage:
        """Measures what everything uses while it is entered."""
        return Usage(self.services, [load.pid for load in workers])

    def warm_up(self, workers: int = 1) -> None:
        """Let every process do once what it will be measured at."""
        if not self.sizes.warm_up:
            return
        queue = self.make_queue()
        producers, working = self.loads("producer"), self.loads("worker", workers)
        produce = Produce(
            addresses=self.addresses,
            queues=[queue.name],
            jobs=self.sizes.warm_up,
            batch=100,
            payload_bytes=self.sizes.payload_bytes,
        )
        self.crew.run(producers, [produce])
        single = replace(produce, jobs=_WARM_UP_CALLS, batch=0, callers=10)
        self.crew.run(producers, [single])
        jobs = produce.jobs + single.jobs
        for number, load in enumerate(working):
            load.give(
                Work(
                    addresses=self.addresses_for(number),
                    queues=[queue.name],
                    target=jobs,
                    concurrency=100,
                )
            )
        self.crew.until_done(working, jobs)
        self.until_succeeded([queue], jobs)
        self.crew.stop(working)

    def forget(self) -> None:
        """Remove what waits in the queues, and the queues."""
        for queue in self._queues:
            self.client.purge_queue(queue.id, [JobStatus.PENDING, JobStatus.SCHEDULED])
            self.client.delete_queue(queue.id)
        self._queues.clear()


class OwnStage(Stage):
    """A system that was started for this measurement."""

    def __init__(
        self, sizes: Sizes, client: BlockingClient, crew: Crew, launcher: Launcher
    ) -> None:
        super().__init__(sizes, client, crew)
        self._launcher = launcher

    @property
    def addresses(self) -> list[str]:
        return list(self._launcher.job_addresses)

    @property
    def dsn(self) -> str | None:
        return self._launcher.database_url

    @property
    def services(self) -> Callable[[], Mapping[str, int]] | None:
        return lambda: self._launcher.pids


class GivenStage(Stage):
    """A system that somebody else runs."""

    def __init__(
        self, sizes: Sizes, client: BlockingClient, crew: Crew, addresses: Sequence[str]
    ) -> None:
        super().__init__(sizes, client, crew)
        self._addresses = list(addresses)

    @property
    def addresses(self) -> list[str]:
        return self._addresses

    @property
    def dsn(self) -> str | None:
        return None

    @property
    def services(self) -> Callable[[], Mapping[str, int]] | None:
        return None


@contextmanager
def own_stage(
    settings: Settings, sizes: Sizes, servers: int, show: Callable[[int], None]
) -> Iterator[Stage]:
    """Start a system on an empty database, and remove all of it afterwards.

    Raises:
        CommandError: It cannot be started, or one of its processes has died meanwhile.
    """
    with _temporary_folder() as folder:
        # As root, Postgres runs as nobody, who must get in.
        folder.chmod(0o755)
        logs = folder / "logs"
        logs.mkdir(mode=0o700)
        launcher = Launcher(
            settings.model_copy(update={"data_folder": folder / "data", "database_url": None}),
            job_servers=servers,
            logs=logs,
            report=report_line,
        )
        with launch_failures_as_lines():
            launcher.start()
        try:
            yield from _perform(launcher, sizes, logs, show)
        finally:
            launcher.stop()


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder for data and logs; after a failure the logs stay, so that one can look into them."""
    folder = Path(tempfile.mkdtemp(prefix="taskforge-bench-"))
    unneeded = folder
    try:
        yield folder
    except (CommandError, TaskForgeError):
        unneeded = folder / "data"
        report_line(f"the logs are in {folder}")
        raise
    finally:
        shutil.rmtree(unneeded, ignore_errors=True)


def _perform(
    launcher: Launcher, sizes: Sizes, logs: Path, show: Callable[[int], None]
) -> Iterator[Stage]:
    with (
        BlockingClient(
            queue_address=launcher.queue_address,
            job_address=launcher.job_address,
            api_key=launcher.api_key,
            tls=launcher.tls,
        ) as client,
        Crew(logs, launcher.client_environment, show) as crew,
    ):
        pids = launcher.pids
        yield OwnStage(sizes, client, crew, launcher)
        if launcher.pids != pids:
            raise CommandError("a process of the system has died while it was measured")


def given_client(settings: Settings, job_address: str) -> BlockingClient:
    """The client of a system that is there, with what the settings name to show to it."""
    api_key = given_key(settings) or local_key(settings, job_address)
    tls = tls_of(settings)
    try:
        return BlockingClient(
            queue_address=settings.queue_address,
            job_address=job_address,
            api_key=api_key,
            tls=tls,
        )
    except ValueError as error:
        raise usage_error(str(error)) from None


@contextmanager
def given_stage(
    client: BlockingClient,
    sizes: Sizes,
    addresses: Sequence[str],
    environment: Mapping[str, str],
    show: Callable[[int], None],
) -> Iterator[Stage]:
    """Use a system that is there; the queues that are made are removed afterwards."""
    with _temporary_folder() as folder, Crew(folder, environment, show) as crew:
        stage = GivenStage(sizes, client, crew, addresses)
        try:
            yield stage
        except BaseException:
            # What went wrong counts, and not that jobs are left which still run.
            with suppress(TaskForgeError):
                stage.forget()
            raise
        stage.forget()
