import json
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.cli.building import Taskforge, a_queue

from taskforge_sdk import JobCounts, QueueSettings, QueueStats


def test_create_sends_what_was_given_and_prints_the_id(client: Any, taskforge: Taskforge) -> None:
    client.create_queue.return_value = a_queue()
    outcome = taskforge(
        "queue", "create", "emails", "--priority", "3", "--description", "to people",
        "--max-retries", "0", "--timeout", "90s", "--retry-delay", "500ms",
        "--backoff-multiplier", "1.5", "--retry-jitter", "0", "--max-payload-bytes", "1024",
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
        "settings": {
            "max_retries": None,
            "timeout_seconds": 60.0,
            "retry_delay_seconds": None,
            "max_retry_delay_seconds": None,
            "backoff_multiplier": None,
            "retry_jitter": None,
            "max_payload_bytes": None,
        },
        "created_at": "2026-11-24T12:00:00.123456Z",
        "updated_at": "2026-11-24T12:00:00.123456Z",
    }


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
    ("verb", "method", "line"),
    [
        ("pause", "pause_queue", "Paused the queue emails.\n"),
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
