"""What came out of the demo: measured, and compared with what must come out."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from taskforge_cli.demo import work
from taskforge_cli.demo.planning import Plan, Task, results_now
from taskforge_sdk import AttemptOutcome, Job, JobStatus


@dataclass(frozen=True, slots=True)
class Measures:
    """What is told of a group of jobs. A wait lasts from a job's creation to its first start."""

    jobs: int
    attempts: int
    rescued: int
    """Jobs taken back from a worker that had died."""
    retried: int
    """Jobs tried again after a failure."""
    jobs_per_second: float
    wait_p50: timedelta
    wait_p95: timedelta


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether all is right; every fault is one line."""

    compared: int
    """Results that were compared and found equal."""
    changed_files: int
    """Files that are no longer what they were at the start: their results prove nothing."""
    faults: Sequence[str]


def measure(jobs: Sequence[Job]) -> Measures:
    """Sum up a group of finished jobs."""
    waits = sorted(_wait(job) for job in jobs)
    return Measures(
        jobs=len(jobs),
        attempts=sum(job.attempt_count for job in jobs),
        rescued=sum(_met(job, AttemptOutcome.LEASE_EXPIRED) for job in jobs),
        retried=sum(_met(job, AttemptOutcome.FAILURE) for job in jobs),
        jobs_per_second=_rate(jobs),
        wait_p50=percentile(waits, 50),
        wait_p95=percentile(waits, 95),
    )


def percentile(ascending: Sequence[timedelta], percent: int) -> timedelta:
    """The smallest value that so many percent of all do not exceed; 0 of none."""
    if not ascending:
        return timedelta(0)
    return ascending[max(0, -(-len(ascending) * percent // 100) - 1)]


def check(
    plan: Plan,
    jobs: Iterable[Job],
    read_again: Callable[[str], Mapping[Task, work.Result] | None] = results_now,
) -> Verdict:
    """Compare every result; exactly one job for each task must have succeeded.

    Args:
        plan: The tasks and what must come out of each.
        jobs: All jobs of the run, as the system lists them.
        read_again: The results of a file as it stands now, asked for where something differs.
    """
    succeeded: Counter[Task] = Counter()
    results: dict[Task, object] = {}
    others: dict[Task, list[str]] = defaultdict(list)
    for job in jobs:
        task = Task(job.payload["path"], job.job_type)
        if job.status is JobStatus.SUCCEEDED:
            succeeded[task] += 1
            results[task] = job.result
        else:
            others[task].append(f"{job.id} is {job.status.name}")
    faults: list[str] = []
    changed: set[str] = set()
    compared = 0
    for task, expected in plan.expected.items():
        if succeeded[task] == 1 and results[task] == expected:
            compared += 1
        elif succeeded[task] > 1:
            faults.append(f"double: {_name(task)} succeeded {succeeded[task]} times")
        elif _has_changed(task, expected, read_again):
            changed.add(task.path)
        elif succeeded[task] == 1:
            faults.append(f"differs: {_name(task)}: {results[task]} instead of {expected}")
        else:
            faults.append(f"missing: {_name(task)} {'; '.join(others[task]) or 'has no job'}")
    strangers = succeeded.keys() - plan.expected.keys()
    faults += [f"unasked: {_name(task)} has a job" for task in sorted(strangers, key=_name)]
    return Verdict(compared, len(changed), faults)


def _has_changed(
    task: Task,
    expected: work.Result,
    read_again: Callable[[str], Mapping[Task, work.Result] | None],
) -> bool:
    now = read_again(task.path)
    return now is None or now.get(task) != expected


def _name(task: Task) -> str:
    return f"{task.job_type} of {task.path}"


def _met(job: Job, outcome: AttemptOutcome) -> bool:
    return any(attempt.outcome is outcome for attempt in job.attempts)


def _wait(job: Job) -> timedelta:
    start = _first_start(job)
    if start is None or job.created_at is None:
        return timedelta(0)
    return start - job.created_at


def _first_start(job: Job) -> datetime | None:
    return job.attempts[0].started_at if job.attempts else job.started_at


def _rate(jobs: Sequence[Job]) -> float:
    """Finished jobs a second, from the first start to the last end."""
    started = _times(_first_start(job) for job in jobs)
    completed = _times(job.completed_at for job in jobs)
    if not started or not completed:
        return 0.0
    elapsed = (max(completed) - min(started)).total_seconds()
    return len(completed) / elapsed if elapsed > 0 else 0.0


def _times(times: Iterable[datetime | None]) -> list[datetime]:
    return [time for time in times if time is not None]
