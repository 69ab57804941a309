import json
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import grpc
import pytest
from tests.unit.cli.building import Taskforge, a_worker

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
    (folder / "tasks_5.py").write_text(SOURCE)
    outcome = taskforge("worker", "run", "tasks_5:worker", "--concurrency", "0")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "concurrency" in outcome.err


def test_the_list_tells_who_works_and_how_much(client: Any, taskforge: Taskforge) -> None:
    away = a_worker(worker_id="", connected=False, draining=True, last_heartbeat_at=None)
    client.list_workers.return_value = iter([a_worker(), away])
    head, first, second = taskforge("worker", "list", "--limit", "5").out.splitlines()
    client.list_workers.assert_called_once_with(page_size=5)
    assert head.split()[:4] == ["SESSION", "WORKER", "STATE", "HELD"]
    assert first.split() == [
        "0192a000-0000-7000-8000-0000000000ff", "host:7", "connected", "1", "20",
        "2026-11-24", "12:00:00.123", "UTC", "-",
    ]  # fmt: skip
    assert second.split()[1:] == ["-", "no", "stream,", "draining", "1", "20", "-", "-"]


def test_the_json_of_a_worker_has_every_key(client: Any, taskforge: Taskforge) -> None:
    client.list_workers.return_value = iter([a_worker() for _ in range(3)])
    workers = json.loads(taskforge("worker", "list", "--limit", "2", "--json").out)["workers"]
    assert workers == 2 * [
        {
            "session_id": "0192a000-0000-7000-8000-0000000000ff",
            "project_id": "00000000-0000-7000-8000-000000000002",
            "worker_id": "host:7",
            "max_in_flight": 20,
            "draining": False,
            "connected": True,
            "held_jobs": 1,
            "held_job_ids": ["0192a000-0000-7000-8000-00000000000a"],
            "created_at": "2026-11-24T12:00:00.123456Z",
            "last_heartbeat_at": "2026-11-24T12:00:00.123456Z",
            "expires_at": None,
        }
    ]


def test_an_empty_list_of_workers_says_so(client: Any, taskforge: Taskforge) -> None:
    client.list_workers.return_value = iter([])
    assert taskforge("worker", "list").out == "There is no worker.\n"


@pytest.mark.parametrize(
    ("arguments", "change", "line"),
    [
        (("--drain",), {"draining": True}, "The worker host:7 gets no more jobs."),
        (
            ("--resume",),
            {"draining": False},
            "The worker host:7 gets jobs, and may hold 20 at once.",
        ),
        (
            ("--max-in-flight", "5"),
            {"max_in_flight": 5},
            "The worker host:7 gets jobs, and may hold 5 at once.",
        ),
    ],
)
def test_an_update_changes_what_is_given(
    client: Any, taskforge: Taskforge, arguments: tuple[str, ...], change: Any, line: str
) -> None:
    client.update_worker.return_value = a_worker(**change)
    assert taskforge("worker", "update", "some-session", *arguments).out == f"{line}\n"
    given = {"max_in_flight": None, "draining": None, **change}
    client.update_worker.assert_called_once_with("some-session", **given)
    document = json.loads(taskforge("worker", "update", "s", *arguments, "--json").out)
    assert document.items() >= change.items()


def test_an_update_of_nothing_is_a_usage_error(client: Any, taskforge: Taskforge) -> None:
    outcome = taskforge("worker", "update", "some-session")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "there is nothing to change" in outcome.err
    client.update_worker.assert_not_called()
