"""What is shown while the bench works: a bar on stderr, on a terminal only."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_REFRESHES_PER_SECOND = 2
"""The bench runs on the machine that it measures: be frugal."""


class Watcher(Protocol):
    """Shows how far the run is."""

    def begin(self, what: str) -> None:
        """A measurement begins."""

    def show(self, jobs: int) -> None:
        """So many jobs of it are done; any thread may say so."""

    def end(self) -> None:
        """The measurement is made."""


@contextmanager
def watching(measurements: int) -> Iterator[Watcher]:
    """The watcher for this stderr."""
    if not sys.stderr.isatty():
        yield NoWatcher()
        return
    progress = Progress(
        TextColumn("[bold]{task.fields[what]}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True, highlight=False),
        refresh_per_second=_REFRESHES_PER_SECOND,
        transient=True,
    )
    with progress:
        yield BarWatcher(progress, measurements)


class NoWatcher:
    """Shows nothing."""

    def begin(self, what: str) -> None:
        """Nothing."""

    def show(self, jobs: int) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class BarWatcher:
    """A bar of measurements, with the jobs of the one that is being made beside it."""

    def __init__(self, progress: Progress, measurements: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=measurements, what="", detail="")

    def begin(self, what: str) -> None:
        self._progress.update(self._task, what=what, detail="starting the system")

    def show(self, jobs: int) -> None:
        self._progress.update(self._task, detail=f"{jobs:,} jobs")

    def end(self) -> None:
        self._progress.advance(self._task)
