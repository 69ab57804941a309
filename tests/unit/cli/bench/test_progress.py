import io

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from taskforge_cli.bench.progress import BarWatcher, NoWatcher, watching


def test_the_bar_counts_measurements_and_tells_how_far_the_present_one_is() -> None:
    written = io.StringIO()
    progress = Progress(
        TextColumn("{task.completed}/{task.total} {task.fields[what]}: {task.fields[detail]}"),
        console=Console(file=written, width=200, force_terminal=True, highlight=False),
    )
    watcher = BarWatcher(progress, 3)
    with progress:
        watcher.begin("drain 1/3")
        watcher.end()
        watcher.begin("drain 2/3")
        watcher.show(12_000)
        progress.refresh()
    assert "1/3 drain 2/3: 12,000 jobs" in written.getvalue()


def test_what_is_no_terminal_gets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(1) as watcher:
        watcher.begin("drain 1/1")
        watcher.show(1)
        watcher.end()
    assert isinstance(watcher, NoWatcher)
    assert capsys.readouterr() == ("", "")
