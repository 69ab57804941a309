"""What takes many jobs out of a queue, and the question that comes first."""

import io
import json
from typing import Any

import pytest
from tests.unit.cli.building import Taskforge

from taskforge_sdk import JobStatus, PurgeResult

PENDING_AND_FAILED = ("--status", "pending", "--status", "FAILED")


class Terminal(io.StringIO):
    """A person's answers."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No person is there, whoever runs the tests."""
    monkeypatch.setattr("sys.stdin", io.StringIO())


def test_a_purge_says_what_it_removed(client: Any, taskforge: Taskforge) -> None:
    client.purge_queue.return_value = PurgeResult(cancelled_jobs=3, deleted_jobs=1204)
    outcome = taskforge("queue", "purge", "emails", *PENDING_AND_FAILED)
    assert outcome.code == 0
    assert outcome.out == "Cancelled 3 waiting and deleted 1,204 finished jobs of emails.\n"
    client.purge_queue.assert_called_once_with(
        "emails", [JobStatus.PENDING, JobStatus.FAILED], dry_run=False
    )


def test_a_dry_run_of_a_purge_only_counts(client: Any, taskforge: Taskforge) -> None:
    client.purge_queue.return_value = PurgeResult(cancelled_jobs=0, deleted_jobs=7)
    outcome = taskforge("queue", "purge", "emails", "--status", "succeeded", "--dry-run")
    assert outcome.out == "Would cancel 0 waiting and delete 7 finished jobs of emails.\n"
    client.purge_queue.assert_called_once_with("emails", [JobStatus.SUCCEEDED], dry_run=True)
    outcome = taskforge("queue", "purge", "emails", "--status", "succeeded", "--dry-run", "--json")
    assert json.loads(outcome.out) == {"cancelled_jobs": 0, "deleted_jobs": 7, "dry_run": True}


@pytest.mark.parametrize("answer", ["y\n", "YES\n"])
def test_a_person_is_asked_first(
    client: Any, taskforge: Taskforge, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    client.purge_queue.return_value = PurgeResult(cancelled_jobs=3, deleted_jobs=4)
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    outcome = taskforge("queue", "purge", "emails", *PENDING_AND_FAILED, "--json")
    assert outcome.code == 0
    assert outcome.err == "Cancel 3 waiting and delete 4 finished jobs of emails? [y/N] "
    assert json.loads(outcome.out)["deleted_jobs"] == 4
    dry, real = client.purge_queue.call_args_list
    assert (dry.kwargs, real.kwargs) == ({"dry_run": True}, {"dry_run": False})
    assert dry.args == real.args


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yesterday\n"])
def test_a_person_who_does_not_say_yes_loses_nothing(
    client: Any, taskforge: Taskforge, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    client.purge_queue.return_value = PurgeResult(cancelled_jobs=3, deleted_jobs=4)
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    outcome = taskforge("queue", "purge", "emails", *PENDING_AND_FAILED)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.endswith("error: aborted\n")
    client.purge_queue.assert_called_once_with(
        "emails", [JobStatus.PENDING, JobStatus.FAILED], dry_run=True
    )


@pytest.mark.parametrize("option", ["--yes", "--dry-run"])
def test_nobody_is_asked_who_said_yes_or_only_counts(
    client: Any, taskforge: Taskforge, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    client.purge_queue.return_value = PurgeResult(cancelled_jobs=3, deleted_jobs=4)
    monkeypatch.setattr("sys.stdin", Terminal())
    assert taskforge("queue", "purge", "emails", *PENDING_AND_FAILED, option).err == ""
    client.purge_queue.assert_called_once()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("purge", "emails"), "Missing option '--status'"),
        (("purge", "emails", "--status", "processing"), "is not one of"),
        (("redrive", "dead", "--max", "0"), "'--max'"),
        (("redrive", "dead", "--per-second", "0"), "'--per-second'"),
    ],
)
def test_a_command_that_makes_no_sense_is_a_usage_error(
    client: Any, taskforge: Taskforge, arguments: tuple[str, ...], words: str
) -> None:
    outcome = taskforge("queue", *arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert words in outcome.err
    assert client.purge_queue.mock_calls == client.redrive_jobs.mock_calls == []


def test_a_redrive_hands_its_bounds_on(client: Any, taskforge: Taskforge) -> None:
    client.redrive_jobs.return_value = 1204
    outcome = taskforge(
        "queue", "redrive", "dead", "--type", "send-email", "--origin", "emails",
        "--max", "5000", "--per-second", "50",
    )  # fmt: skip
    assert (outcome.code, outcome.out) == (0, "Took 1,204 jobs of dead back.\n")
    client.redrive_jobs.assert_called_once_with(
        "dead",
        job_type="send-email",
        origin_queue="emails",
        max_jobs=5000,
        jobs_per_second=50,
        dry_run=False,
    )


def test_a_redrive_without_bounds_takes_all(client: Any, taskforge: Taskforge) -> None:
    client.redrive_jobs.return_value = 1
    assert taskforge("queue", "redrive", "dead", "--dry-run").out == (
        "Would take 1 job of dead back.\n"
    )
    client.redrive_jobs.assert_called_once_with(
        "dead",
        job_type=None,
        origin_queue=None,
        max_jobs=None,
        jobs_per_second=None,
        dry_run=True,
    )
    outcome = taskforge("queue", "redrive", "dead", "--dry-run", "--json")
    assert json.loads(outcome.out) == {"redriven_jobs": 1, "dry_run": True}
