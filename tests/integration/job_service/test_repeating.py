"""Creations that are repeated: one job, one answer, whatever became of the job and its queue."""

import asyncio

import pytest
from tests.support.creations import at_once, create, create_batch, job_ids, spec
from tests.support.job_use_cases import JobUseCases
from tests.support.leases import miscounts
from tests.support.rows import insert_project, insert_queue
from tests.support.snapshots import unchanged

from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.errors import (
    AlreadyExists,
)

NO_JSON = "{"
LARGEST = '"' + "x" * 262_142 + '"'


async def test_a_repetition_returns_the_first_job_whatever_became_of_it_and_its_queue(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    first = await create(replica, request_id="r", payload=LARGEST)
    states = [
        "is_active = false, accepts_jobs = false",
        "is_active = true, accepts_jobs = true, max_payload_bytes = 1",
        "deleted_at = clock_timestamp()",
    ]
    for state in states:
        await database.hot.execute(f"UPDATE taskforge.queues SET {state} WHERE id = $1", queue_id)
        replica.routes.forget()
        async with unchanged(database.hot):
            for use in (replica, second_replica):
                again = await create(use, request_id="r", payload=first.payload)
                assert again == first
    await database.hot.execute("DELETE FROM taskforge.jobs")
    gone = await create(replica, request_id="r", payload=first.payload)
    assert gone.id == first.id


async def test_a_request_id_with_another_content_is_refused(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    await create(replica, request_id="r", priority=1)
    async with unchanged(database.hot):
        for fields in ({"priority": 2}, {"priority": 1, "payload": "1"}, {}):
            with pytest.raises(AlreadyExists) as caught:
                await create(replica, request_id="r", **fields)
            assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_equal_request_ids_that_ride_together_make_one_job(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    same = [spec(request_id="r", priority=3)] * 30
    outcomes = await asyncio.gather(at_once(replica, same), at_once(second_replica, same))
    assert len({each for batch in outcomes for each in batch}) == 1
    assert len(await job_ids(database)) == 1
    assert await miscounts(database.hot) == []


async def test_in_one_batch_the_first_of_equal_request_ids_makes_the_job(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    same, other = spec(request_id="r", priority=1), spec(request_id="r", priority=2)
    outcomes = await create_batch(replica, [same, other, spec(), same])
    assert outcomes[1] == "REQUEST_ID_REUSED"
    assert outcomes[0] == outcomes[3]
    assert len(await job_ids(database)) == 2


async def test_a_repeated_batch_gets_the_same_answer_with_its_errors(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    jobs = [spec(), spec(payload=NO_JSON), spec("nowhere"), spec()]
    request = pb.BatchCreateJobsRequest(jobs=jobs, request_id="r")
    first = await replica.enqueuer.create_batch(request)
    await database.hot.execute(
        "UPDATE taskforge.queues SET is_active = false, accepts_jobs = false WHERE id = $1",
        queue_id,
    )
    await insert_queue(database.hot, "nowhere")
    async with unchanged(database.hot):
        assert await replica.enqueuer.create_batch(request) == first
        assert await second_replica.enqueuer.create_batch(request) == first
        with pytest.raises(AlreadyExists):
            await create_batch(replica, jobs[:2], request_id="r")


async def test_equal_batches_at_once_make_their_jobs_once_and_get_one_answer(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    request = pb.BatchCreateJobsRequest(jobs=[spec() for _ in range(20)], request_id="r")
    answers = await asyncio.gather(
        *(use.enqueuer.create_batch(request) for _ in range(3) for use in (replica, second_replica))
    )
    assert all(answer == answers[0] for answer in answers)
    made = [result.job_id for result in answers[0].results]
    assert [str(job_id) for job_id in await job_ids(database)] == made
    assert await miscounts(database.hot) == []


async def test_request_ids_belong_to_their_project(
    replica: JobUseCases, database: Database
) -> None:
    other = await insert_project(database.hot)
    await insert_queue(database.hot, "q")
    await insert_queue(database.hot, "q", project_id=other)
    own = await create(replica, request_id="r")
    request = pb.CreateJobRequest(project_id=str(other), job=spec(request_id="r", priority=2))
    foreign = await replica.enqueuer.create(request)
    assert foreign.id != own.id
    assert foreign.project_id == str(other)
