import pytest

from taskforge_cli.bench.measures import (
    Spread,
    cpu_metrics,
    latency_metrics,
    percentile,
    spreads,
    waits_ms,
)
from taskforge_cli.bench.usage import CpuTimes


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0], 51, 2.0),
        ([float(number) for number in range(1, 101)], 95, 95.0),
        ([float(number) for number in range(1, 1001)], 99, 990.0),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(
    values: list[float], percent: int, expected: float
) -> None:
    assert percentile(values, percent) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


def test_latencies_need_not_come_in_order() -> None:
    shuffled = [float(number * 37 % 100 + 1) for number in range(100)]
    assert latency_metrics(shuffled) == {"p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0}


def test_a_wait_lasts_from_the_call_to_the_handler_of_the_same_job() -> None:
    created = {"a": 1_000_000, "b": 2_000_000, "never run": 5}
    started = {"b": 2_500_000, "a": 4_000_000, "of somebody else": 9}
    assert waits_ms(created, started) == [3.0, 0.5]


def test_cpu_is_told_by_the_job_and_what_is_not_known_is_left_out() -> None:
    used = CpuTimes(postgres=1.5, server=0.5, worker=0.25)
    assert cpu_metrics(used, 50_000, with_worker=True) == {
        "cpu_us_postgres": 30.0,
        "cpu_us_server": 10.0,
        "cpu_us_worker": 5.0,
    }
    unknown = CpuTimes(postgres=None, server=None, worker=0.25)
    assert cpu_metrics(unknown, 50_000, with_worker=True) == {"cpu_us_worker": 5.0}
    assert cpu_metrics(unknown, 50_000, with_worker=False) == {}


def test_cpu_is_counted_from_a_moment_on() -> None:
    before = CpuTimes(postgres=10.0, server=None, worker=1.0)
    after = CpuTimes(postgres=12.0, server=None, worker=1.5)
    assert after.since(before) == CpuTimes(postgres=2.0, server=None, worker=0.5)


def test_repetitions_become_a_median_and_its_spread() -> None:
    runs = [
        {"jobs_per_s": 30.0, "ratio": 1.0},
        {"jobs_per_s": 10.0, "ratio": 0.5},
        {"jobs_per_s": 11.0, "ratio": 0.6, "only once": 1.0},
    ]
    assert spreads(runs) == {"jobs_per_s": Spread(11.0, 10.0, 30.0), "ratio": Spread(0.6, 0.5, 1.0)}
    assert spreads([]) == {}
