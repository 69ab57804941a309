"""The run: every measurement as often as asked, each on its stage, one after the other."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from taskforge_cli.bench.measures import Metrics, Spread, spreads
from taskforge_cli.bench.progress import Watcher
from taskforge_cli.bench.scenarios.catalogue import Measurement
from taskforge_cli.bench.stage import Stage
from taskforge_cli.failures import CommandError

Results = dict[str, dict[str, Spread]]
"""By the measurements' names, in the order in which they were made."""

OpenStage = Callable[[int, Callable[[int], None]], AbstractContextManager[Stage]]
"""A stage with so many job servers, that shows how many jobs are done."""


def run_all(
    groups: Sequence[Sequence[Measurement]], repeat: int, open_stage: OpenStage, watcher: Watcher
) -> Iterator[Results]:
    """Measure; what is compared with each other is measured close together.

    Yields the results of each scenario once it is through.

    Args:
        groups: The measurements of each scenario.
        repeat: How often to make each.
        open_stage: Makes the stage of a measurement.
        watcher: Shows how far it is.

    Raises:
        CommandError: A measurement has failed, or jobs came out wrong; it says which.
    """
    for group in groups:
        runs: dict[str, list[Metrics]] = defaultdict(list)
        for number in range(1, repeat + 1):
            for measurement in group:
                watcher.begin(f"{measurement.key} {number}/{repeat}")
                try:
                    with open_stage(measurement.servers, watcher.show) as stage:
                        metrics = measurement.measure(stage)
                except CommandError as error:
                    raise CommandError(f"{measurement.key}: {error}", error.code) from error
                if measurement.ratio_to:
                    base = runs[measurement.ratio_to][-1]["jobs_per_s"]
                    metrics["ratio"] = metrics["jobs_per_s"] / base
                runs[measurement.key].append(metrics)
                watcher.end()
        yield {key: spreads(each) for key, each in runs.items()}
