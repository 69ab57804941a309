import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from tests.benchmarks.peers.comparisons import COMPARISONS
from tests.benchmarks.peers.ratios import (
    Goal,
    Pair,
    Ratio,
    document_of,
    ratios_of,
    table_of,
    write_json,
)

PAIRS = [
    Pair({"jobs_per_s": 100.0}, {"jobs_per_s": 50.0}),
    Pair({"jobs_per_s": 300.0}, {"jobs_per_s": 100.0}),
    Pair({"jobs_per_s": 90.0}, {"jobs_per_s": 90.0}),
]


def _drain(goal: Goal | None = None) -> Ratio:
    (ratio,) = ratios_of("drain", "graphile-worker", ["jobs_per_s"], PAIRS, goal)
    return ratio


def _printed(*ratios: Ratio) -> str:
    written = io.StringIO()
    Console(file=written, width=200).print(table_of(ratios))
    return written.getvalue()


def test_a_ratio_is_formed_in_each_repetition_and_not_of_the_medians() -> None:
    ratio = _drain()
    assert (ratio.ours.median, ratio.theirs.median) == (100.0, 90.0)
    assert (ratio.ratio.median, ratio.ratio.lowest, ratio.ratio.highest) == (2.0, 1.0, 3.0)


def test_each_figure_has_a_ratio_of_its_own() -> None:
    pairs = [Pair({"p50_ms": 2.0, "p99_ms": 9.0, "p95_ms": 1.0}, {"p50_ms": 4.0, "p99_ms": 3.0})]
    ratios = ratios_of("latency", "pg-boss", ("p50_ms", "p99_ms"), pairs, None)
    assert [(each.figure, each.ratio.median) for each in ratios] == [
        ("p50_ms", 0.5),
        ("p99_ms", 3.0),
    ]


@pytest.mark.parametrize(
    ("goal", "ratio", "is_met"),
    [
        (Goal(at_least=1.3), 1.3, True),
        (Goal(at_least=1.3), 1.29, False),
        (Goal(at_most=1.0), 1.0, True),
        (Goal(at_most=1.0), 1.01, False),
    ],
)
def test_a_goal_is_a_bound_that_counts_as_met_when_reached(
    goal: Goal, ratio: float, is_met: bool
) -> None:
    assert goal.is_met_by(ratio) is is_met


def test_the_table_has_both_medians_the_ratio_with_its_spread_and_whether_the_goal_is_met() -> None:
    lines = _printed(_drain(Goal(at_least=1.3))).splitlines()
    assert lines[0].split() == [
        "SCENARIO",
        "FIGURE",
        "AGAINST",
        "OURS",
        "THEIRS",
        "RATIO",
        "GOAL",
    ]
    assert lines[1].split() == [
        "drain",
        "JOBS/S",
        "graphile-worker",
        "100",
        "90.0",
        "2.00",
        "≥",
        "1.3",
        "met",
    ]
    assert lines[2].split() == ["90.0-300", "50.0-100", "1.00-3.00"]


def test_a_goal_that_is_missed_says_so_and_without_a_goal_nothing_is_said() -> None:
    assert "≤ 1  missed" in _printed(_drain(Goal(at_most=1.0)))
    assert "me" not in _printed(_drain()).splitlines()[1]


def test_json_has_every_ratio_with_its_goal_and_what_was_left_out(tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    ratios = [_drain(Goal(at_least=1.3)), _drain()]
    write_json(ratios, ["pg-boss: no Node.js"], file)
    document = json.loads(file.read_bytes())
    assert document == document_of(ratios, ["pg-boss: no Node.js"])
    assert document["skipped"] == ["pg-boss: no Node.js"]
    first, second = document["ratios"]
    assert first["ratio"] == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert first["goal"] == {"at_least": 1.3, "at_most": None, "is_met": True}
    assert second["goal"] is None


def test_every_goal_bounds_its_ratio_on_exactly_one_side() -> None:
    goals = [goal for each in COMPARISONS.values() for goal in each.others.values() if goal]
    assert goals
    assert all((goal.at_least is None) != (goal.at_most is None) for goal in goals)
