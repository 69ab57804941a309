import io

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from taskforge_cli.demo.watching import BarWatcher, LineWatcher, watching
from taskforge_sdk import JobCounts


def _console(terminal: bool) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, width=200, force_terminal=terminal, highlight=False), written


def test_lines_come_at_the_beginning_and_at_the_end_but_not_at_every_look() -> None:
    console, written = _console(terminal=False)
    watcher = LineWatcher(1200, console)
    for succeeded in range(0, 1200, 100):
        watcher.show(JobCounts(pending=1200 - succeeded - 3, processing=3, succeeded=succeeded))
    watcher.say("worker-2 [killed]")
    watcher.show(JobCounts(succeeded=1199, failed=1))
    first, said, last = written.getvalue().splitlines()
    assert "0 of 1,200 jobs done  3 running, 1,197 waiting, 0 to be retried" in first
    assert said == "worker-2 [killed]"
    assert "1,200 of 1,200 jobs done" in last


def test_a_bar_shows_what_waits_and_runs() -> None:
    console, written = _console(terminal=True)
    progress = Progress(
        TextColumn("{task.completed} of {task.total}: {task.fields[detail]}"), console=console
    )
    watcher = BarWatcher(progress, 10)
    with progress:
        watcher.show(JobCounts(pending=4, scheduled=1, processing=2, succeeded=3))
        watcher.say("something [happened]")
        progress.refresh()
    assert "3 of 10: 2 running, 4 waiting, 1 to be retried" in written.getvalue()
    assert "something [happened]" in written.getvalue()


def test_what_is_no_terminal_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(1) as watcher:
        watcher.show(JobCounts(succeeded=1))
    assert "1 of 1 jobs done" in capsys.readouterr().out
