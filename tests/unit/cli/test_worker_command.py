from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import grpc
import pytest
from tests.unit.cli.building import Taskforge

from taskforge_cli.workers import load_worker
from taskforge_sdk import NotFound, Worker

SOURCE = """
from taskforge_sdk import Worker

worker = Worker(concurrency=7)
worker.job("t")(print)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, whose modules nobody else has imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def runnable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A worker that does not run, in the module `tasks_to_run`."""
    monkeypatch.setattr("taskforge_core.logs.configure_logging", lambda *_: None)
    worker = create_autospec(Worker, instance=True)
    monkeypatch.setattr("taskforge_cli.workers.load_worker", lambda _: worker)
    return worker


def test_a_worker_is_found_in_the_current_folder(folder: Path) -> None:
    (folder / "tasks_here.py").write_text(SOURCE)
    assert load_worker("tasks_here:worker").options.concurrency == 7


@pytest.mark.parametrize(
    ("source", "reference", "code", "line"),
    [
        ("", "tasks", 2, "'tasks' is no MODULE:WORKER, such as my_package.tasks:worker"),
        ("", "tasks_missing:worker", 2, "there is no module tasks_missing, here or installed"),
        ("", "no_package.tasks:worker", 2, "there is no module no_package, here or installed"),
        (
            "import no_such_thing",
            "tasks_1:worker",
            1,
            "tasks_1 needs a missing module: no_such_thing",
        ),
        (
            "def",
            "tasks_2:worker",
            1,
            "tasks_2 cannot be imported: invalid syntax (tasks_2.py, line 1)",
        ),
        ("x = 1", "tasks_3:worker", 2, "the module tasks_3 has no worker"),
        ("x = 1", "tasks_4:x", 2, "tasks_4:x is no taskforge_sdk.Worker but int"),
        (
            "from taskforge_sdk import Worker; w = Worker()",
            "tasks_6:w",
            2,
            "tasks_6:w has no handler: decorate one with @w.job(…)",
        ),
    ],
)
def test_a_wrong_reference_is_one_line(
    taskforge: Taskforge, folder: Path, source: str, reference: str, code: int, line: str
) -> None:
    (folder / f"{reference.partition(':')[0]}.py").write_text(source) if source else None
    outcome = taskforge("worker", "run", reference)
    assert (outcome.code, outcome.out, outcome.err) == (code, "", f"error: {line}\n")


def test_options_win_over_the_module(taskforge: Taskforge, runnable: Any) -> None:
    outcome = taskforge(
        "worker", "run", "tasks_to_run:worker", "--queue", "a", "--queue", "b",
        "--concurrency", "3", "--lease-duration", "5s", "--worker-id", "me", "--grace", "1m",
        "--job-address", "10.0.0.1:50052",
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    given = runnable.configure.call_args.kwargs
    assert (given["address"], given["queues"]) == ("10.0.0.1:50052", ["a", "b"])
    assert (given["concurrency"], given["worker_id"]) == (3, "me")
    assert (given["lease_duration"].seconds, given["grace"].seconds) == (5, 60)
    runnable.run_forever.assert_called_once_with()


def test_what_is_not_given_stays_as_the_module_says(
    taskforge: Taskforge, runnable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TASKFORGE_JOB_ADDRESS", raising=False)
    taskforge("worker", "run", "tasks_to_run:worker")
    assert set(runnable.configure.call_args.kwargs.values()) == {None}
    monkeypatch.setenv("TASKFORGE_JOB_ADDRESS", "10.0.0.2:50052")
    taskforge("worker", "run", "tasks_to_run:worker")
    assert runnable.configure.call_args.kwargs["address"] == "10.0.0.2:50052"


def test_a_worker_that_is_refused_ends_with_the_reason(taskforge: Taskforge, runnable: Any) -> None:
    runnable.run_forever.side_effect = NotFound(
        "there is no queue emials", code=grpc.StatusCode.NOT_FOUND, reason="QUEUE_NOT_FOUND"
    )
    outcome = taskforge("worker", "run", "tasks_to_run:worker")
    assert (outcome.code, outcome.err) == (1, "error: QUEUE_NOT_FOUND: there is no queue emials\n")


def test_an_option_out_of_range_is_a_usage_error(
    taskforge: Taskforge, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskforge_core.logs.configure_logging", lambda *_: None)
    (folder / "tasks_5.py").write_text(SOURCE)
    outcome = taskforge("worker", "run", "tasks_5:worker", "--concurrency", "0")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "concurrency" in outcome.err
