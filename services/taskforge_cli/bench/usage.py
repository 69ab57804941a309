"""What processes use: CPU time and memory, as the kernel counts them."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

_SAMPLE_SECONDS = 0.1
_MB = 1_000_000
_JOB_SERVER = "job_service"


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds of CPU since the processes began; None: they are not known."""

    postgres: float | None
    server: float | None
    worker: float

    def since(self, before: "CpuTimes") -> "CpuTimes":
        """What has been used since."""
        return CpuTimes(
            _difference(self.postgres, before.postgres),
            _difference(self.server, before.server),
            self.worker - before.worker,
        )


class Usage:
    """Measures between entering and leaving it what everything uses meanwhile."""

    def __init__(
        self, services: Callable[[], Mapping[str, int]] | None, workers: Iterable[int]
    ) -> None:
        """Name the processes.

        Args:
            services: The processes of the system by name, `postgres` among them; None: they are
                not known.
            workers: The processes of the workers.
        """
        self._services = services
        self._workers = list(workers)
        self._before: CpuTimes | None = None
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory", daemon=True)
        self.cpu = CpuTimes(None, None, 0.0)
        """What was used in between."""
        self.peak_rss_mb: float | None = None
        """The most memory that all replicas of job_service had together; None: not known."""

    def __enter__(self) -> Self:
        self._before = self._read()
        self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None and error is None:
            self.cpu = self._read().since(self._before)
        self._stop.set()
        self._sampler.join()

    def with_memory(self, metrics: dict[str, float]) -> dict[str, float]:
        """The figures, and `rss_mb` if it is known."""
        return metrics if self.peak_rss_mb is None else {**metrics, "rss_mb": self.peak_rss_mb}

    def _read(self) -> CpuTimes:
        worker = sum(map(tree_seconds, self._workers))
        if self._services is None:
            return CpuTimes(None, None, worker)
        services = dict(self._services())
        postgres = services.pop("postgres", None)
        return CpuTimes(
            None if postgres is None else tree_seconds(postgres),
            sum(map(tree_seconds, services.values())),
            worker,
        )

    def _sample(self) -> None:
        if self._services is None:
            return
        while True:
            now = job_servers_rss(self._services()) / _MB
            self.peak_rss_mb = max(now, self.peak_rss_mb or 0.0)
            if self._stop.wait(_SAMPLE_SECONDS):
                return


def tree_seconds(pid: int) -> float:
    """CPU seconds of a process and all below it, also of those that have ended meanwhile.

    Children that have ended stand in their parent's account, where a Postgres backend that exits
    moves to.
    """
    try:
        process = psutil.Process(pid)
        processes = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(map(_seconds, processes))


def job_servers_seconds(services: Mapping[str, int]) -> float:
    """CPU seconds of all replicas of job_service since they began."""
    return sum(tree_seconds(pid) for name, pid in services.items() if name.startswith(_JOB_SERVER))


def job_servers_rss(services: Mapping[str, int]) -> int:
    """The resident memory of all replicas of job_service now, in bytes."""
    return sum(_rss(pid) for name, pid in services.items() if name.startswith(_JOB_SERVER))


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return float(times.user + times.system + ended)


def _rss(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before
