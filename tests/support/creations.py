"""Creations of jobs without a server, and what came of them."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from tests.support.job_use_cases import JobUseCases
from tests.support.refusals import read_refusal

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.errors import (
    TaskForgeError,
)


def spec(queue: str = "q", **fields: Any) -> job_pb2.JobSpec:
    return job_pb2.JobSpec(queue=queue, job_type="send", **fields)


async def create(use: JobUseCases, queue: str = "q", **fields: Any) -> job_pb2.Job:
    return await use.enqueuer.create(pb.CreateJobRequest(job=spec(queue, **fields)))


async def create_batch(
    use: JobUseCases, jobs: Sequence[job_pb2.JobSpec], **fields: Any
) -> list[str]:
    """The id or the error's reason of each."""
    request = pb.BatchCreateJobsRequest(jobs=jobs, **fields)
    answer = await use.enqueuer.create_batch(request)
    return [result.job_id or read_refusal(result.error).info.reason for result in answer.results]


async def job_ids(database: Database) -> list[UUID]:
    """All there are, in the order of leasing."""
    rows = await database.hot.fetch("SELECT id FROM taskforge.jobs ORDER BY created_at, id")
    return [row["id"] for row in rows]


async def at_once(use: JobUseCases, specs: Sequence[job_pb2.JobSpec]) -> list[str]:
    """Single creations that come together, and so ride in few batches; ids or reasons."""
    outcomes = await asyncio.gather(
        *(use.enqueuer.create(pb.CreateJobRequest(job=each)) for each in specs),
        return_exceptions=True,
    )
    found = []
    for each in outcomes:
        if isinstance(each, job_pb2.Job):
            found.append(each.id)
        else:
            assert isinstance(each, TaskForgeError), each
            found.append(each.reason)
    return found
