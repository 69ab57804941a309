"""What the bench has found: a table for people, and JSON for scripts."""

from collections.abc import Mapping
from pathlib import Path

import orjson
from rich.table import Table
from rich.text import Text

from taskforge_cli.bench.measures import Spread
from taskforge_cli.failures import CommandError
from taskforge_cli.rendering import new_table, print_rich

COLUMNS = {
    "jobs_per_s": "JOBS/S",
    "ratio": "RATIO",
    "p50_ms": "P50 MS",
    "p95_ms": "P95 MS",
    "p99_ms": "P99 MS",
    "cpu_us_postgres": "POSTGRES µS",
    "cpu_us_server": "SERVER µS",
    "cpu_us_worker": "WORKER µS",
    "server_core_percent": "SERVER CORE %",
    "postgres_core_percent": "POSTGRES CORE %",
    "kib_per_stream": "KIB/STREAM",
    "rss_mb": "RSS MB",
}
"""Every figure that there can be, in the table's order."""


def table_of(results: Mapping[str, Mapping[str, Spread]]) -> Table:
    """A row a measurement: each median, and below it the least and the greatest value."""
    shown = [name for name in COLUMNS if any(name in figures for figures in results.values())]
    table = new_table("SCENARIO")
    table.columns[0].no_wrap = True
    for name in shown:
        table.add_column(COLUMNS[name], justify="right", overflow="fold")
    for key, figures in results.items():
        table.add_row(key, *(spread_cell(figures.get(name)) for name in shown))
    return table


def print_tables(results: Mapping[str, Mapping[str, Spread]]) -> None:
    """The table on stdout; streams on which no jobs come have one of their own."""
    streams = {key: figures for key, figures in results.items() if "kib_per_stream" in figures}
    jobs = {key: figures for key, figures in results.items() if key not in streams}
    for part in filter(None, (jobs, streams)):
        print_rich(table_of(part))


def document_of(
    results: Mapping[str, Mapping[str, Spread]],
) -> dict[str, dict[str, dict[str, float]]]:
    """The results as one JSON object: scenario, figure, and its median, min and max."""
    return {
        key: {
            name: {"median": each.median, "min": each.lowest, "max": each.highest}
            for name, each in figures.items()
        }
        for key, figures in results.items()
    }


def write_json(results: Mapping[str, Mapping[str, Spread]], file: Path) -> None:
    """Write the results as JSON.

    Raises:
        CommandError: The file cannot be written.
    """
    try:
        file.write_bytes(orjson.dumps(document_of(results), option=orjson.OPT_INDENT_2) + b"\n")
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}") from error


def spread_cell(spread: Spread | None) -> Text:
    """The median, and below it the least and the greatest value; nothing where there is none."""
    if spread is None:
        return Text("")
    cell = Text(format_figure(spread.median))
    if spread.lowest != spread.highest:
        cell.append(f"\n{format_figure(spread.lowest)}-{format_figure(spread.highest)}", "dim")
    return cell


def format_figure(value: float) -> str:
    """Three digits that count, and no more than are there: `41,300`, `17.5`, `0.93`."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
