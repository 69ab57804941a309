"""Follows jobs from outside, as a user would."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from tests.support.waiting import PATIENCE, eventually

from taskforge_sdk import Client, Job, JobCounts, Worker

Working: TypeAlias = Callable[[Worker], AbstractAsyncContextManager["asyncio.Task[None]"]]
"""Runs a worker for as long as the block lasts."""


async def job_that(client: Client, job_id: str, fits: Callable[[Job], bool], what: str) -> Job:
    """The job, once it fits."""
    found: list[Job] = []

    async def look() -> bool:
        found[:] = [await client.get_job(job_id)]
        return fits(found[0])

    await eventually(look, what)
    return found[0]


async def finished(client: Client, job_id: str) -> Job:
    """The job, once it has ended."""
    return await job_that(client, job_id, lambda job: job.status.is_final, f"{job_id} has ended")


async def counted(client: Client, fits: Callable[[JobCounts], bool], what: str) -> None:
    """Return once the project's counts fit."""

    async def look() -> bool:
        return fits((await client.job_stats()).counts)

    await eventually(look, what)


async def soon(awaitable: Awaitable[object]) -> None:
    """Wait for something that is to come soon."""
    async with asyncio.timeout(PATIENCE):
        await awaitable
