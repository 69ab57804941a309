"""The two pictures: latency against offered load, and the drain's rate against the backlog."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from taskforge_cli.bench.measures import Spread
from taskforge_cli.failures import CommandError
from taskforge_cli.rendering import print_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Results = Mapping[str, Mapping[str, Spread]]


def draw(results: Results, folder: Path) -> None:
    """Draw what has been measured, and name the files.

    Raises:
        CommandError: A file cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    for name, plot in (("latency.png", _plot_latency), ("backlog.png", _plot_backlog)):
        figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
        plot(axes, results)
        axes.grid(visible=True, alpha=0.3)
        file = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(file, dpi=120)
        except OSError as error:
            raise CommandError(f"cannot write {file}: {error.strerror}") from error
        finally:
            plt.close(figure)
        print_line(f"Drawn: {file}")


def points(results: Results, prefix: str) -> list[tuple[int, Mapping[str, Spread]]]:
    """The measurements of a sweep: `load-200` is at 200."""
    return sorted(
        (
            (int(key.removeprefix(prefix)), figures)
            for key, figures in results.items()
            if key.startswith(prefix) and key.removeprefix(prefix).isdigit()
        ),
        key=lambda point: point[0],
    )


def _plot_latency(axes: "Axes", results: Results) -> None:
    measured = points(results, "load-")
    offered = [rate for rate, _ in measured]
    for name in ("p50_ms", "p95_ms", "p99_ms"):
        _line(axes, offered, [figures[name] for _, figures in measured], name.removesuffix("_ms"))
    axes.set(
        title="From the call that creates a job to its handler",
        xlabel="jobs a second that are offered",
        ylabel="ms",
    )
    axes.set_ylim(bottom=0)
    axes.legend()


def _plot_backlog(axes: "Axes", results: Results) -> None:
    measured = points(results, "among-")
    rates = [figures["jobs_per_s"] for _, figures in measured]
    _line(axes, [size for size, _ in measured], rates, "drain")
    axes.set(title="Drain", xlabel="more jobs that wait in the queue", ylabel="jobs a second")
    axes.set_xscale("symlog", linthresh=1000)
    axes.set_ylim(bottom=0)


def _line(axes: "Axes", across: list[int], figures: list[Spread], label: str) -> None:
    """The medians as a line, the spread as a band."""
    axes.plot(across, [each.median for each in figures], marker="o", label=label)
    axes.fill_between(
        across,
        [each.lowest for each in figures],
        [each.highest for each in figures],
        alpha=0.15,
    )
