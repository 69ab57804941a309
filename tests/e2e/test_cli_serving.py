"""`taskforge migrate` and `taskforge serve`: what a deployment runs, on a Postgres of its own."""

import re
import signal
import subprocess
from pathlib import Path

import pytest
from tests.conftest import run_apart
from tests.support.dev_system import Command, command_line, environment
from tests.support.processes import PATIENCE, until_gone

from taskforge_cli.ports import ReservedPort
from taskforge_core.local_key import ensure_local_key
from taskforge_sdk import BlockingClient


def _taskforge(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line(*arguments),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
        check=False,
    )


def test_a_database_is_migrated_once_and_again_without_effect(empty_database_url: str) -> None:
    first = _taskforge("migrate", "--database-url", empty_database_url)
    assert (first.returncode, first.stdout[:28]) == (0, "The database is at revision ")
    assert _taskforge("migrate", "--database-url", empty_database_url).stdout == first.stdout


def test_a_database_that_is_not_there_is_out_of_reach() -> None:
    with ReservedPort() as port:  # nobody listens there
        refused = _taskforge("migrate", "--database-url", f"postgresql://x@{port.address}/x")
    assert refused.returncode == 3
    assert refused.stderr.startswith("error: cannot reach the database: ")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("service", ["queue", "job"])
def test_a_service_runs_alone_and_takes_the_place_of_the_command(
    service: str, database_url: str, tmp_path: Path
) -> None:
    key = run_apart(ensure_local_key(database_url, tmp_path / "api.key"))
    with Command(
        "serve", service, "--address", "127.0.0.1:0", "--database-url", database_url
    ) as server:
        server.until_says("serving")
        found = re.search(r"address=\S*?(127\.0\.0\.1:\d+)", server.err.text)
        assert found is not None
        with BlockingClient(queue_address=found[1], job_address=found[1], api_key=key) as client:
            if service == "queue":
                assert client.create_queue("alone").name == "alone"
            else:
                assert client.job_stats().total == 0
        pid = server.process.pid
        assert server.stop(signal.SIGTERM) == 0
        until_gone([pid])


def test_the_scheduler_runs_alone(database_url: str) -> None:
    with Command("serve", "scheduler", "--database-url", database_url) as scheduler:
        scheduler.until_says("leading")
        assert scheduler.stop(signal.SIGTERM) == 0


def test_a_service_on_a_port_in_use_ends_with_the_reason(database_url: str) -> None:
    with ReservedPort() as port:
        refused = _taskforge(
            "serve", "job", "--address", port.address, "--database-url", database_url
        )
    assert refused.returncode != 0
    assert f"cannot listen on {port.address}" in refused.stderr
