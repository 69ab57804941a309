"""What a job costs in the hot paths, in counts: a guard that no noise of the machine can move.

The bounds are what was counted when they were written, and about a tenth. Where a change makes one
dearer for a good reason, raise it in the same commit and say why; `taskforge bench` tells what it
means in time.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack

import pytest
from tests.support.costs import Cost, counted, traced
from tests.support.demands import demand
from tests.support.explaining import Explainer
from tests.support.job_use_cases import JobUseCases
from tests.support.rows import insert_queue
from tests.support.session_rows import MAX_IN_FLIGHT, opened

from job_service import queries
from job_service.demanding import Demand
from job_service.drafting import draft
from job_service.grouping import Group
from job_service.inserting import _columns
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import finish_jobs
from taskforge_core.statuses import JobStatus

JOBS = 1000
PAYLOAD = '{"to":"someone@example.com","template":"welcome","user_id":123456,"note":"hello there"}'
"""About 100 bytes, as in `taskforge bench`."""

Measure = Callable[[], AbstractContextManager[Cost]]


class Life:
    """A thousand jobs, and a worker that takes as many at once."""

    def __init__(self, replica: JobUseCases) -> None:
        self._replica = replica
        self._call: Demand = demand(max_in_flight=JOBS)
        self._group: Group = replica.group(self._call)
        spec = job_pb2.JobSpec(queue="q", job_type="send", payload=PAYLOAD)
        self._creation = pb.BatchCreateJobsRequest(jobs=[spec] * JOBS)

    async def open(self) -> None:
        await self._replica.open(self._call)

    async def quiet(self) -> None:
        """Wait for what a step has left to be done behind it."""
        await self._replica.notifier.flushed()

    async def create(self) -> None:
        answer = await self._replica.enqueuer.create_batch(self._creation)
        assert all(result.job_id for result in answer.results)

    async def claim(self) -> None:
        await self._group.run_once()
        assert len(self._call.outbox) == JOBS

    async def settle(self) -> None:
        leases = self._replica.deliver(self._call)
        done = pb.Success(result="{}")
        answer = await self._replica.settler.settle_batch(
            pb.BatchSettleJobsRequest(
                settlements=[
                    pb.Settlement(lease_token=each.message.lease_token, success=done)
                    for each in leases
                ]
            )
        )
        assert all(each.status == job_pb2.JOB_STATUS_SUCCEEDED for each in answer.results)


@pytest.fixture
async def life(replica: JobUseCases, database: Database) -> Life:
    """It has run on each connection: caches are filled, statements are prepared."""
    await insert_queue(database.hot, "q")
    life = Life(replica)
    await life.open()
    async with AsyncExitStack() as others:
        for _ in range(database.hot.get_max_size()):
            for part in (life.create, life.claim, life.settle):
                await part()
            await life.quiet()
            # The one that is used next is another one now.
            await others.enter_async_context(database.hot.acquire())
    return life


async def costs(life: Life, measure: Measure) -> dict[str, Cost]:
    """Of each part of the life of a thousand jobs."""
    found = {}
    for part in (life.create, life.claim, life.settle):
        await life.quiet()
        with measure() as found[part.__name__]:
            await part()
    for name, cost in found.items():
        print(f"{name}: {cost}")
    return found


async def test_a_batch_takes_a_statement_for_each_step(life: Life) -> None:
    found = await costs(life, counted)
    # A claim picks, then leases.
    assert {name: cost.statements for name, cost in found.items()} == {
        "create": 1,
        "claim": 2,
        "settle": 1,
    }


async def test_the_server_makes_no_more_calls_for_a_job_than_it_did(life: Life) -> None:
    found = await costs(life, counted)
    per_job = {name: cost.calls / JOBS for name, cost in found.items()}
    assert per_job["create"] <= 50
    assert per_job["claim"] <= 38
    assert per_job["settle"] <= 55


async def test_the_server_takes_no_more_memory_for_a_job_than_it_did(life: Life) -> None:
    found = await costs(life, traced)
    per_job = {name: cost.peak_bytes / JOBS for name, cost in found.items()}
    assert per_job["create"] <= 1250
    assert per_job["claim"] <= 2000
    assert per_job["settle"] <= 1200


async def test_the_database_writes_and_reads_no_more_for_a_job_than_it_did(
    database: Database,
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    session_id = queue_id
    call_id = await opened(database.hot, session_id)
    assert call_id is not None
    count = MAX_IN_FLIGHT * 10
    spec = job_pb2.JobSpec(queue="q", job_type="send", payload=PAYLOAD)
    drafts = [draft(spec, queue_id, "job") for _ in range(count)]
    seat = queries.Seat(session_id, "worker", queue_id)
    terms = [queries.SessionTerms(session_id, call_id, MAX_IN_FLIGHT)]
    told: dict[str, tuple[float, float, float]] = {}
    """Of each step: records and bytes of the write-ahead log, and rows read, a job."""
    async with Explainer(database.hot, "force_generic_plan") as explainer:

        def note(step: str) -> None:
            told[step] = (
                explainer.wal_records / count,
                explainer.wal_bytes / count,
                explainer.rows_read / count,
            )

        await queries.insert_jobs(explainer, DEFAULT_PROJECT_ID, _columns(drafts))
        note("create")
        _, rows = await queries.claim_jobs(
            explainer, DEFAULT_PROJECT_ID, {seat: [made.id for made in drafts]}, (), terms
        )
        assert len(rows) == count
        note("claim")
        await finish_jobs(
            explainer,
            DEFAULT_PROJECT_ID,
            [str(row["id"]) for row in rows],
            [row["lease_seq"] for row in rows],
            [JobStatus.SUCCEEDED] * count,
            ["{}"] * count,
            [],
            answered=True,
        )
        note("settle")
    print(told)
    limits = {"create": (5.5, 710, 0.1), "claim": (6.3, 670, 2.2), "settle": (4.5, 580, 1.1)}
    for step, found in told.items():
        assert all(each <= most for each, most in zip(found, limits[step], strict=True)), step
