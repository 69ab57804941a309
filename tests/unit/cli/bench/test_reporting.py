import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from taskforge_cli.bench.measures import Spread
from taskforge_cli.bench.plotting import points
from taskforge_cli.bench.reporting import (
    COLUMNS,
    document_of,
    format_figure,
    table_of,
    write_json,
)
from taskforge_cli.failures import CommandError

RESULTS = {
    "drain": {
        "jobs_per_s": Spread(41_234.5, 40_000.0, 42_000.0),
        "cpu_us_postgres": Spread(17.25, 17.25, 17.25),
    },
    "latency": {"p50_ms": Spread(2.125, 2.0, 3.0)},
}


def _printed() -> list[str]:
    written = io.StringIO()
    Console(file=written, width=200).print(table_of(RESULTS))
    return [line.rstrip() for line in written.getvalue().splitlines() if line.strip()]


def test_the_table_has_a_column_for_each_figure_that_there_is_and_no_other() -> None:
    heading = _printed()[0]
    assert heading.split() == ["SCENARIO", "JOBS/S", "P50", "MS", "POSTGRES", "µS"]


def test_the_spread_stands_below_the_median_unless_there_is_none() -> None:
    rows = "\n".join(_printed()[1:])
    assert "drain" in rows
    assert "41,234" in rows
    assert "40,000-42,000" in rows
    assert "17.2" in rows
    assert "17.2-17.2" not in rows


@pytest.mark.parametrize(
    ("value", "text"),
    [(41_234.5, "41,234"), (99.96, "100.0"), (17.5, "17.5"), (0.934, "0.93"), (0.0, "0.00")],
)
def test_a_figure_shows_about_three_digits(value: float, text: str) -> None:
    assert format_figure(value) == text


def test_json_has_an_object_a_scenario_and_in_it_one_a_figure(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    write_json(RESULTS, file)
    assert json.loads(file.read_text()) == document_of(RESULTS)
    assert document_of(RESULTS)["latency"] == {"p50_ms": {"median": 2.125, "min": 2.0, "max": 3.0}}


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot write"):
        write_json(RESULTS, tmp_path / "missing" / "figures.json")


def test_every_figure_that_scripts_read_has_a_column() -> None:
    names = {"jobs_per_s", "p50_ms", "p95_ms", "p99_ms", "rss_mb"}
    names |= {"cpu_us_postgres", "cpu_us_server", "cpu_us_worker"}
    assert names <= set(COLUMNS)


def test_a_sweep_is_drawn_in_the_order_of_its_numbers() -> None:
    figures = {"jobs_per_s": Spread(1.0, 1.0, 1.0)}
    results = dict.fromkeys(["load-200", "load-50", "among-7", "load"], figures)
    assert [at for at, _ in points(results, "load-")] == [50, 200]
