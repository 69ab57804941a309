"""The statements of the scheduler: one a file, a function each.

The sweeps are the only statements of the system that look across projects.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from asyncpg import Record

from taskforge_core.granting import PARTITION_LOCK
from taskforge_core.queries import Executor, Statements

_statements = Statements(__name__)


# -- Leadership ---------------------------------------------------------------------------------


async def try_to_lead(executor: Executor, key: int) -> bool:
    """See `try_to_lead.sql`."""
    (row,) = await executor.fetch(_statements["try_to_lead"], key)
    return bool(row["is_leading"])


# -- Jobs and sessions --------------------------------------------------------------------------


async def promote_due_jobs(executor: Executor, limit: int) -> list[Record]:
    """See `promote_due_jobs.sql`. Returns `queue_id, n`: how many became ready in each queue."""
    return await executor.fetch(_statements["promote_due_jobs"], limit)


async def lock_overdue_leases(executor: Executor, limit: int) -> list[Record]:
    """See `lock_overdue_leases.sql`. Returns `project_id, id, lease_seq`."""
    return await executor.fetch(_statements["lock_overdue_leases"], limit)


async def lock_silent_sessions(executor: Executor, limit: int) -> list[Record]:
    """See `lock_silent_sessions.sql`. Returns `project_id, session_id`."""
    return await executor.fetch(_statements["lock_silent_sessions"], limit)


async def lock_held_leases(
    executor: Executor, project_ids: Sequence[UUID], session_ids: Sequence[UUID]
) -> list[Record]:
    """See `lock_held_leases.sql`. Returns `project_id, id, lease_seq, may_be_unsent`."""
    return await executor.fetch(_statements["lock_held_leases"], project_ids, session_ids)


async def mark_rescued_sessions(
    executor: Executor, project_ids: Sequence[UUID], session_ids: Sequence[UUID]
) -> None:
    """See `mark_rescued_sessions.sql`."""
    await executor.fetch(_statements["mark_rescued_sessions"], project_ids, session_ids)


# -- Queues -------------------------------------------------------------------------------------


async def resume_due_queues(executor: Executor, limit: int) -> list[Record]:
    """See `resume_due_queues.sql`. Returns `project_id, id` of each queue that was opened."""
    return await executor.fetch(_statements["resume_due_queues"], limit)


# -- Counts -------------------------------------------------------------------------------------


async def fold_deltas(executor: Executor, limit: int) -> int:
    """See `fold_deltas.sql`. Returns how many deltas were folded."""
    return await _number(executor, "fold_deltas", limit)


async def remove_empty_counts(executor: Executor, limit: int) -> int:
    """See `remove_empty_counts.sql`. Returns how many rows went."""
    return await _number(executor, "remove_empty_counts", limit)


# -- Statistics ---------------------------------------------------------------------------------


async def list_outgrown_tables(executor: Executor, few_rows: int) -> list[str]:
    """See `list_outgrown_tables.sql`. Returns their names, quoted where need be."""
    rows = await executor.fetch(_statements["list_outgrown_tables"], few_rows)
    return [row["name"] for row in rows]


async def analyze_table(executor: Executor, table: str) -> None:
    """See `analyze_table.sql`. `table` is a name as `list_outgrown_tables` gives it."""
    await executor.fetch(_statements["analyze_table"], table)


# -- What is kept no longer -----------------------------------------------------------------------


async def forget_requests(executor: Executor, retention: timedelta, limit: int) -> int:
    """See `forget_requests.sql`. Returns how many were forgotten."""
    return await _number(executor, "forget_requests", retention, limit)


async def lock_departed_sessions(
    executor: Executor, silence: timedelta, limit: int
) -> list[Record]:
    """See `lock_departed_sessions.sql`. Returns `project_id, session_id`."""
    return await executor.fetch(_statements["lock_departed_sessions"], silence, limit)


async def remove_sessions(
    executor: Executor, project_ids: Sequence[UUID], session_ids: Sequence[UUID]
) -> list[UUID]:
    """See `remove_sessions.sql`. Returns the sessions that went."""
    rows = await executor.fetch(_statements["remove_sessions"], project_ids, session_ids)
    return [row["session_id"] for row in rows]


async def remove_dead_servers(executor: Executor, silence: timedelta) -> list[UUID]:
    """See `remove_dead_servers.sql`. Returns the servers that went."""
    rows = await executor.fetch(_statements["remove_dead_servers"], silence)
    return [row["server_id"] for row in rows]


async def find_waiting_jobs_of_deleted_queues(executor: Executor, limit: int) -> list[Record]:
    """See `find_waiting_jobs_of_deleted_queues.sql`. Returns `project_id, id`."""
    return await executor.fetch(_statements["find_waiting_jobs_of_deleted_queues"], limit)


async def remove_deleted_queues(executor: Executor, age: timedelta) -> list[UUID]:
    """See `remove_deleted_queues.sql`. Returns the queues that went."""
    rows = await executor.fetch(_statements["remove_deleted_queues"], age)
    return [row["id"] for row in rows]


# -- Partitions of history ------------------------------------------------------------------------

_COUNTING_SECONDS = 600.0


def partition_name(day: date) -> str:
    """The table of a UTC day of history, within the schema."""
    return f"job_history_{day:%Y%m%d}"


async def read_days(executor: Executor, retention: timedelta) -> tuple[date, date]:
    """See `read_days.sql`. Returns today and the first day that is kept."""
    (row,) = await executor.fetch(_statements["read_days"], retention)
    return row["today"], row["first_kept"]


async def list_partitions(executor: Executor) -> dict[str, bool]:
    """See `list_partitions.sql`. Returns by table name whether it is attached."""
    rows = await executor.fetch(_statements["list_partitions"])
    return {row["name"]: row["is_attached"] for row in rows}


async def take_partition_turn(executor: Executor) -> bool:
    """See `take_partition_turn.sql`."""
    (row,) = await executor.fetch(_statements["take_partition_turn"], PARTITION_LOCK)
    return bool(row["is_taken"])


async def wait_briefly(executor: Executor) -> None:
    """See `wait_briefly.sql`."""
    await executor.fetch(_statements["wait_briefly"])


async def default_holds_day(executor: Executor, day: date) -> bool:
    """See `default_holds_day.sql`."""
    (row,) = await executor.fetch(_statements["default_holds_day"], day)
    return bool(row["holds"])


async def create_partition(executor: Executor, day: date) -> None:
    """See `create_partition.sql`."""
    await executor.fetch(_statements["create_partition"], day)


async def attach_partition(executor: Executor, day: date) -> None:
    """See `attach_partition.sql`.

    Raises:
        asyncpg.CheckViolationError: The default partition holds jobs of the day.
    """
    await executor.fetch(_statements["attach_partition"], day)


async def lock_partition(executor: Executor, day: date) -> None:
    """See `lock_partition.sql`."""
    await executor.fetch(_statements["lock_partition"], day)


async def partition_is_empty(executor: Executor, day: date) -> bool:
    """See `partition_is_empty.sql`."""
    (row,) = await executor.fetch(_of_day("partition_is_empty", day))
    return bool(row["is_empty"])


async def subtract_partition(connection: Any, day: date) -> int:
    """See `subtract_partition.sql`. Returns how many jobs the day has. Takes up to 10 min."""
    (row,) = await connection.fetch(_of_day("subtract_partition", day), timeout=_COUNTING_SECONDS)
    return int(row["n"])


async def empty_partition(executor: Executor, day: date) -> None:
    """See `empty_partition.sql`."""
    await executor.fetch(_statements["empty_partition"], day)


async def detach_partition(executor: Executor, day: date) -> None:
    """See `detach_partition.sql`."""
    await executor.fetch(_statements["detach_partition"], day)


async def drop_partition(executor: Executor, day: date) -> None:
    """See `drop_partition.sql`."""
    await executor.fetch(_statements["drop_partition"], day)


async def delete_old_default_history(executor: Executor, first_kept: date, limit: int) -> int:
    """See `delete_old_default_history.sql`. Returns how many jobs went."""
    return await _number(executor, "delete_old_default_history", first_kept, limit)


def _of_day(name: str, day: date) -> str:
    """A statement that reads the table of a day: a name cannot be a parameter."""
    return _statements[name].format(partition=partition_name(day))


async def _number(executor: Executor, name: str, *args: object) -> int:
    (row,) = await executor.fetch(_statements[name], *args)
    return int(row["n"])
