import importlib.util
from typing import Any

import pytest
from tests.unit.cli.building import Taskforge

from taskforge_cli.bench.planning import FULL, QUICK
from taskforge_cli.bench.scenarios.catalogue import SCENARIOS


def test_an_unknown_scenario_is_refused_with_those_that_there_are(taskforge: Taskforge) -> None:
    outcome = taskforge("bench", "drian")
    assert outcome.code == 2
    assert outcome.err.startswith("error: there is no scenario drian; there are: enqueue-one,")


@pytest.mark.parametrize("name", ["backlog", "pinned", "idle-streams"])
def test_what_needs_the_database_or_the_processes_is_refused_elsewhere(
    taskforge: Taskforge, name: str
) -> None:
    outcome = taskforge("bench", "drain", name, "--address", "127.0.0.1:1")
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: --address: {name} cannot be measured there")


def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    taskforge: Taskforge, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def find_no_matplotlib(name: str, package: str | None = None) -> Any:
        return None if name == "matplotlib" else find(name, package)

    monkeypatch.setattr("taskforge_cli.bench.command.find_spec", find_no_matplotlib)
    outcome = taskforge("bench", "drain", "--plot", "plots")
    assert outcome.code == 1
    assert outcome.err == (
        "error: this needs matplotlib: install TaskForge with the extra `bench`"
        " (pip install 'taskforge[bench]')\n"
    )


def test_help_names_every_scenario_but_the_sweeps_of_the_plots(taskforge: Taskforge) -> None:
    words = " ".join(taskforge("bench", "--help").out.split())
    for scenario in SCENARIOS.values():
        assert scenario.is_sweep or scenario.name in words


@pytest.mark.parametrize("sizes", [FULL, QUICK])
def test_no_two_measurements_bear_the_same_name(sizes: Any) -> None:
    measurements = [
        measurement
        for scenario in SCENARIOS.values()
        for measurement in scenario.measurements(sizes, 1)
    ]
    keys = [measurement.key for measurement in measurements]
    assert len(keys) == len(set(keys))
    assert all(each.ratio_to in {"", *keys} for each in measurements)
