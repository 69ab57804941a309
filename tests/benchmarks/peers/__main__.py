"""`make bench-peers`: ours beside other job queues on Postgres, on the same server, in one run."""

import signal
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer
from tests.benchmarks.peers.comparisons import COMPARISONS, Comparison
from tests.benchmarks.peers.driving import Driver
from tests.benchmarks.peers.installing import CannotInstall, Toolchain, install
from tests.benchmarks.peers.ratios import Pair, Ratio, ratios_of, table_of, write_json
from tests.benchmarks.peers.systems import System

from taskforge_cli.bench.planning import FULL, QUICK, Sizes
from taskforge_cli.bench.progress import Watcher, watching
from taskforge_cli.bench.stage import Stage, own_stage
from taskforge_cli.configuration import load_settings
from taskforge_cli.failures import CommandError, usage_error
from taskforge_cli.rendering import print_rich
from taskforge_core.logs import configure_logging
from taskforge_core.settings import Settings
from taskforge_sdk import TaskForgeError


def bench_peers(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(metavar="SCENARIO", help=f"Of {', '.join(COMPARISONS)}. Default: all."),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="How often to measure each pair.")] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small numbers: to see that it works, not how fast.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figures there too.")
    ] = None,
) -> None:
    """Measure TaskForge beside pgqueuer, graphile-worker and pg-boss."""
    unknown = sorted(set(scenarios or []) - COMPARISONS.keys())
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
    if unknown:
        raise usage_error(f"there is no scenario {unknown[0]}; there are: {', '.join(COMPARISONS)}")
    chosen = [each for each in COMPARISONS.values() if not scenarios or each.name in scenarios]
    settings = load_settings()
    configure_logging(settings.log_format, "warning")
    tell("installing what the peers need, if it is not there yet …")
    toolchain = install()
    skipped = skips(chosen, toolchain)
    for line in skipped:
        tell(f"skipped: {line}")
    run = Run(settings, QUICK if quick else FULL, toolchain, repeat)
    try:
        run.compare_all(chosen)
    finally:
        # When something fails, what is known by then.
        if run.ratios:
            print_rich(table_of(run.ratios))
            if json is not None:
                write_json(run.ratios, skipped, json)


class Run:
    """All measurements, one after the other."""

    def __init__(self, settings: Settings, sizes: Sizes, toolchain: Toolchain, repeat: int) -> None:
        self._settings = settings
        self._sizes = sizes
        self._toolchain = toolchain
        self._repeat = repeat
        self.ratios: list[Ratio] = []
        """Those of all comparisons that are complete."""

    def compare_all(self, comparisons: list[Comparison]) -> None:
        """Make all measurements."""
        others = {each.name: self._there(each) for each in comparisons}
        with watching(self._repeat * sum(map(len, others.values()))) as watcher:
            for each in comparisons:
                pairs: dict[System, list[Pair]] = {system: [] for system in others[each.name]}
                for number in range(self._repeat):
                    for system, measured in pairs.items():
                        measured.append(self._pair(each, system, number, watcher))
                for system, measured in pairs.items():
                    goal = each.others[system]
                    self.ratios += ratios_of(each.name, system.name, each.figures, measured, goal)

    def _there(self, comparison: Comparison) -> list[System]:
        return [each for each in comparison.others if why_not(each, self._toolchain) is None]

    def _pair(self, comparison: Comparison, system: System, number: int, watcher: Watcher) -> Pair:
        """Ours and theirs on one server; who is first, changes with each repetition."""
        watcher.begin(f"{comparison.name}, {system.name} {number + 1}/{self._repeat}")
        try:
            with self._stage(watcher) as stage, tempfile.TemporaryDirectory() as folder:
                driver = Driver(stage, self._toolchain, Path(folder))
                driver.checkpoint()
                if number % 2:
                    theirs = comparison.theirs(driver, system)
                    driver.checkpoint()
                    ours = comparison.ours(stage)
                else:
                    ours = comparison.ours(stage)
                    theirs = comparison.theirs(driver, system)
        except (CommandError, TaskForgeError) as error:
            raise CommandError(f"{comparison.name}, {system.name}: {error}") from error
        watcher.end()
        return Pair(ours, theirs)

    def _stage(self, watcher: Watcher) -> AbstractContextManager[Stage]:
        return own_stage(self._settings, self._sizes, 1, watcher.show)


def skips(comparisons: list[Comparison], toolchain: Toolchain) -> list[str]:
    """The systems that cannot be measured, and why."""
    systems = dict.fromkeys(system for each in comparisons for system in each.others)
    reasons = {system.name: why_not(system, toolchain) for system in systems}
    return [f"{name}: {reason}" for name, reason in reasons.items() if reason is not None]


def why_not(system: System, toolchain: Toolchain) -> str | None:
    """Why this system cannot be measured; None: it can."""
    try:
        system.command(toolchain)
    except CannotInstall as error:
        return str(error)
    return None


def tell(text: str) -> None:
    """A line for whoever waits."""
    sys.stderr.write(f"bench-peers: {text}\n")
    sys.stderr.flush()


def leave(number: int, _frame: object) -> None:
    """On SIGTERM: unwind, so that everything is stopped and removed."""
    sys.exit(128 + number)


def main() -> None:
    """Run the command line that the process was started with."""
    signal.signal(signal.SIGTERM, leave)
    # Also where whoever started us lets Ctrl-C be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        typer.run(bench_peers)
    except CommandError as error:
        tell(str(error))
        sys.exit(error.code)


if __name__ == "__main__":
    main()
