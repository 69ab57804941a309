import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.building import NOON, Taskforge, a_job

from taskforge_sdk import (
    AttemptOutcome,
    FailedAttempt,
    JobCounts,
    JobOrigin,
    JobStats,
    JobStatus,
    JsonText,
)


def test_create_sends_what_was_given_and_prints_the_id(client: Any, taskforge: Taskforge) -> None:
    client.create_job.return_value = a_job()
    outcome = taskforge(
        "job", "create", "emails", "send-email", "--payload", '{"to": "ann@example.org"}',
        "--priority", "9", "--label", "tenant=a=b", "--label", "kind=", "--max-attempts", "5",
        "--timeout", "2m", "--request-id", "order-7", "--at", "2026-12-31T18:00:00+01:00",
    )  # fmt: skip
    assert outcome.code == 0
    assert outcome.out == "Created the job 0192a000-0000-7000-8000-00000000000a (PENDING).\n"
    client.create_job.assert_called_once_with(
        "emails",
        "send-email",
        JsonText('{"to": "ann@example.org"}'),
        priority=9,
        max_attempts=5,
        scheduled_for=datetime(2026, 12, 31, 17, tzinfo=UTC),
        timeout=timedelta(minutes=2),
        labels={"tenant": "a=b", "kind": ""},
        request_id="order-7",
    )


def test_a_delay_becomes_a_time(client: Any, taskforge: Taskforge) -> None:
    client.create_job.return_value = a_job(status=JobStatus.SCHEDULED)
    before = datetime.now(UTC)
    taskforge("job", "create", "emails", "send-email", "--delay", "1h")
    scheduled_for = client.create_job.call_args.kwargs["scheduled_for"]
    assert before <= scheduled_for - timedelta(hours=1) <= datetime.now(UTC)


def test_a_payload_comes_from_a_file_or_standard_input_as_it_stands(
    client: Any, taskforge: Taskforge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create_job.return_value = a_job()
    text = '{"big": 12345678901234567890.10, "big": "twice"}\n'
    (tmp_path / "payload.json").write_text(text)
    taskforge("job", "create", "emails", "t", "--payload", f"@{tmp_path}/payload.json")
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    taskforge("job", "create", "emails", "t", "--payload", "-")
    assert [call.args[2] for call in client.create_job.call_args_list] == [text, text]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--payload", "{to: ann}"), "--payload is no valid JSON: Expecting property name"),
        (("--payload", ""), "--payload is no valid JSON"),
        (("--payload", '{"x": NaN}'), "NaN is no JSON value"),
        (("--payload", "@nowhere.json"), "cannot read nowhere.json: No such file"),
        (("--label", "tenant"), "'tenant' is no label: write it as key=value"),
        (("--label", "a=1", "--label", "a=2"), "the key 'a' comes twice"),
        (("--delay", "soon"), "'soon' is no duration"),
        (("--delay", "99999999999d"), "'99999999999d' is no duration"),
        (("--delay", "999999999d"), "--delay is too long"),
        (("--at", "tomorrow"), "'tomorrow' is no time"),
        (("--delay", "1s", "--at", "2030-01-01"), "--delay and --at exclude each other"),
        (("--timeout", "1x"), "'1x' is no duration"),
        (("--priority", "high"), "'--priority'"),
        (("--colour", "red"), "No such option: --colour"),
    ],
)
def test_a_wrong_option_is_one_line_and_sends_nothing(
    client: Any, taskforge: Taskforge, arguments: tuple[str, ...], words: str
) -> None:
    outcome = taskforge("job", "create", "emails", "send-email", *arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith("error: ")
    assert words in outcome.err
    client.create_job.assert_not_called()


def test_a_payload_nested_too_deep_for_the_parser_is_left_to_the_server(
    client: Any, taskforge: Taskforge
) -> None:
    client.create_job.return_value = a_job()
    payload = "[" * 100_000 + "]" * 100_000
    assert taskforge("job", "create", "emails", "t", "--payload", payload).code == 0
    assert client.create_job.call_args.args[2] == payload


def _a_retried_job() -> Any:
    first = FailedAttempt(
        1, "host:1", NOON, NOON + timedelta(seconds=3), AttemptOutcome.LEASE_EXPIRED, "gone", ""
    )
    second = FailedAttempt(
        2,
        "host:2",
        NOON + timedelta(seconds=4),
        NOON + timedelta(seconds=4.25),
        AttemptOutcome.FAILURE,
        "no route [red]to host",
        '{"errno": 113}',
    )
    return a_job(
        status=JobStatus.SUCCEEDED,
        attempt_count=3,
        started_at=NOON + timedelta(seconds=9),
        completed_at=NOON + timedelta(seconds=9.5),
        worker_id="host:3",
        result_json='{"sent": 1.0e400}',
        labels={"tenant": "a"},
        attempts=(first, second),
    )


def test_show_prints_the_history_with_the_attempt_that_succeeded(
    client: Any, taskforge: Taskforge
) -> None:
    client.get_job.return_value = _a_retried_job()
    out = taskforge("job", "show", "0192a000-0000-7000-8000-00000000000a").out
    pairs, _, history = out.partition("ATTEMPT")
    assert '"to": "ann@example.org"' in pairs
    assert '"sent": 1.0e400' in pairs
    assert "tenant=a" in pairs
    rows = [line.split() for line in history.splitlines()[1:]]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert {"3", "s", "host:1", "LEASE_EXPIRED", "gone"} <= set(rows[0])
    assert {"250", "ms", "host:2", "FAILURE", "[red]to", "host"} <= set(rows[1])
    assert {"500", "ms", "host:3", "SUCCEEDED"} <= set(rows[2])


def test_the_json_of_a_job_has_every_key_and_its_documents_as_they_were_sent(
    client: Any, taskforge: Taskforge
) -> None:
    client.get_job.return_value = _a_retried_job()
    out = taskforge("job", "show", "0192a000-0000-7000-8000-00000000000a", "--json").out
    assert '"result": {"sent": 1.0e400}' in out
    document = json.loads(out)
    assert document["status"] == "SUCCEEDED"
    assert document["payload"] == {"to": "ann@example.org"}
    assert document["completed_at"] == "2026-11-24T12:00:09.623456Z"
    assert document["progress"] is None
    assert document["attempts"][1] == {
        "number": 2,
        "worker_id": "host:2",
        "started_at": "2026-11-24T12:00:04.123456Z",
        "ended_at": "2026-11-24T12:00:04.373456Z",
        "outcome": "FAILURE",
        "message": "no route [red]to host",
        "detail": {"errno": 113},
    }
    assert set(document) == {
        "id", "queue_id", "project_id", "job_type", "payload", "status", "priority",
        "max_attempts", "attempt_count", "scheduled_for", "timeout_seconds", "timeout_at",
        "created_at", "updated_at", "started_at", "completed_at", "cancel_requested_at",
        "worker_id", "progress", "result", "attempts", "labels", "traceparent", "tracestate",
        "origin", "dead_letter_job_id",
    }  # fmt: skip


def test_show_tells_where_a_job_comes_from_and_what_was_made_for_it(
    client: Any, taskforge: Taskforge
) -> None:
    client.get_job.return_value = a_job(
        origin=JobOrigin("first-job", "first-queue", NOON), dead_letter_job_id="next-job"
    )
    words = [line.split() for line in taskforge("job", "show", "some-id").out.splitlines()]
    origin = "job first-job of queue first-queue, failed 2026-11-24 12:00:00.123 UTC"
    assert ["Origin", *origin.split()] in words
    assert ["Dead-letter", "job", "next-job"] in words
    document = json.loads(taskforge("job", "show", "some-id", "--json").out)
    assert document["origin"] == {
        "job_id": "first-job",
        "queue_id": "first-queue",
        "failed_at": "2026-11-24T12:00:00.123456Z",
    }
    assert document["dead_letter_job_id"] == "next-job"
    client.get_job.return_value = a_job()
    document = json.loads(taskforge("job", "show", "some-id", "--json").out)
    assert (document["origin"], document["dead_letter_job_id"]) == (None, None)


def test_a_list_hands_its_filters_on(client: Any, taskforge: Taskforge) -> None:
    client.list_jobs.return_value = iter([a_job()])
    outcome = taskforge(
        "job", "list", "--queue", "emails", "--status", "FAILED", "--type", "send-email",
        "--label", "tenant=a", "--created-from", "2026-11-24T12:00:00Z", "--page-size", "7",
    )  # fmt: skip
    assert outcome.out.splitlines()[1].split()[:5] == [
        "0192a000-0000-7000-8000-00000000000a", "send-email", "PENDING", "0", "0/3",
    ]  # fmt: skip
    client.list_jobs.assert_called_once_with(
        queue="emails",
        status=JobStatus.FAILED,
        job_type="send-email",
        labels={"tenant": "a"},
        scheduled_from=None,
        scheduled_to=None,
        created_from=datetime(2026, 11, 24, 12, tzinfo=UTC),
        created_to=None,
        page_size=7,
    )


def test_a_list_says_when_there_are_more(client: Any, taskforge: Taskforge) -> None:
    client.list_jobs.side_effect = lambda **_: iter([a_job() for _ in range(3)])
    assert "--limit shows more" in taskforge("job", "list", "--limit", "2").out
    assert "--limit shows more" not in taskforge("job", "list", "--limit", "3").out
    jobs = json.loads(taskforge("job", "list", "--limit", "2", "--json").out)["jobs"]
    assert len(jobs) == 2


def test_cancel_tells_whether_the_job_still_runs(client: Any, taskforge: Taskforge) -> None:
    client.cancel_job.return_value = a_job(status=JobStatus.CANCELLED)
    job_id = "0192a000-0000-7000-8000-00000000000a"
    assert taskforge("job", "cancel", job_id).out == f"Cancelled the job {job_id}.\n"
    client.cancel_job.return_value = a_job(status=JobStatus.PROCESSING)
    outcome = taskforge("job", "cancel", job_id, "--interrupt-running")
    assert outcome.out == f"Asked the worker of {job_id} to stop.\n"
    client.cancel_job.assert_called_with(job_id, interrupt_running=True)


def test_retry_can_add_attempts(client: Any, taskforge: Taskforge) -> None:
    client.retry_job.return_value = a_job()
    outcome = taskforge("job", "retry", "some-id", "--additional-attempts", "2")
    assert outcome.out.endswith("is PENDING again.\n")
    client.retry_job.assert_called_once_with("some-id", additional_attempts=2)


def test_stats_of_the_project_have_no_queue(client: Any, taskforge: Taskforge) -> None:
    client.job_stats.return_value = JobStats("", 3, JobCounts(pending=3))
    document = json.loads(taskforge("job", "stats", "--json").out)
    assert (document["queue_id"], document["total"]) == (None, 3)
    client.job_stats.assert_called_once_with(None)
    assert "the project" in taskforge("job", "stats").out
