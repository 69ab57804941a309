"""Rows of the table `queues` to messages, and settings back to columns.

A setting has the same name in the contract and in the table, and one that is not set is NULL.
"""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from sqlalchemy import RowMapping

from taskforge.v1 import queue_pb2
from taskforge_core.counting import JobCounts

SETTINGS = tuple(field.name for field in queue_pb2.QueueSettings.DESCRIPTOR.fields)
"""The names of all settings, in the contract's order."""


def queue_message(row: RowMapping) -> queue_pb2.Queue:
    """The queue of a row."""
    queue = queue_pb2.Queue(
        id=str(row["id"]),
        project_id=str(row["project_id"]),
        name=row["name"],
        description=row["description"],
        priority=row["priority"],
        settings=settings_message(row),
        is_active=row["is_active"],
    )
    queue.created_at.FromDatetime(row["created_at"])
    queue.updated_at.FromDatetime(row["updated_at"])
    return queue


def settings_message(row: RowMapping) -> queue_pb2.QueueSettings:
    """The settings of a row; what is NULL stays unset."""
    values = {name: row[name] for name in SETTINGS if row[name] is not None}
    return queue_pb2.QueueSettings(**{name: _to_message(value) for name, value in values.items()})


def settings_columns(
    settings: queue_pb2.QueueSettings, names: Iterable[str] = SETTINGS
) -> dict[str, Any]:
    """The columns for the named settings; None for what is not set.

    Postgres keeps durations to the microsecond: what is finer is cut off.
    """
    return {
        name: _to_column(getattr(settings, name)) if settings.HasField(name) else None  # type: ignore[arg-type]
        for name in names
    }


def counts_message(counts: JobCounts) -> queue_pb2.JobCounts:
    """The counts of a queue."""
    return queue_pb2.JobCounts(**asdict(counts))


def duration_message(duration: timedelta) -> Duration:
    """A duration of the database."""
    message = Duration()
    message.FromTimedelta(duration)
    return message


def _to_message(value: Any) -> Any:
    return duration_message(value) if isinstance(value, timedelta) else value


def _to_column(value: Any) -> Any:
    return value.ToTimedelta() if isinstance(value, Duration) else value
