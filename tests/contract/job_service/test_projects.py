"""Projects are worlds apart: another one's things look exactly like things that do not exist."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from google.protobuf.message import Message
from grpc import StatusCode
from tests.support.job_calls import acquire, create, heartbeat, invoke, spec
from tests.support.lease_streams import lease_stream
from tests.support.refusals import Refusal, expect_error
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub

from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.statuses import JobStatus

Request = Callable[[str], Message]
"""Makes a request about a project."""


def of_project(project_id: str) -> list[Message]:
    """A request of every call that names a project."""
    lease: dict[str, Any] = {"session_id": str(uuid4()), "max_in_flight": 1}
    job_id = str(uuid4())
    return [
        pb.CreateJobRequest(project_id=project_id, job=spec()),
        pb.BatchCreateJobsRequest(project_id=project_id, jobs=[spec()]),
        pb.GetJobRequest(project_id=project_id, job_id=job_id),
        pb.ListJobsRequest(project_id=project_id),
        pb.GetJobStatsRequest(project_id=project_id),
        pb.CancelJobRequest(project_id=project_id, job_id=job_id),
        pb.RetryJobRequest(project_id=project_id, job_id=job_id),
        pb.LeaseJobsRequest(project_id=project_id, **lease),
        pb.AcquireJobsRequest(project_id=project_id, **lease),
        pb.HeartbeatRequest(project_id=project_id, session_id=str(uuid4()), sequence=1),
    ]


async def test_a_project_that_is_not_there_is_refused_by_every_call(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    unknown = str(uuid4())
    async with unchanged(database.hot):
        for request in of_project(unknown):
            refusal = await expect_error(
                invoke(job_stub, request), StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND"
            )
            assert refusal.metadata == {"project": unknown}


async def test_the_default_project_may_be_named_in_any_case(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    job = await create(job_stub)
    for name in (str(DEFAULT_PROJECT_ID), str(DEFAULT_PROJECT_ID).upper()):
        request = pb.GetJobRequest(project_id=name, job_id=job.id)
        assert (await job_stub.GetJob(request)).job == job


async def refusal_of(stub: JobStub, request: Message, reason: str) -> Refusal:
    """The refusal, with what the request named itself taken out."""
    refusal = await expect_error(invoke(stub, request), StatusCode.NOT_FOUND, reason)
    for name in ("queue", "job"):
        if name in refusal.metadata:
            refusal.message = refusal.message.replace(refusal.metadata[name], "…")
            refusal.metadata[name] = "…"
    refusal.info.Clear()
    return refusal


async def test_a_foreign_job_looks_like_a_missing_one_in_every_status(
    job_stub: JobStub, database: Database
) -> None:
    other = await insert_project(database.hot)
    queue_id = await insert_queue(database.hot, "emails", project_id=other)
    foreign = [
        str(job_id)
        for status in JobStatus
        for job_id in await insert_jobs(database.hot, queue_id, status, project_id=other)
    ]
    calls: list[Request] = [
        lambda job_id: pb.GetJobRequest(job_id=job_id),
        lambda job_id: pb.CancelJobRequest(job_id=job_id),
        lambda job_id: pb.CancelJobRequest(job_id=job_id, interrupt_running=True),
        lambda job_id: pb.RetryJobRequest(job_id=job_id, additional_attempts=1),
    ]
    async with unchanged(database.hot):
        for call in calls:
            missing = await refusal_of(job_stub, call(str(uuid4())), "JOB_NOT_FOUND")
            for job_id in foreign:
                assert await refusal_of(job_stub, call(job_id), "JOB_NOT_FOUND") == missing


async def test_a_foreign_queue_looks_like_a_missing_one(
    job_stub: JobStub, database: Database
) -> None:
    other = await insert_project(database.hot)
    queue_id = await insert_queue(database.hot, "theirs", project_id=other)
    # The cache of the other project's queues must not serve this one.
    request = pb.CreateJobRequest(project_id=str(other), job=spec("theirs"))
    await job_stub.CreateJob(request)
    lease: dict[str, Any] = {"session_id": str(uuid4()), "max_in_flight": 1}
    calls: list[Request] = [
        lambda queue: pb.CreateJobRequest(job=spec(queue)),
        lambda queue: pb.BatchCreateJobsRequest(jobs=[spec(queue)], all_or_nothing=True),
        lambda queue: pb.ListJobsRequest(queue=queue),
        lambda queue: pb.GetJobStatsRequest(queue=queue),
        lambda queue: pb.LeaseJobsRequest(queues=[queue], **lease),
        lambda queue: pb.AcquireJobsRequest(queues=[queue], **lease),
    ]
    async with unchanged(database.hot):
        for call in calls:
            missing = await refusal_of(job_stub, call("missing"), "QUEUE_NOT_FOUND")
            for foreign in ("theirs", str(queue_id)):
                assert await refusal_of(job_stub, call(foreign), "QUEUE_NOT_FOUND") == missing


async def test_a_foreign_item_of_a_batch_is_refused_alone(
    job_stub: JobStub, database: Database
) -> None:
    other = await insert_project(database.hot)
    theirs = await insert_queue(database.hot, "theirs", project_id=other)
    await insert_queue(database.hot, "ours")
    jobs = [spec("ours"), spec(str(theirs)), spec("ours")]
    answer = await job_stub.BatchCreateJobs(pb.BatchCreateJobsRequest(jobs=jobs))
    assert [result.WhichOneof("result") for result in answer.results] == [
        "job_id",
        "error",
        "job_id",
    ]
    rows = await database.hot.fetch("SELECT DISTINCT project_id FROM taskforge.jobs")
    assert [row["project_id"] for row in rows] == [DEFAULT_PROJECT_ID]


async def test_lists_and_counts_are_of_one_project(job_stub: JobStub, database: Database) -> None:
    other = await insert_project(database.hot)
    for project_id in (DEFAULT_PROJECT_ID, other):
        queue_id = await insert_queue(database.hot, "emails", project_id=project_id)
        for status in JobStatus:
            await insert_jobs(database.hot, queue_id, status, project_id=project_id)
    for project_id in (DEFAULT_PROJECT_ID, other):
        for queue in ("", "emails"):
            named = str(project_id)
            listing = pb.ListJobsRequest(project_id=named, queue=queue)
            jobs = (await job_stub.ListJobs(listing)).jobs
            assert len(jobs) == 6
            assert {job.project_id for job in jobs} == {named}
            counting = pb.GetJobStatsRequest(project_id=named, queue=queue)
            assert (await job_stub.GetJobStats(counting)).total == 6


async def test_the_same_session_in_two_projects_is_two_sessions(
    job_stub: JobStub, other_stub: JobStub, database: Database
) -> None:
    project_id = await insert_project(database.hot)
    other = str(project_id)
    await insert_queue(database.hot, "emails")
    await insert_queue(database.hot, "emails", project_id=project_id)
    session_id = str(uuid4())
    async with (
        lease_stream(job_stub, session_id) as ours,
        lease_stream(other_stub, session_id, project_id=other) as foreign,
    ):
        job = await create(job_stub)
        await ours.until_leases(1)
        await job_stub.CreateJob(pb.CreateJobRequest(project_id=other, job=spec()))
        await foreign.until_leases(1)
        assert [lease.job.id for lease in ours.leases] == [job.id]
        await expect_error(
            acquire(other_stub, session_id, project_id=other),
            StatusCode.FAILED_PRECONDITION,
            "SESSION_HAS_STREAM",
        )
        for named, stream in (("", ours), (other, foreign)):
            both = ours.tokens + foreign.tokens
            answer = await heartbeat(job_stub, session_id, 1, both, project_id=named)
            held = [
                verdict.lease_token
                for verdict in answer.verdicts
                if verdict.verdict == pb.LeaseVerdict.VERDICT_HELD
            ]
            assert held == stream.tokens
