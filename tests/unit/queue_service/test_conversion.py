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
    counts_message,
    queue_message,
    settings_columns,
    settings_message,
)
from taskforge.v1 import queue_pb2
from taskforge_core.counting import JobCounts
from taskforge_core.tables import queues

VALUES: dict[str, Any] = {
    "max_retries": 0,
    "timeout": timedelta(seconds=1),
    "retry_delay": timedelta(0),
    "max_retry_delay": timedelta(days=7),
    "backoff_multiplier": 1.0,
    "retry_jitter": 0.0,
    "max_payload_bytes": 1,
}


def row(**columns: Any) -> RowMapping:
    values: dict[str, Any] = dict.fromkeys(SETTINGS)
    return cast("RowMapping", values | columns)


def test_each_setting_of_the_contract_has_a_column_of_its_name() -> None:
    assert set(SETTINGS) == VALUES.keys()
    assert set(SETTINGS) <= set(queues.columns.keys())
    assert all(queues.c[name].nullable for name in SETTINGS)


@pytest.mark.parametrize("chosen", list(product([False, True], repeat=len(SETTINGS))))
def test_every_combination_of_settings_survives(chosen: tuple[bool, ...]) -> None:
    columns = {
        name: VALUES[name] if is_set else None
        for name, is_set in zip(SETTINGS, chosen, strict=True)
    }
    message = settings_message(row(**columns))
    # A setting that is given is set even where its value is zero.
    assert [message.HasField(name) for name in SETTINGS] == list(chosen)  # type: ignore[arg-type]
    assert settings_columns(message) == columns


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
    message = queue_message(
        row(
            project_id=project_id,
            id=queue_id,
            name="emails",
            description="for all",
            priority=9,
            is_active=True,
            created_at=created,
            updated_at=created + timedelta(microseconds=1),
            deleted_at=None,
            **VALUES,
        )
    )
    assert all(message.HasField(name) for name in ("settings", "created_at", "updated_at"))
    assert (message.id, message.project_id) == (str(queue_id), str(project_id))
    assert (message.name, message.description, message.priority) == ("emails", "for all", 9)
    assert message.is_active
    assert message.created_at.ToDatetime(UTC) == created
    assert message.updated_at.ToDatetime(UTC) == created + timedelta(microseconds=1)
    assert settings_columns(message.settings) == VALUES
    assert {field.name for field, _ in message.ListFields()} == {
        field.name for field in queue_pb2.Queue.DESCRIPTOR.fields
    }


def test_counts_go_to_the_fields_of_their_names() -> None:
    counts = JobCounts(1, 2, 3, 4, 5, 6)
    assert counts_message(counts) == queue_pb2.JobCounts(
        pending=1, scheduled=2, processing=3, succeeded=4, failed=5, cancelled=6
    )
    assert counts.total == 21
