"""Settings to columns and back, rows to messages."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, cast
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import RowMapping

from queue_service.conversion import (
    SETTINGS,
    SETTINGS_COLUMNS,
    counts_message,
    queue_message,
    settings_columns,
    settings_message,
)
from taskforge.v1 import queue_pb2
from taskforge_core.counting import JobCounts
from taskforge_core.tables import queues

VALUES: dict[str, dict[str, Any]] = {
    "max_retries": {"max_retries": 0},
    "timeout": {"timeout": timedelta(seconds=1)},
    "retry_delay": {"retry_delay": timedelta(0)},
    "max_retry_delay": {"max_retry_delay": timedelta(days=7)},
    "backoff_multiplier": {"backoff_multiplier": 1.0},
    "retry_jitter": {"retry_jitter": 0.0},
    "max_payload_bytes": {"max_payload_bytes": 1},
    "max_concurrent_jobs": {"max_concurrent_jobs": 1},
    "rate_limit_per_minute": {"rate_limit_per_minute": 1_000_000},
    "dead_letter_queue_id": {"dead_letter_queue_id": UUID(int=3)},
    "delay_by_priority": {
        "delays_by_priority": True,
        "delay_low": timedelta(hours=1),
        "delay_medium": timedelta(0),
        "delay_high": timedelta(microseconds=1),
        "delay_urgent": timedelta(seconds=2),
    },
}
"""A value of each setting, as its columns hold it."""

UNSET = dict.fromkeys(column for columns in VALUES.values() for column in columns) | {
    "delays_by_priority": False
}


def row(**columns: Any) -> RowMapping:
    values: dict[str, Any] = {**UNSET, "resume_at": None}
    return cast("RowMapping", values | columns)


def is_set(message: queue_pb2.QueueSettings, name: str) -> bool:
    return name in {field.name for field, _ in message.ListFields()}


def test_each_setting_of_the_contract_has_columns_of_its_own() -> None:
    assert set(SETTINGS) == VALUES.keys()
    assert UNSET.keys() == SETTINGS_COLUMNS
    assert set(queues.columns.keys()) >= SETTINGS_COLUMNS
    for name, value in UNSET.items():
        assert queues.c[name].nullable == (value is None)
    for name in SETTINGS:
        assert set(settings_columns(queue_pb2.QueueSettings(), [name])) == VALUES[name].keys()


def test_every_combination_of_settings_survives() -> None:
    for chosen in product([False, True], repeat=len(SETTINGS)):
        columns = dict(UNSET)
        for name, wanted in zip(SETTINGS, chosen, strict=True):
            if wanted:
                columns |= VALUES[name]
        message = settings_message(row(**columns))
        # A setting that is given is set even where its value is zero.
        assert [is_set(message, name) for name in SETTINGS] == list(chosen)
        assert settings_columns(message) == columns


@pytest.mark.parametrize("given_delays", list(product([False, True], repeat=4)))
def test_each_delay_is_set_or_not_by_itself(given_delays: tuple[bool, ...]) -> None:
    names = ("delay_low", "delay_medium", "delay_high", "delay_urgent")
    delays = {
        name: timedelta(0) if is_given else None
        for name, is_given in zip(names, given_delays, strict=True)
    }
    columns = UNSET | {"delays_by_priority": True} | delays
    message = settings_message(row(**columns))
    # Also without any of them: the delays that the contract states.
    assert message.HasField("delay_by_priority")
    assert settings_columns(message) == columns


DELAYS = st.timedeltas(timedelta(0), timedelta(hours=1))


@given(
    st.builds(
        dict,
        max_retries=st.integers(0, 99),
        timeout=st.timedeltas(timedelta(seconds=1), timedelta(days=7)),
        retry_delay=st.timedeltas(timedelta(0), timedelta(days=7)),
        max_retry_delay=st.timedeltas(timedelta(0), timedelta(days=7)),
        backoff_multiplier=st.floats(1, 100),
        retry_jitter=st.floats(0, 1),
        max_payload_bytes=st.integers(1, 1_048_576),
        max_concurrent_jobs=st.integers(1, 100_000),
        rate_limit_per_minute=st.integers(1, 1_000_000),
        dead_letter_queue_id=st.uuids(),
        delays_by_priority=st.just(True),
        delay_low=DELAYS,
        delay_medium=DELAYS,
        delay_high=DELAYS,
        delay_urgent=DELAYS,
    )
)
def test_every_value_within_the_limits_survives(columns: dict[str, Any]) -> None:
    assert settings_columns(settings_message(row(**columns))) == columns


def test_nanoseconds_are_cut_off() -> None:
    settings = queue_pb2.QueueSettings(timeout=Duration(seconds=1, nanos=1_999))
    assert settings_columns(settings, ["timeout"]) == {
        "timeout": timedelta(seconds=1, microseconds=1)
    }


def test_a_row_becomes_the_whole_message() -> None:
    project_id, queue_id = UUID(int=1), UUID(int=2)
    created = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    given_settings = {name: value for each in VALUES.values() for name, value in each.items()}
    message = queue_message(
        row(
            project_id=project_id,
            id=queue_id,
            name="emails",
            description="for all",
            priority=9,
            is_active=True,
            accepts_jobs=True,
            resume_at=created + timedelta(hours=1),
            created_at=created,
            updated_at=created + timedelta(microseconds=1),
            deleted_at=None,
            **given_settings,
        )
    )
    assert all(message.HasField(name) for name in ("settings", "created_at", "resume_at"))
    assert (message.id, message.project_id) == (str(queue_id), str(project_id))
    assert (message.name, message.description, message.priority) == ("emails", "for all", 9)
    assert message.is_active
    assert message.created_at.ToDatetime(UTC) == created
    assert message.updated_at.ToDatetime(UTC) == created + timedelta(microseconds=1)
    assert message.resume_at.ToDatetime(UTC) == created + timedelta(hours=1)
    assert settings_columns(message.settings) == given_settings
    assert {field.name for field, _ in message.ListFields()} == {
        field.name for field in queue_pb2.Queue.DESCRIPTOR.fields
    }


def test_counts_go_to_the_fields_of_their_names() -> None:
    counts = JobCounts(1, 2, 3, 4, 5, 6)
    assert counts_message(counts) == queue_pb2.JobCounts(
        pending=1, scheduled=2, processing=3, succeeded=4, failed=5, cancelled=6
    )
    assert counts.total == 21
