"""Which job comes next: by stream and by AcquireJobs alike."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.support.job_calls import (
    Lease,
    acquire,
    complete,
    create,
    create_all,
    payloads,
    settle,
    spec,
    succeeded,
)
from tests.support.lease_streams import lease_stream
from tests.support.queue_calls import make, update
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.stubs import JobStub, QueueStub

from taskforge.v1 import queue_service_pb2
from taskforge_core.database import Database

Take = Callable[..., Awaitable[Sequence[Lease]]]
"""Takes so many jobs as a stream or by AcquireJobs: `take(stub, count, **subscription)`."""


async def take_by_stream(stub: JobStub, count: int, **fields: Any) -> Sequence[Lease]:
    async with lease_stream(stub, max_in_flight=count, **fields) as stream:
        return await stream.until_leases(count)


async def take_by_call(stub: JobStub, count: int, **fields: Any) -> Sequence[Lease]:
    return await acquire(stub, max_in_flight=count, **fields)


both_ways = pytest.mark.parametrize("take", [take_by_stream, take_by_call])


@both_ways
async def test_queue_priority_comes_before_job_priority_before_age_before_id(
    job_stub: JobStub, queue_stub: QueueStub, database: Database, take: Take
) -> None:
    now = datetime.now(UTC)
    expected: list[tuple[int, int, timedelta, str]] = []
    for name, queue_priority in (("low", 0), ("high", 9), ("middle", 5), ("middle-2", 5)):
        queue = await queue_stub.CreateQueue(
            queue_service_pb2.CreateQueueRequest(name=name, priority=queue_priority)
        )
        for age in (timedelta(minutes=1), timedelta(minutes=3), timedelta(minutes=2)):
            # Two of each, so that the id decides as well.
            priorities = (0, 9, 4, 0, 9, 4)
            ids = await insert_jobs(
                database.hot,
                UUID(queue.queue.id),
                priorities=priorities,
                created_at=now - age,
            )
            expected += [
                (-queue_priority, -priority, -age, str(job_id))
                for priority, job_id in zip(priorities, ids, strict=True)
            ]
    leases = await take(job_stub, len(expected))
    assert [lease.job.id for lease in leases] == [job_id for *_, job_id in sorted(expected)]


@both_ways
async def test_the_best_jobs_come_first_when_not_all_can_be_taken(
    job_stub: JobStub, database: Database, take: Take
) -> None:
    for queue in ("a", "b", "c"):
        await insert_queue(database.hot, queue)
    # Far more of one queue than its share, and the best ones at the far end of another.
    await create_all(job_stub, [spec("a", payload="1", priority=1) for _ in range(60)])
    await create_all(job_stub, [spec("b", payload="0") for _ in range(60)])
    await create_all(job_stub, [spec("c", payload="9", priority=9) for _ in range(5)])
    assert payloads(await take(job_stub, 50)) == ["9"] * 5 + ["1"] * 45
    assert payloads(await take(job_stub, 30)) == ["1"] * 15 + ["0"] * 15


async def test_the_best_jobs_come_first_where_all_of_them_lie_in_one_of_many_queues(
    job_stub: JobStub, database: Database
) -> None:
    queues = [f"q{n}" for n in range(10)]
    for queue in queues:
        await insert_queue(database.hot, queue)
    await create_all(job_stub, [spec(queue, payload="0") for queue in queues * 4])
    async with lease_stream(job_stub, max_in_flight=20) as stream:
        # From now on it expects its share of jobs from each queue.
        await stream.until_leases(20)
        best = [spec("q7", payload=str(n), priority=9) for n in range(1, 31)]
        await create_all(job_stub, best)
        await settle(job_stub, [succeeded(token) for token in stream.tokens])
        await stream.until_leases(40)
        assert stream.payloads[20:] == [str(n) for n in range(1, 21)]


@both_ways
async def test_a_change_of_a_queues_priority_counts_from_the_next_claim(
    job_stub: JobStub, queue_stub: QueueStub, take: Take
) -> None:
    for name in ("a", "b"):
        await make(queue_stub, name)
        await create_all(job_stub, [spec(name, payload=f'"{name}"')] * 2)
    assert payloads(await take(job_stub, 1)) == ['"a"']
    await queue_stub.UpdateQueue(update("b", "priority", priority=1))
    assert payloads(await take(job_stub, 3)) == ['"b"', '"b"', '"a"']


@both_ways
async def test_a_subscription_takes_its_queues_and_types_only(
    job_stub: JobStub, database: Database, take: Take
) -> None:
    ids = {name: str(await insert_queue(database.hot, name)) for name in ("a", "b", "c")}
    jobs = [
        spec(queue, job_type=job_type, payload=f'"{queue}{job_type}"')
        for queue in ("a", "b", "c")
        for job_type in ("x", "y", "z", "X")
    ]
    await create_all(job_stub, jobs)
    # By id and by name, named twice, in any case.
    queues = ["a", ids["c"].upper(), "c", ids["a"]]
    leases = await take(job_stub, 4, queues=queues, job_types=["y", "x", "y"])
    assert payloads(leases) == ['"ax"', '"ay"', '"cx"', '"cy"']
    assert payloads(await take(job_stub, 2, queues=["b"], job_types=["z", "X"])) == [
        '"bz"',
        '"bX"',
    ]
    assert payloads(await take(job_stub, 3, job_types=["z", "X", "y"])) == ['"az"', '"aX"', '"by"']
    assert payloads(await take(job_stub, 3)) == ['"bx"', '"cz"', '"cX"']
    assert await acquire(job_stub) == []


async def test_a_rare_type_is_found_behind_a_long_backlog_of_others(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(job_stub, [spec(priority=9)] * 1000)
    job = await create(job_stub, job_type="rare")
    [lease] = await acquire(job_stub, job_types=["rare"])
    assert lease.job.id == job.id


async def test_only_the_projects_own_jobs_are_leased(job_stub: JobStub, database: Database) -> None:
    other = await insert_project(database.hot)
    ours = await insert_queue(database.hot, "emails")
    theirs = await insert_queue(database.hot, "emails", project_id=other)
    await insert_jobs(database.hot, ours, priorities=(0, 0))
    await insert_jobs(database.hot, theirs, priorities=(9, 9, 9), project_id=other)
    async with lease_stream(job_stub, project_id=str(other)) as stream:
        leases = await stream.until_leases(3)
        assert {lease.job.project_id for lease in leases} == {str(other)}
        assert {lease.job.queue_id for lease in await acquire(job_stub)} == {str(ours)}
        assert len(stream.leases) == 3


async def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(
    job_stub: JobStub, queue_stub: QueueStub
) -> None:
    await make(queue_stub)
    await create_all(job_stub, [spec(payload=str(n)) for n in range(3)])
    async with lease_stream(job_stub, max_in_flight=1) as stream:
        [first] = await stream.until_leases(1)
        await queue_stub.PauseQueue(queue_service_pb2.PauseQueueRequest(queue="emails"))
        await complete(job_stub, first.lease_token)
        assert await acquire(job_stub) == []
        assert stream.payloads == ["0"]
        await queue_stub.ResumeQueue(queue_service_pb2.ResumeQueueRequest(queue="emails"))
        await stream.until_leases(2)
        assert stream.payloads == ["0", "1"]
    assert payloads(await acquire(job_stub)) == ["2"]
