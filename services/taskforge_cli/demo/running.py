"""The demo's run: queues, worker processes, jobs in bulk, a killed worker, and the end of all."""

import secrets
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from taskforge_cli.demo.planning import LANES, Lane, Plan
from taskforge_cli.demo.watching import Watcher
from taskforge_cli.failures import CommandError
from taskforge_cli.launcher import Launcher
from taskforge_cli.processes import ChildProcess, how_it_ended, python_command
from taskforge_core.api_keys import parse_api_key
from taskforge_sdk import BlockingClient, Job, JobCounts, JobStatus, QueueSettings

_POLL_SECONDS = 0.1
_STOP_SECONDS = 15.0
_STALLED_AFTER_SECONDS = 60.0
_RETRY_DELAY = timedelta(seconds=1)


class Workers:
    """The worker processes of a run."""

    def __init__(
        self, count: int, queues: Sequence[str], environment: Mapping[str, str], logs: Path
    ) -> None:
        """Start them; each takes from all queues. `environment` leads them to the system."""
        self.logs = logs
        self._processes = [
            ChildProcess(
                f"worker-{number}",
                python_command(
                    "taskforge_cli", "worker", "run", "taskforge_cli.demo.worker:worker",
                    "--worker-id", f"worker-{number}",
                    *(part for queue in queues for part in ("--queue", queue)),
                ),
                environment=environment,
                output=logs / f"worker-{number}.log",
            )
            for number in range(1, count + 1)
        ]  # fmt: skip
        self._killed: set[str] = set()

    @property
    def victim(self) -> ChildProcess:
        """The one that is to be killed."""
        return self._processes[len(self._processes) // 2]

    def kill_victim(self) -> None:
        """SIGKILL: it says goodbye to nobody."""
        self._killed.add(self.victim.name)
        self.victim.send(signal.SIGKILL)
        self.victim.wait(_STOP_SECONDS)

    def check(self) -> None:
        """All but the killed one must be at work.

        Raises:
            CommandError: One has ended by itself.
        """
        for process in self._processes:
            if process.exit_code is not None and process.name not in self._killed:
                raise CommandError(
                    f"{process.name} {how_it_ended(process.exit_code)}: see {self.logs}"
                )

    def stop(self) -> None:
        """Ask them to leave, and make them."""
        for process in self._processes:
            process.send(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self._processes:
            if not process.wait(max(0.0, deadline - time.monotonic())):
                process.send(signal.SIGKILL)


class Run:
    """One run of the demo against a system that serves."""

    def __init__(self, client: BlockingClient, launcher: Launcher, plan: Plan, logs: Path) -> None:
        """Name the run's queues; nothing is made yet."""
        self._client = client
        self._launcher = launcher
        self._plan = plan
        self._logs = logs
        run = secrets.token_hex(3)
        self.queues: Mapping[Lane, str] = {lane: f"demo-{run}-{lane.title}" for lane in LANES}

    def make_queues(self) -> None:
        """One queue a priority."""
        for lane, queue in self.queues.items():
            self._client.create_queue(
                queue,
                description="made by taskforge demo",
                priority=lane.priority,
                settings=QueueSettings(retry_delay=_RETRY_DELAY),
            )

    @contextmanager
    def workers(self, count: int) -> Iterator[Workers]:
        """The worker processes, for as long as the context lasts."""
        queues = list(self.queues.values())
        workers = Workers(count, queues, self._launcher.client_environment, self._logs)
        try:
            yield workers
        finally:
            workers.stop()

    def create_jobs(self) -> float:
        """Create all jobs in bulk; how many seconds it took."""
        began = time.monotonic()
        jobs = [task.new_job(self.queues[task.lane]) for task in self._plan.expected]
        for created in self._client.create_jobs(jobs):
            if created.error is not None:
                raise created.error
        return time.monotonic() - began

    def watch(self, workers: Workers, watcher: Watcher, *, kill: bool) -> None:
        """Show how the jobs proceed until all have ended; kill a worker when a third is done.

        Raises:
            CommandError: A worker ended by itself, or nothing moves any more.
        """
        total = len(self._plan.expected)
        pause = threading.Event()
        last, changed_at = JobCounts(), time.monotonic()
        while (counts := self._counts()).unfinished or counts.total < total:
            watcher.show(counts)
            workers.check()
            if kill and (counts.total - counts.unfinished) * 3 >= total:
                kill = not self._kill_amid_work(workers, watcher)
            if counts != last:
                last, changed_at = counts, time.monotonic()
            elif time.monotonic() - changed_at > _STALLED_AFTER_SECONDS:
                raise CommandError(f"nothing has moved for a minute: see {self._logs}")
            pause.wait(_POLL_SECONDS)
        watcher.show(counts)

    def finished_jobs(self) -> dict[Lane, list[Job]]:
        """All jobs of the run, as the system lists them."""
        return {
            lane: list(self._client.list_jobs(queue=queue, page_size=1000))
            for lane, queue in self.queues.items()
        }

    def delete_queues(self) -> None:
        """Leave a database that is not the demo's own as it was, but for the finished jobs."""
        for queue in self.queues.values():
            self._client.delete_queue(queue)

    def revoke_key(self) -> None:
        """Leave no key behind in a database that is not the demo's own."""
        key = parse_api_key(self._launcher.api_key or "")
        if key is not None:
            self._client.revoke_api_key(str(key.id))

    def _kill_amid_work(self, workers: Workers, watcher: Watcher) -> bool:
        """Kill a worker that has jobs in its hands; False if it has none just now."""
        victim = workers.victim
        # Frozen for a moment, so that what it holds is still what it holds when it dies.
        victim.send(signal.SIGSTOP)
        held = sum(
            job.worker_id == victim.name
            for queue in self.queues.values()
            for job in self._client.list_jobs(queue=queue, status=JobStatus.PROCESSING)
        )
        if not held:
            victim.send(signal.SIGCONT)
            return False
        workers.kill_victim()
        watcher.say(
            f"{victim.name} (process {victim.pid}) got SIGKILL with {held} jobs in its hands;"
            " the others will get them when their lease has ended."
        )
        return True

    def _counts(self) -> JobCounts:
        each = [self._client.queue_stats(queue).counts for queue in self.queues.values()]
        return JobCounts(
            pending=sum(counts.pending for counts in each),
            scheduled=sum(counts.scheduled for counts in each),
            processing=sum(counts.processing for counts in each),
            succeeded=sum(counts.succeeded for counts in each),
            failed=sum(counts.failed for counts in each),
            cancelled=sum(counts.cancelled for counts in each),
        )
