"""How many jobs there are by status: exact, at a cost that does not depend on their number."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import BigInteger, Select, cast, func, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from taskforge_core.statuses import JobStatus
from taskforge_core.tables import queue_counts, queue_deltas


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Jobs by status; the fields bear the names of `taskforge.v1.JobCounts`."""

    pending: int = 0
    scheduled: int = 0
    processing: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        """All jobs together."""
        return (
            self.pending
            + self.scheduled
            + self.processing
            + self.succeeded
            + self.failed
            + self.cancelled
        )


async def read_counts(
    connection: AsyncConnection, project_id: UUID, queue_id: UUID | None = None
) -> JobCounts:
    """Count the jobs of a queue, or of the whole project, as of this statement's snapshot.

    Folded counts and the deltas since are read in one statement: folding moves a delta from one to
    the other in one transaction, so that no snapshot sees it in both or in neither.
    """
    rows = await connection.execute(_counts(project_id, queue_id))
    return JobCounts(**{JobStatus(row.status).name.lower(): row.n for row in rows})


def _counts(project_id: UUID, queue_id: UUID | None) -> Select[tuple[int, int]]:
    parts = []
    for table in (queue_counts, queue_deltas):
        part = select(table.c.status, table.c.n).where(table.c.project_id == project_id)
        parts.append(part if queue_id is None else part.where(table.c.queue_id == queue_id))
    both = union_all(*parts).subquery()
    return select(both.c.status, cast(func.sum(both.c.n), BigInteger).label("n")).group_by(
        both.c.status
    )
