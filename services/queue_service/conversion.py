"""Rows of the table `queues` to messages, and settings back to columns.

A setting has the same name in the contract and in the table, and one that is not set is NULL. Only
`delay_by_priority` is a message of its own, and so takes several columns: one says whether it is
set, and the others hold its fields.
"""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from sqlalchemy import RowMapping

from taskforge.v1 import queue_pb2
from taskforge_core.counting import JobCounts

SETTINGS = tuple(field.name for field in queue_pb2.QueueSettings.DESCRIPTOR.fields)
"""The names of all settings, in the contract's order."""

_DELAYS = {
    field.name: f"delay_{field.name}" for field in queue_pb2.PriorityDelays.DESCRIPTOR.fields
}
"""The columns of the fields of `delay_by_priority`."""

SETTINGS_COLUMNS = frozenset(SETTINGS) - {"delay_by_priority"} | {
    "delays_by_priority",
    *_DELAYS.values(),
}
"""The columns of all settings."""


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
        accepts_jobs=row["accepts_jobs"],
    )
    queue.created_at.FromDatetime(row["created_at"])
    queue.updated_at.FromDatetime(row["updated_at"])
    if row["resume_at"] is not None:
        queue.resume_at.FromDatetime(row["resume_at"])
    return queue


def settings_message(row: RowMapping) -> queue_pb2.QueueSettings:
    """The settings of a row; what is NULL stays unset."""
    settings = queue_pb2.QueueSettings(
        **{
            name: _to_message(row[name])
            for name in SETTINGS
            if name != "delay_by_priority" and row[name] is not None
        }
    )
    if row["delays_by_priority"]:
        settings.delay_by_priority.CopyFrom(
            queue_pb2.PriorityDelays(
                **{
                    name: duration_message(row[column])
                    for name, column in _DELAYS.items()
                    if row[column] is not None
                }
            )
        )
    return settings


def settings_columns(
    settings: queue_pb2.QueueSettings, names: Iterable[str] = SETTINGS
) -> dict[str, Any]:
    """The columns for the named settings; None for what is not set.

    Postgres keeps durations to the microsecond: what is finer is cut off.
    """
    columns: dict[str, Any] = {}
    for name in names:
        if name == "delay_by_priority":
            columns |= _delay_columns(settings)
        elif name == "dead_letter_queue_id":
            named = settings.dead_letter_queue_id
            columns[name] = UUID(named) if named else None
        else:
            is_set = settings.HasField(name)  # type: ignore[arg-type]
            columns[name] = _to_column(getattr(settings, name)) if is_set else None
    return columns


def counts_message(counts: JobCounts) -> queue_pb2.JobCounts:
    """The counts of a queue."""
    return queue_pb2.JobCounts(**asdict(counts))


def duration_message(duration: timedelta) -> Duration:
    """A duration of the database."""
    message = Duration()
    message.FromTimedelta(duration)
    return message


def _delay_columns(settings: queue_pb2.QueueSettings) -> dict[str, Any]:
    delays = settings.delay_by_priority
    return {"delays_by_priority": settings.HasField("delay_by_priority")} | {
        column: getattr(delays, name).ToTimedelta() if delays.HasField(name) else None  # type: ignore[arg-type]
        for name, column in _DELAYS.items()
    }


def _to_message(value: Any) -> Any:
    if isinstance(value, timedelta):
        return duration_message(value)
    return str(value) if isinstance(value, UUID) else value


def _to_column(value: Any) -> Any:
    return value.ToTimedelta() if isinstance(value, Duration) else value
