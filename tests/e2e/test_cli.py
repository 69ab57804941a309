"""The verbs against a running system: what a user, or a script, sees."""

import json
import subprocess
import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from tests.support.dev_system import DevSystem, command_line, environment
from tests.support.processes import PATIENCE

from taskforge_cli import application
from taskforge_sdk import NewJob

Run: TypeAlias = Callable[..., tuple[int, str, str]]


@pytest.fixture
def queue(dev: DevSystem) -> str:
    """A queue of the test's own."""
    name = f"cli-{uuid.uuid4().hex}"
    with dev.client() as client:
        client.create_queue(name)
    return name


@pytest.fixture
def run(dev: DevSystem, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process: its exit code, stdout and stderr."""
    for name, value in dev.variables.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = application.run(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def _create(run: Run, queue: str, *arguments: str) -> dict[str, Any]:
    code, out, _ = run("job", "create", queue, "t", "--json", *arguments)
    assert code == 0
    document: dict[str, Any] = json.loads(out)
    return document


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("job", "create", "emials", "t"), 1, "QUEUE_NOT_FOUND: there is no queue emials"),
        (
            ("job", "create", "{queue}", "t", "--priority", "10"),
            1,
            "INVALID_REQUEST: job.prio",
        ),
        (("job", "create", "{queue}", ""), 1, "INVALID_REQUEST: job.job_type: "),
        (
            ("job", "create", "{queue}", "t", "--payload", "{to: ann}"),
            2,
            "--payload is no",
        ),
        (
            ("job", "create", "{queue}", "t", "--max-attempts", "0"),
            1,
            "INVALID_REQUEST: job.max",
        ),
        (
            ("job", "create", "{queue}", "t", "--timeout", "10ms"),
            1,
            "INVALID_REQUEST: job.time",
        ),
        (("job", "list", "--page-size", "-1"), 1, "INVALID_REQUEST: page_size: "),
        (("queue", "list", "--page-size", "-1"), 1, "INVALID_REQUEST: page_size: "),
        (("queue", "create", "{queue}"), 1, "QUEUE_NAME_TAKEN: "),
        (("queue", "create", "no spaces"), 1, "INVALID_REQUEST: name: "),
        (("queue", "show", "emials"), 1, "QUEUE_NOT_FOUND: there is no queue emials"),
        (
            ("queue", "update", "{queue}", "--retry-jitter", "2"),
            1,
            "INVALID_REQUEST: settings.",
        ),
        (("job", "show", "nonsense"), 1, "INVALID_REQUEST: job_id: "),
        (("job", "show", str(uuid.UUID(int=1))), 1, "JOB_NOT_FOUND: "),
    ],
)
def test_wrong_input_is_one_line_with_the_reason(
    run: Run, queue: str, arguments: tuple[str, ...], code: int, line: str
) -> None:
    got = run(*(argument.replace("{queue}", queue) for argument in arguments))
    assert got[:2] == (code, "")
    assert got[2].startswith(f"error: {line}")
    assert got[2].count("\n") == 1


def test_a_payload_nested_too_deep_is_the_servers_to_refuse(run: Run, queue: str) -> None:
    code, _, err = run("job", "create", queue, "t", "--payload", "[" * 2000 + "]" * 2000)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: INVALID_JSON: ")


def test_the_life_of_a_queue(run: Run) -> None:
    name = f"cli-{uuid.uuid4().hex}"
    assert run("queue", "create", name, "--timeout", "90s", "--priority", "7")[0] == 0
    code, out, _ = run(
        "queue", "update", name, "--max-retries", "5", "--default", "timeout", "--json"
    )
    changed = json.loads(out)
    assert (code, changed["settings"]["max_retries"]) == (0, 5)
    assert (changed["settings"]["timeout_seconds"], changed["priority"]) == (None, 7)
    assert run("queue", "pause", name)[0] == 0
    code, _, err = run("job", "create", name, "t")
    assert (code, err.partition(": ")[2].partition(":")[0]) == (1, "QUEUE_PAUSED")
    assert run("queue", "resume", name)[0] == 0
    job = _create(run, name)
    code, _, err = run("queue", "delete", name)
    assert (code, err.partition(": ")[2].partition(":")[0]) == (1, "QUEUE_NOT_EMPTY")
    assert run("job", "cancel", job["id"])[1] == f"Cancelled the job {job['id']}.\n"
    assert run("queue", "delete", name)[0] == 0
    assert run("queue", "show", name)[0] == 1


def test_the_life_of_a_waiting_job(run: Run, queue: str) -> None:
    first = _create(run, queue, "--label", "tenant=a", "--request-id", f"once-{queue}")
    again = _create(run, queue, "--label", "tenant=a", "--request-id", f"once-{queue}")
    assert first["id"] == again["id"]
    later = _create(run, queue, "--delay", "1h", "--payload", '{"n":  1.50}', "--max-attempts", "1")
    assert (later["status"], later["max_attempts"]) == ("SCHEDULED", 1)

    def listed(*arguments: str) -> list[str]:
        out = run("job", "list", "--queue", queue, "--json", *arguments)[1]
        return [job["id"] for job in json.loads(out)["jobs"]]

    assert listed() == [later["id"], first["id"]]
    assert listed("--page-size", "1") == [later["id"], first["id"]]
    assert listed("--status", "scheduled") == [later["id"]]
    assert listed("--label", "tenant=a") == [first["id"]]
    assert listed("--type", "other") == []
    assert listed("--scheduled-from", "2000-01-01") == [later["id"]]
    assert listed("--created-to", "2000-01-01") == []
    assert '{"n":  1.50}' in run("job", "show", later["id"])[1]
    stats = json.loads(run("job", "stats", "--queue", queue, "--json")[1])
    assert (stats["total"], stats["counts"]["pending"], stats["counts"]["scheduled"]) == (2, 1, 1)
    assert json.loads(run("queue", "stats", queue, "--json")[1])["counts"] == stats["counts"]
    code, _, err = run("job", "retry", first["id"])
    assert (code, err.partition(": ")[2].partition(":")[0]) == (1, "JOB_NOT_FAILED")
    cancelled = json.loads(run("job", "cancel", first["id"], "--json")[1])
    assert cancelled["status"] == "CANCELLED"


@pytest.mark.parametrize(("verbosity", "is_alone"), [("", True), ("ERROR", False)])
def test_no_line_of_grpcs_own_precedes_the_error_unless_they_are_asked_for(
    verbosity: str, is_alone: bool
) -> None:
    variables = environment({"GRPC_VERBOSITY": verbosity})
    if not verbosity:
        del variables["GRPC_VERBOSITY"]
    refused = subprocess.run(
        # An address that gRPC complains of by itself.
        command_line("queue", "list", "--queue-address", "ipv4:x"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=variables,
        check=False,
    )
    assert refused.stderr.splitlines()[-1].startswith("error: ")
    assert (refused.stderr.count("\n") == 1) is is_alone


def test_a_pipe_that_closes_early_is_no_error_of_ours(dev: DevSystem, queue: str) -> None:
    with dev.client() as client:
        client.create_jobs(NewJob(queue, "t", {"n": n}) for n in range(500))
    with subprocess.Popen(
        command_line("job", "list", "--queue", queue, "--limit", "500"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(dev.variables),
    ) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        assert listing.stdout.readline().startswith("ID ")
        listing.stdout.close()
        assert "Traceback" not in listing.stderr.read()
        listing.wait(PATIENCE)
