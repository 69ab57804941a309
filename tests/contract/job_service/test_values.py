"""What fields must hold beside their limits, and the limits themselves, which are taken."""

from typing import Any
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from tests.support.job_calls import (
    NO_JSON,
    acquire,
    acquire_one,
    complete,
    create,
    get,
    heartbeat,
)
from tests.support.lease_streams import lease_stream
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub

from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database

# -- What must be JSON ---------------------------------------------------------------------------


async def test_results_details_and_progress_must_be_json(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create(job_stub)
    session_id = str(uuid4())
    token = (await acquire_one(job_stub, session_id)).lease_token
    async with unchanged(database.hot):
        for text in (*NO_JSON, "{}x"):
            if len(text) <= 8192:
                failure = pb.Failure(detail=text)
                refusal = await expect_error(
                    job_stub.FailJob(pb.FailJobRequest(lease_token=token, failure=failure)),
                    StatusCode.INVALID_ARGUMENT,
                    "INVALID_JSON",
                )
                assert refusal.metadata == {"field": "failure.detail"}
            held = pb.HeldLease(lease_token=token, progress=text)
            refusal = await expect_error(
                heartbeat(job_stub, session_id, 1, [held]),
                StatusCode.INVALID_ARGUMENT,
                "INVALID_JSON",
            )
            assert refusal.metadata == {"field": "held[0].progress"}
            refusal = await expect_error(
                job_stub.CompleteJob(pb.CompleteJobRequest(lease_token=token, result=text)),
                StatusCode.INVALID_ARGUMENT,
                "INVALID_JSON",
            )
            assert refusal.metadata == {"field": "result"}
        empty = pb.HeldLease(lease_token=token, progress="")
        await expect_error(
            heartbeat(job_stub, session_id, 1, [empty]),
            StatusCode.INVALID_ARGUMENT,
            "INVALID_JSON",
        )


async def test_results_and_progress_may_be_as_large_as_the_contract_says(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    job = await create(job_stub)
    session_id = str(uuid4())
    token = (await acquire_one(job_stub, session_id)).lease_token
    progress = '"' + "x" * 16_382 + '"'
    held = pb.HeldLease(lease_token=token, progress=progress)
    await heartbeat(job_stub, session_id, 1, [held])
    result = '"' + "ü" * 524_287 + '"'
    await job_stub.CompleteJob(pb.CompleteJobRequest(lease_token=token, result=result))
    shown = await get(job_stub, job.id)
    assert shown.progress == progress
    assert shown.result == result


# -- What must be a token ------------------------------------------------------------------------


async def test_a_text_that_is_no_lease_token_is_refused(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create(job_stub)
    session_id = str(uuid4())
    token = (await acquire_one(job_stub, session_id)).lease_token
    async with unchanged(database.hot):
        for text in ("x", token[:-20], token + "g", token + "f" * 16, " " + token, token + "\0"):
            for call in (
                job_stub.CompleteJob(pb.CompleteJobRequest(lease_token=text)),
                job_stub.FailJob(pb.FailJobRequest(lease_token=text)),
                job_stub.ReleaseJob(pb.ReleaseJobRequest(lease_token=text)),
                heartbeat(job_stub, session_id, 1, [token, text]),
            ):
                await expect_error(call, StatusCode.INVALID_ARGUMENT, "INVALID_LEASE_TOKEN")


# -- The limits themselves -----------------------------------------------------------------------


async def test_lease_calls_take_the_limits_themselves(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    most: dict[str, Any] = {
        "max_in_flight": 10_000,
        "max_in_flight_bytes": 2**63 - 1,
        "max_message_bytes": 16_777_216,
        "lease_duration": Duration(seconds=3600),
        "worker_id": "ü" * 255,
        "queues": ["emails"] * 1000,
        "job_types": ["t" * 100] * 100,
    }
    least: dict[str, Any] = {
        "max_in_flight": 1,
        "max_message_bytes": 65_536,
        "lease_duration": Duration(seconds=1),
    }
    for fields in (most, least):
        assert await acquire(job_stub, **fields) == []
        async with lease_stream(job_stub, **fields) as stream:
            await create(job_stub, job_type="t" * 100)
            [lease] = await stream.until_leases(1)
            assert lease.job.worker_id == fields.get("worker_id", "")
            await complete(job_stub, lease.lease_token)


async def test_a_heartbeat_takes_ten_thousand_leases_and_the_last_sequence(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create(job_stub)
    session_id = str(uuid4())
    token = (await acquire_one(job_stub, session_id)).lease_token
    answer = await heartbeat(job_stub, session_id, 2**63 - 1, [token] * 10_000)
    assert len(answer.verdicts) == 10_000
    assert {verdict.verdict for verdict in answer.verdicts} == {pb.LeaseVerdict.VERDICT_HELD}
