"""Days of history, and finished jobs in them."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from tests.support.rows import insert_jobs, insert_queue

from scheduler_service import queries
from scheduler_service.partitioning import PartitionKeeper
from taskforge_core.database import Database
from taskforge_core.statuses import JobStatus

RETENTION = timedelta(days=14)
TODAY = datetime.now(UTC).date()
"""The tests tolerate a midnight between this and the database's clock by looking at other days."""

OLD = TODAY - timedelta(days=20)
DEFAULT_TABLE = "job_history_default"


def keeper_of(database: Database, batch_size: int = 5000) -> PartitionKeeper:
    return PartitionKeeper(database.hot, RETENTION, batch_size)


async def days(database: Database, *, attached: bool = True) -> set[str]:
    """The tables of single days that are partitions now, or those that are none."""
    tables = await queries.list_partitions(database.hot)
    return {name for name, is_attached in tables.items() if is_attached is attached}


async def make_day(database: Database, day: date) -> None:
    await queries.create_partition(database.hot, day)
    await queries.attach_partition(database.hot, day)


async def finished_jobs(
    database: Database, day: date, count: int = 3, status: JobStatus = JobStatus.FAILED
) -> list[UUID]:
    """Jobs that ended on a day, in a queue of their own."""
    queue_id = await insert_queue(database.hot, f"{day} {count} {status}")
    ids = await insert_jobs(database.hot, queue_id, status, priorities=[0] * count)
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    await database.hot.execute(
        "UPDATE job_history SET completed_at = $1 WHERE id = ANY($2::uuid[])", noon, ids
    )
    return ids


async def where(database: Database, ids: list[UUID]) -> set[str]:
    """The partitions that jobs are in."""
    rows = await database.hot.fetch(
        "SELECT DISTINCT tableoid::regclass::text AS name FROM job_history WHERE id = ANY($1)", ids
    )
    return {row["name"] for row in rows}
