"""From pairs of measurements to ratios, a table of them, and JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.table import Table
from rich.text import Text

from taskforge_cli.bench.measures import Metrics, Spread, spread_of
from taskforge_cli.bench.reporting import COLUMNS, spread_cell
from taskforge_cli.rendering import new_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a ratio is to be; one of the two."""

    at_least: float | None = None
    at_most: float | None = None

    def is_met_by(self, ratio: float) -> bool:
        """Whether it is that."""
        return (self.at_least is None or ratio >= self.at_least) and (
            self.at_most is None or ratio <= self.at_most
        )

    def __str__(self) -> str:
        bounds = {"≥": self.at_least, "≤": self.at_most}
        return " ".join(f"{sign} {value:g}" for sign, value in bounds.items() if value is not None)


@dataclass(frozen=True, slots=True)
class Pair:
    """What was measured of ours and of another system right after one another."""

    ours: Metrics
    theirs: Metrics


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure of ours over all repetitions, held against another system's."""

    scenario: str
    figure: str
    against: str
    ours: Spread
    theirs: Spread
    ratio: Spread
    """Of each repetition's figure of ours, divided by theirs."""
    goal: Goal | None


def ratios_of(
    scenario: str, against: str, figures: Iterable[str], pairs: Sequence[Pair], goal: Goal | None
) -> list[Ratio]:
    """A ratio for each of these figures."""
    return [
        Ratio(
            scenario,
            figure,
            against,
            spread_of([pair.ours[figure] for pair in pairs]),
            spread_of([pair.theirs[figure] for pair in pairs]),
            spread_of([pair.ours[figure] / pair.theirs[figure] for pair in pairs]),
            goal,
        )
        for figure in figures
    ]


def table_of(ratios: Sequence[Ratio]) -> Table:
    """A row a ratio: each median, and below it the least and the greatest value."""
    table = new_table("SCENARIO", "FIGURE", "AGAINST")
    for column in table.columns:
        column.no_wrap = True
    for name in ("OURS", "THEIRS", "RATIO"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("GOAL", no_wrap=True)
    for each in ratios:
        table.add_row(
            each.scenario,
            COLUMNS[each.figure],
            each.against,
            *(spread_cell(spread) for spread in (each.ours, each.theirs, each.ratio)),
            _goal_cell(each),
        )
    return table


def document_of(ratios: Sequence[Ratio], skipped: Sequence[str]) -> dict[str, Any]:
    """The same as one JSON object, with what was left out and why."""
    return {"ratios": [_entry(each) for each in ratios], "skipped": list(skipped)}


def write_json(ratios: Sequence[Ratio], skipped: Sequence[str], file: Path) -> None:
    """Write that object."""
    document = document_of(ratios, skipped)
    file.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def _entry(each: Ratio) -> dict[str, Any]:
    spreads = {"ours": each.ours, "theirs": each.theirs, "ratio": each.ratio}
    return {
        "scenario": each.scenario,
        "figure": each.figure,
        "against": each.against,
        **{
            name: {"median": spread.median, "min": spread.lowest, "max": spread.highest}
            for name, spread in spreads.items()
        },
        "goal": None
        if each.goal is None
        else {**asdict(each.goal), "is_met": each.goal.is_met_by(each.ratio.median)},
    }


def _goal_cell(each: Ratio) -> Text:
    if each.goal is None:
        return Text("")
    is_met = each.goal.is_met_by(each.ratio.median)
    return Text(
        f"{each.goal}  {'met' if is_met else 'missed'}", style="green" if is_met else "yellow"
    )
