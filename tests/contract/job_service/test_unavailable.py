"""What callers meet when the database or the server cannot serve them: what is safe to repeat."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import grpc
import pytest
from google.protobuf.message import Message
from grpc import StatusCode
from structlog.testing import capture_logs
from tests.support.job_calls import (
    HELD,
    acquire,
    cancel,
    complete,
    create,
    create_all,
    fail,
    get,
    heartbeat,
    invoke,
    spec,
    verdicts,
)
from tests.support.job_replicas import JobReplica, job_replica, until_connected
from tests.support.lease_streams import lease_stream
from tests.support.leases import miscounts
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.waiting import eventually

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.settings import Settings
from taskforge_core.tokens import STREAM, encode_token, token_head

ID = str(uuid4())
TOKEN = encode_token(token_head(uuid4(), STREAM), ID, 1)


@pytest.fixture
async def lonely_replica(open_folder: Path) -> AsyncIterator[JobReplica]:
    """A replica whose database is not there."""
    settings = Settings(
        database_url=f"postgresql://nobody@/none?host={open_folder}", authentication="off"
    )
    async with job_replica(settings, open_folder, "job") as replica:
        yield replica


@pytest.fixture
async def impatient_replica(settings: Settings, open_folder: Path) -> AsyncIterator[JobReplica]:
    """A replica that waits for locks for a tenth of a second."""
    impatient = settings.model_copy(update={"lock_timeout": timedelta(milliseconds=100)})
    async with job_replica(impatient, open_folder, "job") as replica:
        yield replica


def one_of_each() -> list[Message]:
    """A request of every call."""
    lease: dict[str, Any] = {"session_id": ID, "max_in_flight": 1}
    settlement = pb.Settlement(lease_token=TOKEN, release=pb.Release())
    return [
        pb.CreateJobRequest(job=spec()),
        pb.BatchCreateJobsRequest(jobs=[spec()]),
        pb.GetJobRequest(job_id=ID),
        pb.ListJobsRequest(),
        pb.GetJobStatsRequest(),
        pb.CancelJobRequest(job_id=ID),
        pb.RetryJobRequest(job_id=ID),
        pb.LeaseJobsRequest(**lease),
        pb.AcquireJobsRequest(**lease),
        pb.HeartbeatRequest(session_id=ID, sequence=1),
        pb.CompleteJobRequest(lease_token=TOKEN),
        pb.FailJobRequest(lease_token=TOKEN),
        pb.ReleaseJobRequest(lease_token=TOKEN),
        pb.BatchSettleJobsRequest(settlements=[settlement]),
        pb.UpdateWorkerRequest(session_id=ID),
        pb.ListWorkersRequest(),
    ]


def test_each_call_of_the_service_is_among_them() -> None:
    names = {type(request).__name__.removesuffix("Request") for request in one_of_each()}
    service = pb.DESCRIPTOR.services_by_name["JobService"]
    assert names == {method.name for method in service.methods}


async def test_without_a_database_every_call_can_be_tried_again(
    lonely_replica: JobReplica,
) -> None:
    async def is_refused(request: Message) -> None:
        refusal = await expect_error(
            invoke(lonely_replica.stub, request), StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"
        )
        assert refusal.retry_info is not None
        assert refusal.retry_info.retry_delay.ToTimedelta() > timedelta(0)

    await asyncio.gather(*(is_refused(request) for request in one_of_each()))


async def test_what_another_transaction_keeps_locked_can_be_tried_again(
    impatient_replica: JobReplica, database: Database
) -> None:
    stub = impatient_replica.stub
    await insert_queue(database.hot, "emails")
    await create_all(stub, [spec()] * 3)
    session_id = str(uuid4())
    one, two = await acquire(stub, session_id, max_in_flight=2)

    def calls() -> list[Coroutine[Any, Any, Any]]:
        return [
            heartbeat(stub, session_id, 1, [one.lease_token]),
            cancel(stub, two.job.id, interrupt_running=True),
            complete(stub, one.lease_token, "1"),
            fail(stub, two.lease_token),
        ]

    async with (
        unchanged(database.hot),
        database.hot.acquire() as connection,
        connection.transaction(),
    ):
        await connection.execute("SELECT FROM taskforge.sessions FOR UPDATE")
        await connection.execute("SELECT FROM taskforge.jobs FOR UPDATE")
        for call in calls():
            refusal = await expect_error(call, StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
            assert refusal.retry_info is not None
        # Reading waits for nobody.
        assert (await get(stub, one.job.id)).status == job_pb2.JOB_STATUS_PROCESSING
    beaten, cancelled, completed, failed = [await call for call in calls()]
    assert verdicts(beaten) == [HELD]
    assert cancelled.HasField("cancel_requested_at")
    assert completed == job_pb2.JOB_STATUS_SUCCEEDED
    assert failed == job_pb2.JOB_STATUS_CANCELLED


async def test_a_locked_job_does_not_hold_up_the_others_of_its_batch(
    impatient_replica: JobReplica, database: Database
) -> None:
    stub = impatient_replica.stub
    await insert_queue(database.hot, "emails")
    await create_all(stub, [spec()] * 20)
    leases = await acquire(stub)
    async with database.hot.acquire() as connection, connection.transaction():
        await connection.execute(
            "SELECT FROM taskforge.jobs WHERE id = $1 FOR UPDATE", leases[7].job.id
        )
        outcomes = await asyncio.gather(
            *(complete(stub, lease.lease_token) for lease in leases), return_exceptions=True
        )
    refused = outcomes.pop(7)
    assert isinstance(refused, grpc.aio.AioRpcError)
    assert refused.code() is StatusCode.UNAVAILABLE
    assert set(outcomes) == {job_pb2.JOB_STATUS_SUCCEEDED}
    assert await complete(stub, leases[7].lease_token) == job_pb2.JOB_STATUS_SUCCEEDED
    assert await miscounts(database.hot) == []


async def test_a_stream_outlives_the_loss_of_every_connection_to_the_database(
    replica: JobReplica, database: Database
) -> None:
    await until_connected(replica)
    await insert_queue(database.hot, "emails")

    async def create_at_last() -> None:
        async def is_created() -> bool:
            try:
                await create(replica.stub, request_id=request_id)
            except grpc.aio.AioRpcError as error:
                if error.code() is not StatusCode.UNAVAILABLE:
                    raise
                return False
            return True

        request_id = str(uuid4())
        await eventually(is_created, "a job is created")

    async with lease_stream(replica.stub) as stream:
        await create_at_last()
        await stream.until_leases(1)
        for expected in (2, 3):
            await database.hot.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND application_name NOT LIKE 'taskforge:test%'"
            )
            await create_at_last()
            await stream.until_leases(expected)
        assert stream.lost == []
    assert await database.hot.fetchval("SELECT count(*) FROM taskforge.jobs") == 3


# -- Our own defects -----------------------------------------------------------------------------


async def broken(*_: object) -> NoReturn:
    raise RuntimeError("SELECT secret FROM somewhere")


async def test_a_defect_is_told_without_its_words_and_with_the_logs_request_id(
    replica: JobReplica, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    do = replica.server.use_cases
    for part, method in (
        (do.enqueuer, "create"),
        (do.enqueuer, "create_batch"),
        (do.browser, "get"),
        (do.browser, "list"),
        (do.browser, "stats"),
        (do.changer, "cancel"),
        (do.changer, "retry"),
        (do.streamer, "stream"),
        (do.acquirer, "acquire"),
        (do.heartbeats, "beat"),
        (do.settler, "settle"),
        (do.settler, "settle_batch"),
        (do.staff, "update"),
        (do.staff, "list"),
    ):
        monkeypatch.setattr(part, method, broken)
    # They also keep the tracebacks from being drawn.
    with capture_logs() as logs:
        for request in one_of_each():
            async with unchanged(database.hot):
                refusal = await expect_error(
                    invoke(replica.stub, request), StatusCode.INTERNAL, "INTERNAL"
                )
            assert list(refusal.metadata) == ["request_id"]
            logged = [entry for entry in logs if entry.get("reason") == "INTERNAL"]
            assert logged[-1]["request_id"] == refusal.metadata["request_id"]
            assert "secret" not in refusal.message
            assert "Error" not in refusal.message
        call = replica.stub.GetJob(
            pb.GetJobRequest(job_id=ID), metadata=[("x-request-id", "from-the-caller")]
        )
        refusal = await expect_error(call, StatusCode.INTERNAL, "INTERNAL")
        assert refusal.metadata == {"request_id": "from-the-caller"}


async def test_a_defect_in_a_batch_of_calls_fails_them_and_none_after_them(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec()] * 4)
    leases = await acquire(replica.stub)
    await database.hot.execute("ALTER TABLE taskforge.queue_deltas RENAME COLUMN n TO m")
    with capture_logs():
        for lease in leases:
            await expect_error(
                complete(replica.stub, lease.lease_token), StatusCode.INTERNAL, "INTERNAL"
            )
    await database.hot.execute("ALTER TABLE taskforge.queue_deltas RENAME COLUMN m TO n")
    for lease in leases:
        assert await complete(replica.stub, lease.lease_token) == job_pb2.JOB_STATUS_SUCCEEDED
    assert await miscounts(database.hot) == []
