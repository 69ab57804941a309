"""What the demo shows while it runs: a live bar on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from taskforge_cli.rendering import make_console
from taskforge_sdk import JobCounts

_LINE_INTERVAL = 2.0


class Watcher(Protocol):
    """Shows how far the jobs are."""

    def show(self, counts: JobCounts) -> None:
        """Show these counts."""

    def say(self, text: str) -> None:
        """Show that something has happened."""


@contextmanager
def watching(total: int) -> Iterator[Watcher]:
    """The watcher for this output."""
    if not sys.stdout.isatty():
        yield LineWatcher(total)
        return
    progress = Progress(
        TextColumn("[bold]jobs"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        console=make_console(),
    )
    with progress:
        yield BarWatcher(progress, total)


class BarWatcher:
    """A bar that moves."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total, detail="")
        self._speed = _Speed()

    def show(self, counts: JobCounts) -> None:
        done = counts.total - counts.unfinished
        self._progress.update(
            self._task, completed=done, detail=_detail(counts, self._speed.after(done))
        )

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False)


class LineWatcher:
    """A line every two seconds."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        self._total = total
        self._console = console or make_console()
        self._began = time.monotonic()
        self._due = self._began
        self._speed = _Speed()

    def show(self, counts: JobCounts) -> None:
        done = counts.total - counts.unfinished
        now = time.monotonic()
        if now < self._due and done < self._total:
            return
        self._due = now + _LINE_INTERVAL
        detail = _detail(counts, self._speed.after(done))
        self.say(f"{now - self._began:4.0f} s  {done:,} of {self._total:,} jobs done  {detail}")

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)
        self._console.file.flush()


class _Speed:
    """Jobs a second since the last time it was asked, a second ago or longer."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._done = 0
        self._value = 0.0

    def after(self, done: int) -> float:
        elapsed = time.monotonic() - self._at
        if elapsed >= 1:
            self._value = (done - self._done) / elapsed
            self._at, self._done = time.monotonic(), done
        return self._value


def _detail(counts: JobCounts, speed: float) -> str:
    return (
        f"{counts.processing} running, {counts.pending:,} waiting,"
        f" {counts.scheduled} to be retried, {speed:,.0f}/s"
    )
