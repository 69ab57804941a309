"""The indexes that the statements about many jobs need, also with plans of an empty table."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from tests.support.dead_letters import insert_dead_letters
from tests.support.explaining import PLAN_MODES, Explainer, PlanMode
from tests.support.rows import insert_jobs, insert_queue

from queue_service import queries
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.statuses import JobStatus

START = datetime(1970, 1, 1, tzinfo=UTC)
NO_ID = UUID(int=0)
HISTORY = {"job_history_key", "job_history_listing"}

when_analyzed = pytest.mark.parametrize("analyzed", ["empty", "full"])
in_both_modes = pytest.mark.parametrize("mode", PLAN_MODES)


def later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def fill(
    database: Database, status: JobStatus, analyzed: str, count: int = 3000
) -> tuple[UUID, list[UUID]]:
    """A queue and its jobs, beside others; with the statistics of before or of after."""
    if analyzed == "empty":
        await database.hot.execute("ANALYZE taskforge.jobs, taskforge.job_history")
    queue_id = await insert_queue(database.hot, "emails")
    ids = await insert_jobs(database.hot, queue_id, status, priorities=[0] * count)
    for number in range(3):
        other = await insert_queue(database.hot, f"other {number}")
        await insert_jobs(database.hot, other, status, priorities=[0] * count)
    if analyzed == "full":
        await database.hot.execute("ANALYZE taskforge.jobs, taskforge.job_history")
    return queue_id, ids


def family(explainer: Explainer) -> set[str]:
    """The indexes that were looked into; those of the partitions by the name of their parent."""
    return {
        next((f"job_history_{kind}" for kind, part in PARTS if part in name), name)
        for node in explainer.plan
        if node["Actual Loops"] and (name := node.get("Index Name"))
    }


PARTS = (
    ("key", "_project_id_id_idx"),
    ("listing", "_queue_id_created_at_id_idx"),
)
"""How Postgres names the indexes of partitions."""


def rows_read(explainer: Explainer, part: str) -> int:
    """How many rows came out of the indexes whose name has this part, over all loops."""
    return sum(
        round(node["Actual Rows"] * node["Actual Loops"])
        for node in explainer.plan
        if part in node.get("Index Name", "")
    )


def probed(explainer: Explainer) -> int:
    """How often an index was looked into."""
    return sum(node["Actual Loops"] for node in explainer.plan if "Index Name" in node)


@in_both_modes
@when_analyzed
@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.SCHEDULED])
async def test_a_page_of_unfinished_jobs_is_one_range_of_the_listing(
    database: Database, mode: PlanMode, analyzed: str, status: JobStatus
) -> None:
    queue_id, ids = await fill(database, status, analyzed)
    async with Explainer(database.hot, mode) as explainer:
        first = await queries.list_unfinished_jobs(
            explainer, DEFAULT_PROJECT_ID, queue_id, later(), START, NO_ID, 100
        )
        assert [row["id"] for row in first] == sorted(ids)[:100]
        last = first[-1]
        rows = await queries.list_unfinished_jobs(
            explainer,
            DEFAULT_PROJECT_ID,
            queue_id,
            later(),
            last["created_at"],
            last["id"],
            100,
        )
        assert [row["id"] for row in rows] == sorted(ids)[100:200]
        assert explainer.indexes == {"jobs_listing"}
        assert explainer.scanned_tables == set()
        assert rows_read(explainer, "jobs_listing") <= 100


@in_both_modes
@when_analyzed
async def test_locking_waiting_jobs_costs_a_probe_each(
    database: Database, mode: PlanMode, analyzed: str
) -> None:
    queue_id, ids = await fill(database, JobStatus.PENDING, analyzed)
    async with Explainer(database.hot, mode) as explainer:
        locked = await queries.lock_waiting_jobs(
            explainer, DEFAULT_PROJECT_ID, queue_id, sorted(ids)[:50], [1]
        )
        assert locked == [str(job_id) for job_id in sorted(ids)[:50]]
        assert explainer.indexes == {"jobs_pkey"}
        assert explainer.scanned_tables == set()
        assert rows_read(explainer, "jobs_pkey") == 50


@in_both_modes
@when_analyzed
async def test_a_page_of_finished_jobs_is_one_range_of_each_days_listing(
    database: Database, mode: PlanMode, analyzed: str
) -> None:
    queue_id, ids = await fill(database, JobStatus.FAILED, analyzed)
    async with Explainer(database.hot, mode) as explainer:
        first = await queries.list_finished_jobs(
            explainer, DEFAULT_PROJECT_ID, queue_id, START, NO_ID, 100
        )
        last = first[-1]
        rows = await queries.list_finished_jobs(
            explainer, DEFAULT_PROJECT_ID, queue_id, last["created_at"], last["id"], 100
        )
        assert [row["id"] for row in rows] == sorted(ids)[100:200]
        assert family(explainer) == {"job_history_listing"}
        assert explainer.scanned_tables == set()
        assert rows_read(explainer, "created_at") <= 101


@in_both_modes
@when_analyzed
async def test_deleting_finished_jobs_costs_a_probe_of_one_partition_each(
    database: Database, mode: PlanMode, analyzed: str
) -> None:
    _, ids = await fill(database, JobStatus.FAILED, analyzed)
    rows = await database.hot.fetch(
        "SELECT id, completed_at FROM job_history WHERE id = ANY($1)", ids[:50]
    )
    async with Explainer(database.hot, mode) as explainer:
        deleted = await queries.delete_finished_jobs(
            explainer,
            DEFAULT_PROJECT_ID,
            [row["id"] for row in rows],
            [row["completed_at"] for row in rows],
        )
        assert deleted == 50
        assert family(explainer) == {"job_history_key"}
        assert explainer.scanned_tables == set()
        # The partitions of other days are not looked at.
        assert probed(explainer) == 50
        assert rows_read(explainer, "project_id") == 50


@in_both_modes
@when_analyzed
async def test_redriving_costs_two_probes_a_job(
    database: Database, mode: PlanMode, analyzed: str
) -> None:
    queue_id, _ = await fill(database, JobStatus.PENDING, analyzed)
    origin_id = await insert_queue(database.hot, "origin")
    ids = await insert_dead_letters(database, queue_id, origin_id, priorities=[0] * 50)
    async with Explainer(database.hot, mode) as explainer:
        rows = await queries.redrive_jobs(
            explainer, DEFAULT_PROJECT_ID, queue_id, ids, 0, datetime.now(UTC), 1000
        )
        assert sum(row["n"] for row in rows) == 50
        assert explainer.indexes == {"jobs_pkey", "queues_pkey"}
        assert explainer.scanned_tables == set()
        assert rows_read(explainer, "jobs_pkey") == 100


@in_both_modes
async def test_finding_live_queues_costs_a_probe_each(database: Database, mode: PlanMode) -> None:
    queue_ids = [await insert_queue(database.hot, f"q{number}") for number in range(5)]
    gone = await insert_queue(database.hot, "gone", deleted_at=datetime.now(UTC))
    await database.hot.execute(
        "INSERT INTO taskforge.queues (project_id, id, name)"
        " SELECT $1, gen_random_uuid(), 'x' || i FROM generate_series(1, 5000) AS i",
        DEFAULT_PROJECT_ID,
    )
    await database.hot.execute("ANALYZE taskforge.queues")
    async with Explainer(database.hot, mode) as explainer:
        live = await queries.find_live_queues(
            explainer, DEFAULT_PROJECT_ID, [*queue_ids, gone, NO_ID]
        )
        assert live == set(queue_ids)
        assert explainer.indexes == {"queues_pkey"}
        assert explainer.scanned_tables == set()
