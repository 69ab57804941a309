"""Ending attempts finds each job by its key, in custom and generic plans."""

import pytest
from tests.support.endings import AT_ONCE, leased_jobs
from tests.support.explaining import PLAN_MODES, Explainer, PlanMode
from tests.support.rows import insert_jobs, insert_queue

from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import cancel_waiting_jobs, finish_jobs, lock_leases, return_jobs
from taskforge_core.statuses import JobStatus


@pytest.mark.parametrize("analyzed", [True, False])
@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_ending_attempts_probes_the_key_once_a_job(
    database: Database, mode: PlanMode, analyzed: bool
) -> None:
    keys = await leased_jobs(database, 20_000)
    if analyzed:
        await database.hot.execute("ANALYZE taskforge.jobs")
    batch = sorted(keys)[:100]
    ids, seqs = [key[0] for key in batch], [key[1] for key in batch]
    async with Explainer(database.hot, mode) as explainer:
        await lock_leases(explainer, DEFAULT_PROJECT_ID, ids, seqs)
        assert explainer.indexes - {"queues_pkey"} == {"jobs_pkey"}
        assert "jobs" not in explainer.scanned_tables
        await return_jobs(
            explainer,
            DEFAULT_PROJECT_ID,
            ids[:50],
            seqs[:50],
            [AT_ONCE] * 50,
            [True] * 50,
            [False] * 50,
            [None] * 50,
            answered=True,
        )
        assert explainer.indexes == {"jobs_pkey"}
        assert "jobs" not in explainer.scanned_tables
        await finish_jobs(
            explainer,
            DEFAULT_PROJECT_ID,
            ids[50:],
            seqs[50:],
            [JobStatus.SUCCEEDED] * 50,
            [None] * 50,
            [None] * 50,
            answered=True,
        )
        assert explainer.indexes == {"jobs_pkey"}
        assert "jobs" not in explainer.scanned_tables


@pytest.mark.parametrize("analyzed", [True, False])
@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_cancelling_waiting_jobs_probes_the_key_once_a_job(
    database: Database, mode: PlanMode, analyzed: bool
) -> None:
    queue_id = await insert_queue(database.hot, "backlog")
    ids = await insert_jobs(database.hot, queue_id, priorities=[0] * 20_000)
    if analyzed:
        await database.hot.execute("ANALYZE taskforge.jobs")
    async with Explainer(database.hot, mode) as explainer:
        await cancel_waiting_jobs(explainer, DEFAULT_PROJECT_ID, [str(job) for job in ids[:100]])
        assert explainer.indexes == {"jobs_pkey"}
        assert "jobs" not in explainer.scanned_tables
