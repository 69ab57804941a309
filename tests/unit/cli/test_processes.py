import os
import signal
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue

import pytest
from tests.support.processes import until_gone

from taskforge_cli.processes import ChildProcess, how_it_ended, python_command

_SLEEPER = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"]

_PARENT = """
import sys, threading
from pathlib import Path
from taskforge_cli.processes import ChildProcess

child = ChildProcess("sleeper", sys.argv[2:], output=Path(sys.argv[1]))
print(child.pid, flush=True)
threading.Event().wait()
"""


def test_a_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path / "log"), *_SLEEPER], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child_pid = int(parent.stdout.readline())
        os.kill(child_pid, 0)
        parent.kill()
    until_gone([child_pid])


def test_a_child_tells_its_end_and_how_it_came(tmp_path: Path) -> None:
    ended: SimpleQueue[ChildProcess] = SimpleQueue()
    child = ChildProcess("sleeper", _SLEEPER, output=tmp_path / "log", on_end=ended.put)
    assert child.exit_code is None
    assert not child.wait(0)
    child.send(signal.SIGKILL)
    assert ended.get(timeout=20) is child
    assert child.exit_code == -signal.SIGKILL
    child.send(signal.SIGTERM)  # too late, and no error


def test_a_child_gets_variables_and_writes_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    script = "import os, sys; print(os.environ['COLOUR']); sys.exit('no luck')"
    child = ChildProcess(
        "short", [sys.executable, "-c", script], environment={"COLOUR": "red"}, output=log
    )
    assert child.wait(20)
    assert child.exit_code == 1
    assert log.read_text() == "before\nred\nno luck\n"


def test_a_child_is_out_of_reach_of_the_terminals_signals(tmp_path: Path) -> None:
    child = ChildProcess("sleeper", _SLEEPER, output=tmp_path / "log")
    assert os.getsid(child.pid) == child.pid
    child.send(signal.SIGKILL)
    assert child.wait(20)


def test_an_output_that_cannot_be_opened_is_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ChildProcess("sleeper", _SLEEPER, output=tmp_path / "nowhere" / "log")


def test_a_module_runs_with_our_python() -> None:
    assert python_command("job_service", "--x") == [sys.executable, "-m", "job_service", "--x"]


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "ended with code 0"), (3, "ended with code 3"), (-9, "was killed by SIGKILL")],
)
def test_an_end_has_words(code: int, words: str) -> None:
    assert how_it_ended(code) == words
