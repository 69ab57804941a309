import re
from typing import Any

import grpc
import pytest
from tests.unit.cli.building import Taskforge

from taskforge_cli.ports import ReservedPort
from taskforge_sdk import FieldViolation, InvalidRequest, NotFound, Unavailable


def test_a_refusal_is_one_line_with_its_reason(client: Any, taskforge: Taskforge) -> None:
    client.queue_stats.side_effect = NotFound(
        "there is no queue emials", code=grpc.StatusCode.NOT_FOUND, reason="QUEUE_NOT_FOUND"
    )
    outcome = taskforge("queue", "stats", "emials")
    assert outcome.err == "error: QUEUE_NOT_FOUND: there is no queue emials\n"
    assert (outcome.code, outcome.out) == (1, "")


def test_every_wrong_field_is_named_in_the_line(client: Any, taskforge: Taskforge) -> None:
    client.create_job.side_effect = InvalidRequest(
        "the request is invalid",
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_REQUEST",
        violations=[
            FieldViolation("job.priority", "must be\n at most 9"),
            FieldViolation("job.job_type", "is empty\x1b[2J"),
        ],
    )
    outcome = taskforge("job", "create", "emails", "", "--priority", "10")
    assert outcome.code == 1
    assert outcome.err == (
        "error: INVALID_REQUEST: the request is invalid;"
        " job.priority: must be at most 9; job.job_type: is empty\N{REPLACEMENT CHARACTER}[2J\n"
    )


@pytest.mark.parametrize(
    "command",
    [("queue", "list"), ("queue", "create", "emails"), ("job", "list"), ("job", "show", "x")],
)
def test_a_server_that_is_not_there_is_named_and_has_its_own_exit_code(
    taskforge: Taskforge, command: tuple[str, ...]
) -> None:
    with ReservedPort() as port:  # nobody listens there
        outcome = taskforge(*command, f"--{command[0]}-address", port.address)
    assert outcome.code == 3
    assert outcome.err == (
        f"error: cannot reach the {command[0]} service at {port.address}:"
        " connection refused; is it running?\n"
    )


def test_a_server_without_its_database_was_reached(client: Any, taskforge: Taskforge) -> None:
    client.get_job.side_effect = Unavailable(
        "the database cannot be reached",
        code=grpc.StatusCode.UNAVAILABLE,
        reason="DATABASE_UNAVAILABLE",
    )
    outcome = taskforge("job", "show", "x")
    assert outcome.code == 1
    assert outcome.err == "error: DATABASE_UNAVAILABLE: the database cannot be reached\n"


def test_a_server_that_does_not_answer_is_out_of_reach(client: Any, taskforge: Taskforge) -> None:
    client.get_job.side_effect = Unavailable(
        "Deadline Exceeded", code=grpc.StatusCode.DEADLINE_EXCEEDED
    )
    outcome = taskforge("job", "show", "x", "--job-address", "10.0.0.1:1")
    assert outcome.code == 3
    assert outcome.err == ("error: cannot reach the job service at 10.0.0.1:1: no answer in time\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "Missing command: see --help."),
        (("queue",), "Missing command: see --help."),
        (("emails",), "No such command 'emails'."),
        (("queue", "show"), "Missing argument 'QUEUE'."),
        (("queue", "list", "--limit", "0"), "Invalid value for '--limit'"),
        (("demo", "--path", "/no/such/folder"), "--path: there is no folder /no/such/folder"),
        (("worker",), "Missing command: see --help."),
        (("worker", "run", "tasks"), "'tasks' is no MODULE:WORKER"),
        (("serve", "mail"), "'mail' is not one of 'queue', 'job', 'scheduler'"),
        (("serve", "scheduler", "--address", "[::]:1"), "the scheduler listens nowhere"),
        (("migrate",), "TASKFORGE_DATABASE_URL is not set"),
        (("serve", "job"), "TASKFORGE_DATABASE_URL is not set"),
        (("migrate", "--database-url", "mysql://here"), "--database-url: must begin with"),
        (("dev", "--queue-port", "70000"), "Invalid value for '--queue-port'"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    taskforge: Taskforge, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], line: str
) -> None:
    monkeypatch.delenv("TASKFORGE_DATABASE_URL", raising=False)
    outcome = taskforge(*arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith("error: ")
    assert line in outcome.err


@pytest.mark.parametrize(
    "command",
    [("migrate",), ("serve", "job"), ("dev",), ("demo",), ("admin", "bootstrap")],
)
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://me:hun#ter2@localhost/db", "percent-encode"),
        ("postgresql://me:hun/ter2@localhost/db", "percent-encode"),
        ("postgresql://me:hun?ter2@localhost/db", "percent-encode"),
        ("postgresql://me:hun[ter2@localhost/db", "percent-encode"),
        ("postgresql://me:ter2@localhost/db?sslmode=nonsense", "sslmode is one of disable, "),
    ],
)
def test_an_address_of_a_database_that_is_none_is_one_line_without_it(
    taskforge: Taskforge,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    url: str,
    words: str,
) -> None:
    monkeypatch.setenv("TASKFORGE_DATABASE_URL", url)
    outcome = taskforge(*command)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith("error: TASKFORGE_DATABASE_URL: ")
    assert words in outcome.err
    assert not {"hun", "ter2", "nonsense"} & set(re.findall(r"\w+", outcome.err))


def test_a_wrong_setting_names_its_variable(
    taskforge: Taskforge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKFORGE_LOG_LEVEL", "loud")
    outcome = taskforge("queue", "list")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith("error: TASKFORGE_LOG_LEVEL: ")


def test_an_address_comes_from_the_settings(
    taskforge: Taskforge, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ReservedPort() as port:
        monkeypatch.setenv("TASKFORGE_JOB_ADDRESS", port.address)
        assert port.address in taskforge("job", "stats").err


def test_the_version_is_that_of_the_package(taskforge: Taskforge) -> None:
    outcome = taskforge("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("taskforge 0.")


def test_every_command_has_help(taskforge: Taskforge) -> None:
    verbs = {
        "queue": (
            "create", "list", "show", "update", "pause", "resume", "stats", "purge", "redrive",
            "delete",
        ),
        "job": ("create", "show", "list", "cancel", "retry", "stats"),
        "worker": ("run", "list", "update"),
    }  # fmt: skip
    commands = [("dev",), ("demo",), ("migrate",), ("serve",)]
    for command in [*commands, *((noun, verb) for noun in verbs for verb in verbs[noun])]:
        outcome = taskforge(*command, "--help")
        assert (outcome.code, outcome.err) == (0, "")
        assert "Usage: taskforge " + " ".join(command) in outcome.out
