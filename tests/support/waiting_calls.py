"""Calls that wait for jobs, and what becomes of jobs that are created for them."""

from typing import Any

from tests.support.job_use_cases import JobUseCases

from job_service.demanding import Demand
from job_service.drafting import draft
from job_service.grouping import Group
from taskforge.v1 import job_pb2
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID


async def create_together(replica: JobUseCases, *specs: job_pb2.JobSpec) -> list[Any]:
    """Create jobs in one batch; what became of each."""
    drafts = [
        draft(spec, await replica.routes.find(DEFAULT_PROJECT_ID, spec.queue), "job")
        for spec in specs
    ]
    return await replica.enqueuer._insert_batch(DEFAULT_PROJECT_ID, drafts)


async def waiting(replica: JobUseCases, *calls: Demand) -> Group:
    """Open the calls, all of one subscription; they have found that nothing is ready."""
    await replica.open(*calls)
    group = replica.group(*calls)
    replica.dispatcher._groups[group.subscription.project_id] = {group.subscription: group}
    await group.run_once()
    assert group.took_all
    return group


async def statuses(database: Database) -> dict[str, int]:
    rows = await database.hot.fetch("SELECT id::text AS id, status FROM taskforge.jobs")
    return {row["id"]: row["status"] for row in rows}
