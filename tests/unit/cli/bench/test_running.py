from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from taskforge_cli.bench.measures import Metrics, Spread
from taskforge_cli.bench.orders import Outcome
from taskforge_cli.bench.progress import NoWatcher
from taskforge_cli.bench.running import run_all
from taskforge_cli.bench.scenarios.catalogue import Measurement
from taskforge_cli.bench.scenarios.checking import check_runs
from taskforge_cli.failures import CommandError
from taskforge_sdk import JobCounts


def test_a_ratio_is_taken_within_each_repetition() -> None:
    made: list[str] = []
    rates = {"plain": iter([100.0, 10.0, 50.0]), "slow": iter([50.0, 9.0, 10.0])}

    def measurement(key: str, ratio_to: str = "") -> Measurement:
        def measure(_: object) -> Metrics:
            made.append(key)
            return {"jobs_per_s": next(rates[key])}

        return Measurement(key, measure, 1, ratio_to)

    @contextmanager
    def open_stage(_servers: int, _show: Callable[[int], None]) -> Iterator[Any]:
        yield None

    (results,) = run_all(
        [[measurement("plain"), measurement("slow", "plain")]], 3, open_stage, NoWatcher()
    )
    assert made == ["plain", "slow"] * 3
    assert results["slow"]["ratio"] == Spread(0.5, 0.2, 0.9)
    assert "ratio" not in results["plain"]


def test_what_was_measured_before_a_failure_is_not_lost_and_the_failure_is_named() -> None:
    def fail(_: object) -> Metrics:
        raise CommandError("the figures do not count")

    @contextmanager
    def open_stage(_servers: int, _show: Callable[[int], None]) -> Iterator[Any]:
        yield None

    good = Measurement("good", lambda _: {"jobs_per_s": 1.0})
    running = run_all([[good], [Measurement("bad", fail)]], 1, open_stage, NoWatcher())
    assert next(running) == {"good": {"jobs_per_s": Spread(1.0, 1.0, 1.0)}}
    with pytest.raises(CommandError, match=r"^bad: the figures do not count$"):
        next(running)


class _Counted:
    """A stage on which the jobs stand as they are said to."""

    def __init__(self, counts: JobCounts) -> None:
        self._counts = counts

    def counts(self, _: object) -> JobCounts:
        return self._counts


@pytest.mark.parametrize(
    ("counts", "outcome", "fault"),
    [
        (JobCounts(succeeded=10), Outcome(jobs=10, distinct=9), "ran more than once"),
        (JobCounts(succeeded=9), Outcome(jobs=10, distinct=10), "10 jobs were run, and 9"),
        (JobCounts(succeeded=10, failed=1), Outcome(jobs=10, distinct=10), "ended otherwise"),
        (JobCounts(succeeded=10, processing=1), Outcome(jobs=10, distinct=10), "still run"),
        (JobCounts(succeeded=10, pending=1), Outcome(jobs=10, distinct=10), "1 jobs wait, not 0"),
    ],
)
def test_a_figure_does_not_count_unless_each_job_came_out_right(
    counts: JobCounts, outcome: Outcome, fault: str
) -> None:
    stage: Any = _Counted(counts)
    with pytest.raises(CommandError, match=f"the figures do not count: .*{fault}"):
        check_runs(stage, [], [outcome], before=0, left=0)


def test_jobs_that_succeeded_before_do_not_count_and_others_may_be_left() -> None:
    stage: Any = _Counted(JobCounts(succeeded=110, pending=7))
    outcomes = [Outcome(jobs=4, distinct=4), Outcome(jobs=6, distinct=6)]
    check_runs(stage, [], outcomes, before=100, left=-1)
