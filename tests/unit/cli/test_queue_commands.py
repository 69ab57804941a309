import json
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import call

import grpc
import pytest
from tests.unit.cli.building import NOON, Taskforge, a_queue

from taskforge_sdk import JobCounts, NotFound, PriorityDelays, QueueSettings, QueueStats

DEAD = "0192a000-0000-7000-8000-00000000dead"


def test_create_sends_what_was_given_and_prints_the_id(client: Any, taskforge: Taskforge) -> None:
    client.create_queue.return_value = a_queue()
    outcome = taskforge(
        "queue", "create", "emails", "--priority", "3", "--description", "to people",
        "--max-retries", "0", "--timeout", "90s", "--retry-delay", "500ms",
        "--backoff-multiplier", "1.5", "--retry-jitter", "0", "--max-payload-bytes", "1024",
        "--max-concurrent-jobs", "5", "--rate-limit-per-minute", "600",
        "--delay-by-priority", "low=1m, urgent=0",
    )  # fmt: skip
    assert outcome.code == 0
    assert outcome.out == ("Created the queue emails (0192a000-0000-7000-8000-000000000001).\n")
    client.create_queue.assert_called_once_with(
        "emails",
        description="to people",
        priority=3,
        settings=QueueSettings(
            max_retries=0,
            timeout=timedelta(seconds=90),
            retry_delay=timedelta(milliseconds=500),
            backoff_multiplier=1.5,
            retry_jitter=0,
            max_payload_bytes=1024,
            max_concurrent_jobs=5,
            rate_limit_per_minute=600,
            delay_by_priority=PriorityDelays(low=timedelta(minutes=1), urgent=timedelta(0)),
        ),
    )


def test_the_json_of_a_queue_has_every_key(client: Any, taskforge: Taskforge) -> None:
    client.get_queue.return_value = a_queue(settings=QueueSettings(timeout=timedelta(minutes=1)))
    outcome = taskforge("queue", "show", "emails", "--json")
    assert json.loads(outcome.out) == {
        "id": "0192a000-0000-7000-8000-000000000001",
        "project_id": "00000000-0000-7000-8000-000000000002",
        "name": "emails",
        "description": "",
        "priority": 3,
        "is_active": True,
        "accepts_jobs": True,
        "resume_at": None,
        "settings": {
            "max_retries": None,
            "timeout_seconds": 60.0,
            "retry_delay_seconds": None,
            "max_retry_delay_seconds": None,
            "backoff_multiplier": None,
            "retry_jitter": None,
            "max_payload_bytes": None,
            "max_concurrent_jobs": None,
            "rate_limit_per_minute": None,
            "dead_letter_queue_id": None,
            "delay_by_priority": None,
        },
        "created_at": "2026-11-24T12:00:00.123456Z",
        "updated_at": "2026-11-24T12:00:00.123456Z",
    }


def test_a_dead_letter_queue_is_named_and_sent_by_its_id(client: Any, taskforge: Taskforge) -> None:
    client.get_queue.return_value = a_queue(id=DEAD, name="dead")
    client.create_queue.return_value = client.update_queue.return_value = a_queue()
    taskforge("queue", "create", "emails", "--dead-letter-queue", "dead")
    assert client.create_queue.call_args.kwargs["settings"] == QueueSettings(
        dead_letter_queue_id=DEAD
    )
    taskforge("queue", "update", "emails", "--dead-letter-queue", "dead")
    client.update_queue.assert_called_once_with("emails", settings={"dead_letter_queue_id": DEAD})
    assert client.get_queue.mock_calls == [call("dead"), call("dead")]


def test_a_dead_letter_queue_that_is_not_there_changes_nothing(
    client: Any, taskforge: Taskforge
) -> None:
    client.get_queue.side_effect = NotFound(
        "there is no queue daed", code=grpc.StatusCode.NOT_FOUND, reason="QUEUE_NOT_FOUND"
    )
    for command in (("create", "emails"), ("update", "emails", "--priority", "1")):
        outcome = taskforge("queue", *command, "--dead-letter-queue", "daed")
        assert outcome.err == "error: QUEUE_NOT_FOUND: there is no queue daed\n"
        assert (outcome.code, outcome.out) == (1, "")
    client.create_queue.assert_not_called()
    client.update_queue.assert_not_called()


def test_show_prints_limits_delays_and_the_dead_letter_queue_by_its_name(
    client: Any, taskforge: Taskforge
) -> None:
    settings = QueueSettings(
        max_concurrent_jobs=1000,
        dead_letter_queue_id=DEAD,
        delay_by_priority=PriorityDelays(high=timedelta(minutes=2)),
    )
    queues = {"emails": a_queue(settings=settings), DEAD: a_queue(id=DEAD, name="dead")}
    client.get_queue.side_effect = queues.__getitem__
    words = [line.split() for line in taskforge("queue", "show", "emails").out.splitlines()]
    assert ["Max", "concurrent", "jobs", "1,000"] in words
    assert ["Rate", "limit", "per", "minute", "(no", "limit)"] in words
    assert ["Dead-letter", "queue", "dead", f"({DEAD})"] in words
    delays = "low (30 s), medium (10 s), high 2 min, urgent (0 ms)"
    assert ["Delay", "by", "priority", *delays.split()] in words
    document = json.loads(taskforge("queue", "show", "emails", "--json").out)["settings"]
    assert document["dead_letter_queue_id"] == DEAD
    assert document["delay_by_priority"] == {
        "low_seconds": None,
        "medium_seconds": None,
        "high_seconds": 120.0,
        "urgent_seconds": None,
    }


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "active"),
        ({"is_active": False}, "paused"),
        ({"is_active": False, "accepts_jobs": True}, "paused, takes new jobs"),
    ],
)
def test_the_state_tells_whether_new_jobs_are_taken(
    client: Any, taskforge: Taskforge, changes: dict[str, bool], state: str
) -> None:
    client.get_queue.return_value = a_queue(**changes)
    client.list_queues.return_value = iter([a_queue(**changes)])
    assert ["State", *state.split()] in [
        line.split() for line in taskforge("queue", "show", "emails").out.splitlines()
    ]
    assert f" {state} " in taskforge("queue", "list").out


def test_show_says_when_a_paused_queue_resumes(client: Any, taskforge: Taskforge) -> None:
    client.get_queue.return_value = a_queue(is_active=False, resume_at=NOON)
    words = [line.split() for line in taskforge("queue", "show", "emails").out.splitlines()]
    assert ["Resumes", "2026-11-24", "12:00:00.123", "UTC"] in words
    document = json.loads(taskforge("queue", "show", "emails", "--json").out)
    assert (document["accepts_jobs"], document["resume_at"]) == (
        False,
        "2026-11-24T12:00:00.123456Z",
    )


def test_show_names_the_defaults_in_brackets(client: Any, taskforge: Taskforge) -> None:
    client.get_queue.return_value = a_queue(
        is_active=False, settings=QueueSettings(timeout=timedelta(minutes=90))
    )
    lines = taskforge("queue", "show", "emails").out.splitlines()
    words = [line.split() for line in lines]
    assert ["State", "paused"] in words
    assert ["Timeout", "1", "h", "30", "min"] in words
    assert ["Max", "retries", "(2)"] in words


def test_a_list_is_cut_at_the_limit_and_fetches_no_larger_pages(
    client: Any, taskforge: Taskforge
) -> None:
    client.list_queues.return_value = iter([a_queue(name=f"queue-{n}") for n in range(5)])
    outcome = taskforge("queue", "list", "--limit", "2", "--json")
    assert [queue["name"] for queue in json.loads(outcome.out)["queues"]] == ["queue-0", "queue-1"]
    client.list_queues.assert_called_once_with(page_size=2)


def test_a_long_description_is_not_cut_in_a_pipe(client: Any, taskforge: Taskforge) -> None:
    client.list_queues.return_value = iter([a_queue(description="word " * 100 + "end")])
    outcome = taskforge("queue", "list")
    assert "word " * 100 + "end" in outcome.out


def test_an_empty_list_says_so(client: Any, taskforge: Taskforge) -> None:
    client.list_queues.return_value = iter([])
    assert taskforge("queue", "list").out == "There is no queue.\n"


def test_update_changes_only_what_is_given(client: Any, taskforge: Taskforge) -> None:
    client.update_queue.return_value = a_queue()
    outcome = taskforge(
        "queue",
        "update",
        "emails",
        "--priority",
        "0",
        "--timeout",
        "5m",
        "--default",
        "max-retries",
    )
    assert outcome.code == 0
    client.update_queue.assert_called_once_with(
        "emails", priority=0, settings={"timeout": timedelta(minutes=5), "max_retries": None}
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "there is nothing to change"),
        (("--max-retries", "1", "--default", "max-retries"), "exclude each other"),
        (("--default", "colour"), "is not one of"),
        (("--dead-letter-queue", "dead", "--default", "dead-letter-queue"), "exclude each other"),
        (("--delay-by-priority", "lowest=3s"), "'lowest=3s' names no delays"),
        (("--delay-by-priority", "low=3s,low=4s"), "names no delays"),
        (("--delay-by-priority", "low"), "is no duration"),
        (("--delay-by-priority", ""), "names no delays"),
    ],
)
def test_an_update_that_makes_no_sense_is_a_usage_error(
    client: Any, taskforge: Taskforge, arguments: tuple[str, ...], words: str
) -> None:
    outcome = taskforge("queue", "update", "emails", *arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert words in outcome.err
    client.update_queue.assert_not_called()


@pytest.mark.parametrize(
    ("setting", "field"),
    [("dead-letter-queue", "dead_letter_queue_id"), ("delay-by-priority", "delay_by_priority")],
)
def test_a_setting_goes_back_under_its_name_in_the_contract(
    client: Any, taskforge: Taskforge, setting: str, field: str
) -> None:
    client.update_queue.return_value = a_queue()
    assert taskforge("queue", "update", "emails", "--default", setting).code == 0
    client.update_queue.assert_called_once_with("emails", settings={field: None})
    client.get_queue.assert_not_called()


def test_delays_can_be_those_of_the_contract(client: Any, taskforge: Taskforge) -> None:
    client.update_queue.return_value = a_queue()
    taskforge("queue", "update", "emails", "--delay-by-priority", "on")
    client.update_queue.assert_called_once_with(
        "emails", settings={"delay_by_priority": PriorityDelays()}
    )


def test_a_pause_is_as_it_was_asked_for(client: Any, taskforge: Taskforge) -> None:
    client.pause_queue.return_value = a_queue(is_active=False)
    assert taskforge("queue", "pause", "emails").out == "Paused the queue emails.\n"
    client.pause_queue.assert_called_once_with("emails", keep_accepting=False, resume_at=None)

    client.pause_queue.return_value = a_queue(is_active=False, resume_at=NOON)
    outcome = taskforge(
        "queue", "pause", "emails", "--keep-accepting", "--resume-at", "2026-11-24T12:00:00Z"
    )
    assert outcome.out == "Paused the queue emails until 2026-11-24 12:00:00.123 UTC.\n"
    client.pause_queue.assert_called_with(
        "emails", keep_accepting=True, resume_at=datetime(2026, 11, 24, 12, tzinfo=UTC)
    )

    before = datetime.now(UTC)
    taskforge("queue", "pause", "emails", "--resume-after", "30m")
    resume_at = client.pause_queue.call_args.kwargs["resume_at"]
    assert before <= resume_at - timedelta(minutes=30) <= datetime.now(UTC)


def test_a_pause_that_is_over_at_once_says_so(client: Any, taskforge: Taskforge) -> None:
    client.pause_queue.return_value = a_queue()
    outcome = taskforge("queue", "pause", "emails", "--resume-at", "2020-01-01")
    assert (outcome.code, outcome.out) == (
        0,
        "The queue emails is open: the time to resume has passed.\n",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--resume-at", "2030-01-01", "--resume-after", "1h"), "exclude each other"),
        (("--resume-after", "999999999d"), "--resume-after is too long"),
        (("--resume-at", "tomorrow"), "'tomorrow' is no time"),
    ],
)
def test_a_pause_that_makes_no_sense_is_a_usage_error(
    client: Any, taskforge: Taskforge, arguments: tuple[str, ...], words: str
) -> None:
    outcome = taskforge("queue", "pause", "emails", *arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert words in outcome.err
    client.pause_queue.assert_not_called()


@pytest.mark.parametrize(
    ("verb", "method", "line"),
    [
        ("resume", "resume_queue", "Resumed the queue emails.\n"),
        ("delete", "delete_queue", "Deleted the queue emails.\n"),
    ],
)
def test_a_verb_calls_its_method(
    client: Any, taskforge: Taskforge, verb: str, method: str, line: str
) -> None:
    getattr(client, method).return_value = a_queue()
    assert taskforge("queue", verb, "emails").out == line
    getattr(client, method).assert_called_once_with("emails")


def test_delete_prints_json_too(client: Any, taskforge: Taskforge) -> None:
    outcome = taskforge("queue", "delete", "emails", "--json")
    assert json.loads(outcome.out) == {"deleted": "emails"}


def test_stats_count_every_status(client: Any, taskforge: Taskforge) -> None:
    client.queue_stats.return_value = QueueStats(
        "0192a000-0000-7000-8000-000000000001",
        is_active=True,
        counts=JobCounts(
            pending=1, scheduled=2, processing=3, succeeded=4000, failed=5, cancelled=6
        ),
        oldest_ready_age=timedelta(seconds=12.5),
    )
    assert json.loads(taskforge("queue", "stats", "emails", "--json").out) == {
        "queue_id": "0192a000-0000-7000-8000-000000000001",
        "is_active": True,
        "total": 4017,
        "counts": {
            "pending": 1,
            "scheduled": 2,
            "processing": 3,
            "succeeded": 4000,
            "failed": 5,
            "cancelled": 6,
        },
        "oldest_ready_age_seconds": 12.5,
    }
    words = [line.split() for line in taskforge("queue", "stats", "emails").out.splitlines()]
    assert ["Succeeded", "4,000"] in words
    assert ["Total", "4,017"] in words
    assert ["Oldest", "ready", "job", "waits", "12.5", "s"] in words
