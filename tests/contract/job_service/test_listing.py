"""Pages of jobs: newest first, filtered, and stable while the jobs move on."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from tests.support.job_calls import (
    acquire,
    cancel,
    complete,
    create,
    create_all,
    fail,
    get,
    heartbeat,
    retry,
    settle,
    spec,
    succeeded,
)
from tests.support.job_replicas import JobReplica
from tests.support.queue_calls import make
from tests.support.refusals import expect_error
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.stubs import JobStub, QueueStub
from tests.support.waiting import eventually

from taskforge.v1 import job_pb2, queue_service_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.statuses import JobStatus

MIB = 1024 * 1024


async def page(stub: JobStub, **fields: Any) -> pb.ListJobsResponse:
    return await stub.ListJobs(pb.ListJobsRequest(**fields))


async def pages(stub: JobStub, **fields: Any) -> list[Sequence[job_pb2.Job]]:
    """All pages, to the last one."""
    found: list[Sequence[job_pb2.Job]] = []
    token = ""
    while True:
        answer = await page(stub, page_token=token, **fields)
        found.append(answer.jobs)
        token = answer.next_page_token
        if not token:
            return found


def ids(jobs: Iterable[job_pb2.Job]) -> list[str]:
    return [job.id for job in jobs]


async def insert_aged(
    database: Database, queue_id: UUID, status: JobStatus, *ages: timedelta
) -> list[str]:
    """Jobs of these ages, the first one first."""
    now = datetime.now(UTC)
    made = []
    for age in ages:
        made += await insert_jobs(database.hot, queue_id, status, created_at=now - age)
    return [str(job_id) for job_id in made]


MINUTE = timedelta(minutes=1)


async def test_without_jobs_there_is_one_empty_page(job_stub: JobStub, database: Database) -> None:
    assert await page(job_stub) == pb.ListJobsResponse()
    await insert_queue(database.hot, "emails")
    assert await page(job_stub, queue="emails") == pb.ListJobsResponse()


async def test_jobs_of_all_queues_and_statuses_are_merged_newest_first(
    job_stub: JobStub, database: Database
) -> None:
    emails = await insert_queue(database.hot, "emails")
    letters = await insert_queue(database.hot, "letters")
    by_age: dict[timedelta, str] = {}
    for n, status in enumerate(JobStatus):
        ages = (MINUTE * n, MINUTE * (n + 10))
        for queue_id, age in zip((emails, letters), ages, strict=True):
            [by_age[age]] = await insert_aged(database, queue_id, status, age)
    expected = [by_age[age] for age in sorted(by_age)]
    for page_size in (1, 5, 12, 100):
        shown = [ids(jobs) for jobs in await pages(job_stub, page_size=page_size)]
        assert [job_id for jobs in shown for job_id in jobs] == expected
        assert all(len(jobs) == page_size for jobs in shown[:-1])
        # No empty page follows a full one.
        assert shown[-1]
    for job in (await page(job_stub)).jobs:
        assert await get(job_stub, job.id) == job


async def test_jobs_of_one_moment_come_in_the_order_of_their_ids(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    made = await create_all(job_stub, [spec()] * 50)
    for page_size in (7, 25, 1000):
        shown = [job.id for jobs in await pages(job_stub, page_size=page_size) for job in jobs]
        assert shown == made[::-1]


async def test_page_sizes_are_coerced(job_stub: JobStub, database: Database) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    await insert_jobs(database.hot, queue_id, priorities=[0] * 1003)
    for asked, got in ((0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)):
        answer = await page(job_stub, page_size=asked)
        assert len(answer.jobs) == got
        assert answer.next_page_token


# -- Filters -------------------------------------------------------------------------------------


async def test_jobs_are_found_by_queue_status_and_type(
    job_stub: JobStub, database: Database
) -> None:
    queues = {name: await insert_queue(database.hot, name) for name in ("emails", "letters")}
    made = {
        (name, status): str((await insert_jobs(database.hot, queue_id, status))[0])
        for name, queue_id in queues.items()
        for status in JobStatus
    }
    special = (await create(job_stub, job_type="Special")).id
    made["emails", JobStatus.PENDING, "Special"] = special  # type: ignore[index]

    async def found(**fields: Any) -> set[str]:
        return set(ids((await page(job_stub, **fields)).jobs))

    def expected(*wanted: object) -> set[str]:
        return {job_id for key, job_id in made.items() if set(wanted) <= set(key)}

    for name, queue_id in queues.items():
        for queue in (name, str(queue_id), str(queue_id).upper()):
            assert await found(queue=queue) == expected(name)
    for status in JobStatus:
        assert await found(status=status) == expected(status)
        assert await found(status=status, queue="letters") == expected(status, "letters")
        kept = {special} if status is JobStatus.PENDING else set()
        assert await found(status=status, job_type="Special") == kept
    assert await found(job_type="Special") == {special}
    assert await found(job_type="special") == set()
    assert await found(job_type="test") == expected() - {special}
    assert await found(job_type="no such type, not even a legal one") == set()


async def test_jobs_are_found_by_all_labels_that_are_asked_for(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    labels: tuple[dict[str, str], ...] = (
        {},
        {"a": "1"},
        {"a": "1", "b": "2"},
        {"a": "2", "b": "2"},
        {"ключ": '"\\', "a": ""},
    )
    made = await create_all(job_stub, [spec(labels=each) for each in labels])
    # Where a job stands makes no difference.
    await complete(job_stub, (await acquire(job_stub, max_in_flight=3))[2].lease_token)

    async def found(**wanted: str) -> list[int]:
        jobs = (await page(job_stub, labels=wanted)).jobs
        return sorted(made.index(job.id) for job in jobs)

    assert await found() == [0, 1, 2, 3, 4]
    assert await found(a="1") == [1, 2]
    assert await found(b="2") == [2, 3]
    assert await found(a="1", b="2") == [2]
    assert await found(a="") == [4]
    assert await found(a="3") == await found(c="1") == await found(b="1", a="2") == []
    assert await found(ключ='"\\') == [4]


async def test_jobs_are_found_by_when_they_were_made_and_are_scheduled_for(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    base = 4_000_000_000
    moments = [Timestamp(seconds=base + n) for n in range(4)]
    scheduled = [(await create(job_stub, scheduled_for=moment)).id for moment in moments]
    at_once = await create(job_stub)
    before = Timestamp()
    before.FromMicroseconds(at_once.created_at.ToMicroseconds() - 1)
    after = Timestamp()
    after.FromMicroseconds(at_once.created_at.ToMicroseconds() + 1)
    await cancel(job_stub, scheduled[1])

    async def found(**fields: Any) -> list[str]:
        return ids((await page(job_stub, **fields)).jobs)[::-1]

    # From is inclusive, to is not, and a job without a time is scheduled for none.
    assert await found(scheduled_from=Timestamp()) == scheduled
    assert await found(scheduled_from=moments[1], scheduled_to=moments[3]) == scheduled[1:3]
    assert await found(scheduled_to=moments[1]) == scheduled[:1]
    assert await found(scheduled_from=moments[2], scheduled_to=moments[2]) == []
    beyond = Timestamp(seconds=base + 3, nanos=1000)
    assert await found(scheduled_from=beyond) == []
    assert await found(created_from=at_once.created_at) == [at_once.id]
    assert await found(created_from=before, created_to=after) == [at_once.id]
    assert await found(created_to=at_once.created_at) == scheduled
    assert await found(created_from=after) == []
    assert await found(created_from=before, scheduled_from=Timestamp()) == []
    assert await found(created_to=after, status=JobStatus.CANCELLED) == [scheduled[1]]


async def test_filters_hold_on_every_page(job_stub: JobStub, database: Database) -> None:
    await insert_queue(database.hot, "emails")
    await insert_queue(database.hot, "letters")
    jobs = [
        spec(("emails", "letters")[n % 2], job_type=f"t{n % 3}", labels={"n": str(n % 5)})
        for n in range(120)
    ]
    made = await create_all(job_stub, jobs)
    shown = await pages(job_stub, queue="letters", job_type="t1", labels={"n": "2"}, page_size=1)
    assert [job.id for jobs in shown for job in jobs] == [made[n] for n in (97, 67, 37, 7)]
    assert [len(jobs) for jobs in shown] == [1, 1, 1, 1]


async def test_a_queue_that_is_not_there_cannot_be_listed(
    replica: JobReplica, queue_stub: QueueStub
) -> None:
    job_stub = replica.stub
    await make(queue_stub)
    job = await create(job_stub)
    cancelled = await cancel(job_stub, job.id)
    await queue_stub.DeleteQueue(queue_service_pb2.DeleteQueueRequest(queue="emails"))

    async def is_forgotten() -> bool:
        return (
            await replica.server.use_cases.browser._routes.find(DEFAULT_PROJECT_ID, "emails")
            is None
        )

    await eventually(is_forgotten, "the other service's notification has come")
    for missing in ("emails", job.queue_id, "letters"):
        refusal = await expect_error(
            page(job_stub, queue=missing), StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND"
        )
        assert refusal.metadata == {"queue": missing}
    # The project's list has its jobs as long as their history is kept.
    assert list((await page(job_stub)).jobs) == [cancelled]


# -- Pages ---------------------------------------------------------------------------------------


async def test_pages_neither_repeat_nor_miss_jobs_that_finish_meanwhile(
    job_stub: JobStub, other_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    made = await create_all(job_stub, [spec(payload=str(n)) for n in range(60)])
    leases = await acquire(job_stub)
    shown: list[str] = []
    token = ""
    for turn in range(20):
        answer = await page(other_stub, page_size=7, page_token=token)
        shown += ids(answer.jobs)
        token = answer.next_page_token
        if not token:
            break
        # Some of every part of the list finish, fail, come back; and new ones come before it.
        moving = leases[turn::20]
        await settle(job_stub, [succeeded(moving[0].lease_token)])
        await fail(job_stub, moving[1].lease_token, retryable=False)
        await retry(job_stub, moving[1].job.id)
        await cancel(job_stub, moving[2].job.id, interrupt_running=True)
        await fail(job_stub, moving[2].lease_token)
        await create(job_stub)
    assert shown == made[::-1]


async def test_jobs_that_come_to_a_status_between_two_pages_do_not_disturb_its_list(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    made = await create_all(job_stub, [spec()] * 9)
    leases = await acquire(job_stub, max_in_flight=6)
    first = await page(job_stub, status=JobStatus.PROCESSING, page_size=3)
    assert ids(first.jobs) == made[5:2:-1]
    await complete(job_stub, leases[4].lease_token)
    await complete(job_stub, leases[1].lease_token)
    await acquire(job_stub)
    second = await page(
        job_stub, status=JobStatus.PROCESSING, page_size=3, page_token=first.next_page_token
    )
    assert ids(second.jobs) == [made[2], made[0]]
    assert not second.next_page_token


async def test_a_token_of_another_list_or_an_altered_one_is_refused(
    job_stub: JobStub, queue_stub: QueueStub, database: Database
) -> None:
    other = str(await insert_project(database.hot))
    for name in ("emails", "letters"):
        await make(queue_stub, name)
        await create_all(job_stub, [spec(name)] * 2)
    token = (await page(job_stub, queue="emails", page_size=1)).next_page_token
    queues = await queue_stub.ListQueues(queue_service_pb2.ListQueuesRequest(page_size=1))
    altered = token[:-1] + ("A" if token[-1] != "A" else "B")
    for fields in (
        {"page_token": token},
        {"page_token": token, "queue": "letters"},
        {"page_token": token, "queue": "emails", "status": JobStatus.PENDING},
        {"page_token": token, "queue": "emails", "labels": {"a": "1"}},
        {"page_token": token, "queue": "emails", "created_from": Timestamp()},
        {"page_token": altered, "queue": "emails"},
        {"page_token": token[1:], "queue": "emails"},
        {"page_token": queues.next_page_token},
        {"page_token": "2"},
        {"page_token": "ü"},
        {"page_token": "\0"},
        {"page_token": "x" * 2048},
    ):
        await expect_error(
            page(job_stub, **fields), StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"
        )
    token = (await page(job_stub, page_size=1)).next_page_token
    await expect_error(
        page(job_stub, project_id=other, page_token=token),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_PAGE_TOKEN",
    )
    # The page's size is no filter.
    assert len((await page(job_stub, page_size=100, page_token=token)).jobs) == 3


# -- Large jobs ----------------------------------------------------------------------------------


def text(size: int) -> str:
    return f'"{"x" * (size - 2)}"'


async def test_a_page_ends_before_its_jobs_pass_two_mib(
    job_stub: JobStub, queue_stub: QueueStub, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "large")
    await database.hot.execute("UPDATE taskforge.queues SET max_payload_bytes = 1048576")
    made = [(await create(job_stub, "large", payload=text(900_000))).id for _ in range(5)]
    # Three documents of one job, which together are larger than a page.
    [lease] = await acquire(job_stub, max_in_flight=1)
    assert lease.job.id == made[0]
    await complete(job_stub, lease.lease_token, text(MIB))
    shown = await pages(job_stub, queue=str(queue_id))
    assert [job.id for jobs in shown for job in jobs] == made[::-1]
    assert [len(jobs) for jobs in shown] == [2, 2, 1]
    for jobs in shown:
        assert sum(job.ByteSize() for job in jobs) < 2 * MIB


async def test_a_job_larger_than_a_page_is_a_page(job_stub: JobStub, database: Database) -> None:
    await insert_queue(database.hot, "large")
    await database.hot.execute("UPDATE taskforge.queues SET max_payload_bytes = 1048576")
    made = [(await create(job_stub, "large", payload=text(MIB), max_attempts=3)).id]
    for _ in range(2):
        [lease] = await acquire(job_stub)
        await fail(job_stub, lease.lease_token, detail=text(8192), retry_after=Duration())
    [lease] = await acquire(job_stub)
    await complete(job_stub, lease.lease_token, text(MIB))
    made.append((await create(job_stub, "large")).id)
    shown = await pages(job_stub)
    assert [ids(jobs) for jobs in shown] == [[made[1]], [made[0]]]


@pytest.mark.parametrize("part", ["labels", "progress"])
async def test_what_is_beside_the_payload_counts_as_well(
    job_stub: JobStub, database: Database, part: str
) -> None:
    await insert_queue(database.hot, "emails")
    labels = {f"{n:02}" + "k" * 61: "x" * 255 for n in range(32)} if part == "labels" else {}
    made = await create_all(job_stub, [spec(labels=labels)] * 300)
    if part == "progress":
        session_id = str(uuid4())
        leases = await acquire(job_stub, session_id, max_in_flight=300)
        for start in (0, 150):
            held = [
                pb.HeldLease(lease_token=lease.lease_token, progress=text(16_384))
                for lease in leases[start : start + 150]
            ]
            await heartbeat(job_stub, session_id, start + 1, held)
    shown = await pages(job_stub, page_size=1000)
    assert [job.id for jobs in shown for job in jobs] == made[::-1]
    assert len(shown) > 1
    for jobs in shown:
        assert sum(job.ByteSize() for job in jobs) < 2.2 * MIB
