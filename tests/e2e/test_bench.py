"""`taskforge bench` with small numbers: what it measures is there, and nothing stays behind."""

import json
import signal
import subprocess
from pathlib import Path

from tests.support.dev_system import Command, DevSystem, command_line, environment
from tests.support.processes import descendants, until, until_gone

_RATES = {"jobs_per_s"}
_LATENCIES = {"p50_ms", "p95_ms", "p99_ms"}
_SERVERS = {"cpu_us_postgres", "cpu_us_server"}


def _bench(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line("bench", *arguments, "--quick", "--repeat", "1"),
        capture_output=True,
        text=True,
        timeout=110,
        env=environment({"TMPDIR": str(tmp_path), **variables}),
        check=False,
    )


def _figures(file: Path) -> dict[str, set[str]]:
    document = json.loads(file.read_text())
    for figures in document.values():
        for spread in figures.values():
            assert set(spread) == {"median", "min", "max"}
            assert 0 <= spread["min"] <= spread["median"] <= spread["max"]
    return {scenario: set(figures) for scenario, figures in document.items()}


def test_every_figure_is_in_the_table_and_in_the_json(open_folder: Path) -> None:
    file = open_folder / "figures.json"
    bench = _bench(open_folder, "enqueue-one", "drain", "latency", "--json", str(file))
    assert bench.returncode == 0, bench.stdout + bench.stderr
    assert bench.stderr == ""
    assert _figures(file) == {
        "enqueue-one": _RATES | _LATENCIES | _SERVERS | {"rss_mb"},
        "drain": _RATES | _SERVERS | {"cpu_us_worker", "rss_mb"},
        "latency": _LATENCIES | {"rss_mb"},
    }
    rows = [line.split()[0] for line in bench.stdout.splitlines() if line[0] != " "]
    assert rows == ["SCENARIO", "enqueue-one", "drain", "latency"]
    assert list(open_folder.glob("taskforge-*")) == []


def test_what_a_given_system_uses_is_left_out_and_its_queues_are_removed(
    dev: DevSystem, tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    bench = _bench(
        tmp_path,
        *("drain", "--address", dev.addresses["job"], "--json", str(file)),
        **dev.variables,
    )
    assert bench.returncode == 0, bench.stdout + bench.stderr
    assert _figures(file) == {"drain": {"jobs_per_s", "cpu_us_worker"}}
    with dev.client() as client:
        assert not [queue for queue in client.list_queues() if queue.name.startswith("bench-")]


def test_ctrl_c_ends_everything_that_was_started(open_folder: Path) -> None:
    arguments = ("bench", "pinned", "--repeat", "1")
    with Command(*arguments, variables={"TMPDIR": str(open_folder)}) as bench:

        def is_loaded() -> bool:
            assert bench.process.poll() is None, bench.err.text
            commands = [command for _, command in descendants(bench.process.pid).values()]
            return any("taskforge_cli.bench.load" in command for command in commands)

        until(is_loaded, "a load process runs")
        pids = list(descendants(bench.process.pid))
        assert bench.stop(signal.SIGINT) != 0
        until_gone(pids)
        assert bench.out.text == ""
        assert "Traceback" not in bench.err.text
    assert list(open_folder.glob("taskforge-*")) == []
