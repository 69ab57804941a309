"""What the demo is going to do: the files, their jobs, and what must come out of each."""

import os
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from taskforge_cli.demo import work
from taskforge_sdk import NewJob

_LEFT_OUT = {"__pycache__", "site-packages", "dist-packages"}

MAX_ATTEMPTS = 5
"""A job may fail on purpose, lose its worker, and then some."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One of the demo's four queues; each has a priority of its own."""

    title: str
    priority: int


LANES = (Lane("critical", 9), Lane("high", 6), Lane("normal", 3), Lane("low", 0))

_JOB_PRIORITIES = {work.SHA256: 9, work.WORD_COUNT: 5, work.COUNT_FUNCTIONS: 0}
"""Within a queue the quick work goes first."""


@dataclass(frozen=True, slots=True)
class Task:
    """One job to be: what is to be done with which file."""

    path: str
    job_type: str

    @property
    def lane(self) -> Lane:
        """The queue it goes to; all jobs of a file go to the same."""
        return LANES[work.spread(self.path) % len(LANES)]

    def new_job(self, queue: str) -> NewJob:
        """The job to create."""
        return NewJob(
            queue,
            self.job_type,
            {"path": self.path},
            priority=_JOB_PRIORITIES[self.job_type],
            max_attempts=MAX_ATTEMPTS,
            labels={"demo": self.job_type},
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """All jobs and the result that each must have, computed before any worker starts."""

    expected: Mapping[Task, work.Result]
    file_count: int
    total_bytes: int
    skipped_count: int
    """Files that cannot be read, or whose name is no text."""


def default_folder() -> Path:
    """Python's own standard library."""
    return Path(sysconfig.get_path("stdlib"))


def find_files(folder: Path) -> Iterator[str]:
    """The regular files below a folder, in a fixed order; no caches and no installed packages."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT)
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield str(path)


def make_plan(folder: Path, limit: int | None) -> Plan:
    """Read the files, at most `limit` of them, and compute each result directly."""
    with warnings.catch_warnings():
        # Old files hold what a newer parser warns of.
        warnings.simplefilter("ignore")
        return _make_plan(folder, limit)


def _make_plan(folder: Path, limit: int | None) -> Plan:
    expected: dict[Task, work.Result] = {}
    file_count = total_bytes = skipped_count = 0
    for path in find_files(folder.absolute()):
        if file_count == limit:
            break
        results = results_now(path)
        if results is None:
            skipped_count += 1
            continue
        expected.update(results)
        file_count += 1
        total_bytes += _length(results[Task(path, work.SHA256)])
    return Plan(expected, file_count, total_bytes, skipped_count)


def results_now(path: str) -> dict[Task, work.Result] | None:
    """What each job of a file gives as the file stands now; None if it cannot be read."""
    try:
        path.encode()
        data = Path(path).read_bytes()
    except (OSError, UnicodeEncodeError):
        return None
    return {Task(path, job_type): work.WORK[job_type](data) for job_type in work.job_types_of(path)}


def _length(result: work.Result) -> int:
    length = result["bytes"]
    assert isinstance(length, int)
    return length
