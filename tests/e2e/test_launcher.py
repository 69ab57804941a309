"""The launcher where things go wrong: children that do not start, and that do not stop."""

import os
import signal
import sys
from pathlib import Path

import pytest
from tests.support.dev_system import Command, DevSystem
from tests.support.processes import descendants, until, until_gone

from taskforge_cli import launcher
from taskforge_cli.launcher import Launcher, LaunchError
from taskforge_cli.ports import ReservedPort
from taskforge_cli.processes import restart_pause
from taskforge_core.settings import Settings
from taskforge_sdk import BlockingClient


def test_a_service_that_does_not_start_is_one_line_and_nothing_stays(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        launcher, "python_command", lambda name: [sys.executable, "-c", f"exit('no {name} today')"]
    )
    system = Launcher(settings, logs=tmp_path)
    # Which of the three is looked at first is chance.
    with pytest.raises(
        LaunchError, match=r"^(\w+) ended with code 1 before it was ready: no \1 today$"
    ):
        system.start()
    until_gone(system.pids.values())


def test_the_ports_are_free_again_when_the_system_has_stopped(
    settings: Settings, tmp_path: Path
) -> None:
    with Launcher(settings, logs=tmp_path) as system:
        addresses = [system.queue_address, system.job_address]
        pids = system.pids
        assert set(pids) == {"queue_service", "job_service", "scheduler_service"}
    until_gone(pids.values())
    for address in addresses:
        ReservedPort(int(address.rpartition(":")[2])).release()


def test_each_replica_of_the_job_service_serves_at_an_address_of_its_own(
    settings: Settings, tmp_path: Path
) -> None:
    with Launcher(settings, logs=tmp_path, job_servers=2) as system:
        assert {"job_service", "job_service-2"} < set(system.pids)
        assert len(set(system.job_addresses)) == 2
        assert system.job_addresses[0] == system.job_address
        for address in system.job_addresses:
            with BlockingClient(
                queue_address=system.queue_address, job_address=address, api_key=system.api_key
            ) as client:
                assert client.job_stats().total == 0


def test_services_with_tls_need_an_authority_to_be_probed_with(
    settings: Settings, tmp_path: Path
) -> None:
    files = {"tls_certificate": tmp_path / "c", "tls_key": tmp_path / "k"}
    with pytest.raises(LaunchError, match="TASKFORGE_TLS_AUTHORITIES must name who has signed it"):
        Launcher(settings.model_copy(update=files), logs=tmp_path).start()
    with pytest.raises(LaunchError, match=f"tls: cannot read {tmp_path}/ca"):
        Launcher(
            settings.model_copy(update={**files, "tls_authorities": tmp_path / "ca"}),
            logs=tmp_path,
        ).start()


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0.5), (1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (10_000, 10)]
)
def test_the_pause_before_a_restart_grows_to_a_bound(failures: int, seconds: float) -> None:
    assert restart_pause(failures) == seconds


def test_a_second_signal_does_not_wait_for_a_service_that_hangs(open_folder: Path) -> None:
    with DevSystem(open_folder / "data") as dev:
        children = dev.processes()
        os.kill(dev.pid_of("job_service"), signal.SIGSTOP)
        dev.process.send_signal(signal.SIGINT)
        dev.until_says("SIGINT: stopping")
        dev.process.send_signal(signal.SIGINT)
        # Without the second signal it would wait for the grace of 20 s and some more.
        assert dev.process.wait(15) == 0
        until_gone(children)


def test_an_interrupted_start_leaves_nothing_behind(open_folder: Path) -> None:
    with Command(
        "dev", "--data-folder", str(open_folder / "data"), "--queue-port", "0", "--job-port", "0"
    ) as starting:
        until(lambda: len(descendants(starting.process.pid)) > 0, "a first child is there")
        children = descendants(starting.process.pid)
        code = starting.stop(signal.SIGINT)
        if code == 1:
            assert "error: interrupted before everything was ready" in starting.err.text
        else:  # it was ready just before the signal came
            assert code == 0
        until_gone(children)
        assert "Traceback" not in starting.err.text
