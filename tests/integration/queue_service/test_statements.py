"""The indexes that this service's statements need, whatever the statistics say."""

import pytest
from tests.support.plans import (
    PLAN_MODES,
    Statement,
    indexes,
    plan_of,
    scanned_tables,
    statements_of,
)
from tests.support.queue_replicas import Replica
from tests.support.rows import insert_jobs, insert_queue

from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.errors import FailedPrecondition
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.statuses import JobStatus


async def fill(database: Database, priorities: list[int], status: JobStatus) -> None:
    """A backlog of one kind in the queue that is asked about, and others around it."""
    for name in ("emails", "other"):
        queue_id = await insert_queue(database.hot, name)
        await insert_jobs(database.hot, queue_id, status, priorities=priorities)
    await database.hot.execute("ANALYZE taskforge.jobs")


def the_one(statements: list[Statement], part: str) -> Statement:
    [found] = [statement for statement in statements if part in statement.text]
    return found


@pytest.mark.parametrize("mode", PLAN_MODES)
@pytest.mark.parametrize(
    ("priorities", "status"),
    [
        ([0] * 5000, JobStatus.PENDING),
        ([9] * 5000, JobStatus.PENDING),
        (list(range(10)) * 500, JobStatus.PENDING),
        ([5] * 5000, JobStatus.SCHEDULED),
    ],
    ids=["all lowest", "all highest", "mixed", "none ready"],
)
async def test_the_oldest_ready_job_costs_ten_probes_whatever_waits(
    replica: Replica,
    database: Database,
    mode: str,
    priorities: list[int],
    status: JobStatus,
) -> None:
    await fill(database, priorities, status)
    with statements_of(replica.database.engine) as statements:
        await replica.browser.stats(pb.GetQueueStatsRequest(queue="emails"))
    plan = await plan_of(database.hot, the_one(statements, "generate_series"), mode)
    assert indexes(plan) == {"jobs_ready"}
    assert not scanned_tables(plan)
    [probe] = [node for node in plan if node.get("Index Name") == "jobs_ready"]
    assert probe["Actual Loops"] == 10
    assert probe["Actual Rows"] <= 1
    assert not probe.get("Rows Removed by Filter")


@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_counting_unfinished_jobs_reads_the_queues_own_part_of_the_listing(
    replica: Replica, database: Database, mode: str
) -> None:
    await fill(database, [0] * 5000, JobStatus.SCHEDULED)
    # Many queues: where a few have all the jobs, reading the whole table is as good.
    await database.hot.execute(
        "UPDATE taskforge.jobs SET queue_id = gen_random_uuid() WHERE id NOT IN ("
        " SELECT job.id FROM taskforge.jobs AS job JOIN taskforge.queues AS queue"
        " ON queue.id = job.queue_id WHERE queue.name = 'emails' LIMIT 100)"
    )
    await database.hot.execute("VACUUM ANALYZE taskforge.jobs")
    with statements_of(replica.database.engine) as statements, pytest.raises(FailedPrecondition):
        await replica.administrator.delete(pb.DeleteQueueRequest(queue="emails"))
    plan = await plan_of(database.hot, the_one(statements, "count("), mode)
    assert not scanned_tables(plan)
    assert indexes(plan) == {"jobs_listing"}


@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_counts_cost_nothing_for_the_jobs(
    replica: Replica, database: Database, mode: str
) -> None:
    await fill(database, [0] * 100, JobStatus.PENDING)
    await database.hot.execute(
        "INSERT INTO taskforge.queue_counts (project_id, queue_id, status, n)"
        " SELECT $1, gen_random_uuid(), 1, 1 FROM generate_series(1, 5000)",
        DEFAULT_PROJECT_ID,
    )
    await database.hot.execute("ANALYZE taskforge.queue_counts")
    with statements_of(replica.database.engine) as statements:
        await replica.browser.stats(pb.GetQueueStatsRequest(queue="emails"))
    plan = await plan_of(database.hot, the_one(statements, "queue_deltas"), mode)
    assert indexes(plan) - {"queue_deltas_key"} == {"queue_counts_pkey"}
    # The deltas are few, since they are folded all the time.
    assert scanned_tables(plan) <= {"queue_deltas"}


@pytest.mark.parametrize("mode", PLAN_MODES)
@pytest.mark.parametrize("by_name", [True, False])
async def test_a_queue_is_found_by_an_index(
    replica: Replica, database: Database, mode: str, by_name: bool
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    await database.hot.execute(
        "INSERT INTO taskforge.queues (project_id, id, name)"
        " SELECT $1, gen_random_uuid(), 'q' || i FROM generate_series(1, 5000) AS i",
        DEFAULT_PROJECT_ID,
    )
    await database.hot.execute("ANALYZE taskforge.queues")
    named = "emails" if by_name else str(queue_id)
    with statements_of(replica.database.engine) as statements:
        await replica.browser.get(pb.GetQueueRequest(queue=named))
    plan = await plan_of(database.hot, the_one(statements, "queues"), mode)
    assert indexes(plan) == {"queues_name" if by_name else "queues_pkey"}
    assert not scanned_tables(plan)


@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_a_page_of_queues_reads_from_where_it_begins(
    replica: Replica, database: Database, mode: str
) -> None:
    await database.hot.execute(
        "INSERT INTO taskforge.queues (project_id, id, name)"
        " SELECT $1, gen_random_uuid(), 'q' || i FROM generate_series(1, 5000) AS i",
        DEFAULT_PROJECT_ID,
    )
    await database.hot.execute("ANALYZE taskforge.queues")
    first = await replica.browser.list(pb.ListQueuesRequest(page_size=10))
    with statements_of(replica.database.engine) as statements:
        await replica.browser.list(
            pb.ListQueuesRequest(page_size=10, page_token=first.next_page_token)
        )
    plan = await plan_of(database.hot, the_one(statements, "queues"), mode)
    assert indexes(plan) == {"queues_name"}
    assert not scanned_tables(plan)


async def test_every_statement_on_a_tenants_table_names_the_project(
    replica: Replica, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    with statements_of(replica.database.engine) as statements:
        await replica.browser.stats(pb.GetQueueStatsRequest(queue="emails"))
        await replica.browser.list(pb.ListQueuesRequest())
        await replica.administrator.pause(pb.PauseQueueRequest(queue=str(queue_id)))
        await replica.administrator.delete(pb.DeleteQueueRequest(queue="emails"))
    assert len(statements) >= 8
    on_tables = [each for each in statements if "taskforge." in each.text]
    assert len(on_tables) == len(statements) - 1, "all but the lock on the project"
    found = [each for each in on_tables if "INTO taskforge.audit_log" not in each.text]
    assert len(found) == len(on_tables) - 2, "all but the two entries in the audit log"
    for statement in found:
        condition = statement.text.partition("WHERE")[2]
        assert "project_id =" in condition or "project_id IN" in condition, statement.text
        assert DEFAULT_PROJECT_ID in statement.parameters, statement
