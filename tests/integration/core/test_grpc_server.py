"""The server set-up and its interceptor, over a real in-process server with fake servicers."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs
from tests.integration.core.serving import (
    JOB_SERVICE,
    OPEN,
    QUEUE_SERVICE,
    GeneratingJobs,
    WritingJobs,
    always,
    at_once,
    fake_jobs,
    fake_queues,
    health_stub,
    info,
    job_service,
    lease_request,
    queue_service,
    refused,
    running,
)

from taskforge.v1 import (
    job_pb2,
    job_service_pb2,
    job_service_pb2_grpc,
    queue_service_pb2,
    queue_service_pb2_grpc,
)
from taskforge_core.errors import NotFound
from taskforge_core.grpc_server import CannotListen, build_server, serve
from taskforge_core.settings import Settings

END: Any = grpc.aio.EOF  # type: ignore[attr-defined]


async def test_a_request_that_breaks_the_contract_never_reaches_the_servicer() -> None:
    queues = fake_queues()
    async with running(queue_service(queues)) as (_, channel):
        stub = queue_service_pb2_grpc.QueueServiceStub(channel)
        code, message, details = await refused(
            stub.CreateQueue(queue_service_pb2.CreateQueueRequest(name="", priority=10))
        )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert info(details).reason == "INVALID_REQUEST"
    bad = details["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert {violation.field for violation in bad.field_violations} == {"name", "priority"}
    assert all(violation.description for violation in bad.field_violations)
    assert bad.field_violations[0].description in message
    assert queues.seen == []


async def test_a_wrong_field_of_an_item_is_named_with_its_place() -> None:
    async with running(job_service(fake_jobs())) as (_, channel):
        stub = job_service_pb2_grpc.JobServiceStub(channel)
        request = job_service_pb2.BatchCreateJobsRequest(
            jobs=[job_pb2.JobSpec(queue="q", job_type="t", payload="1") for _ in range(3)]
        )
        request.jobs[2].priority = -1
        _, _, details = await refused(stub.BatchCreateJobs(request))
    bad = details["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [violation.field for violation in bad.field_violations] == ["jobs[2].priority"]


async def test_bytes_that_are_no_message_are_the_callers_fault() -> None:
    queues = fake_queues()
    async with running(queue_service(queues)) as (_, channel):
        raw = channel.unary_unary("/taskforge.v1.QueueService/GetQueue", None, None)
        for request in (b"\xff\xff\xff", b"\x12\x02\xc3\x28"):
            code, _, details = await refused(raw(request))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert info(details).reason == "INVALID_REQUEST"
    assert queues.seen == []


async def test_an_error_of_ours_arrives_with_its_reason() -> None:
    queues = fake_queues()

    async def behave() -> None:
        raise NotFound("QUEUE_NOT_FOUND", "there is no queue emails", metadata={"queue": "emails"})

    queues.behave = behave
    async with running(queue_service(queues)) as (_, channel):
        stub = queue_service_pb2_grpc.QueueServiceStub(channel)
        code, message, details = await refused(
            stub.GetQueue(queue_service_pb2.GetQueueRequest(queue="emails"))
        )
    assert code is grpc.StatusCode.NOT_FOUND
    assert message == "there is no queue emails"
    assert info(details).reason == "QUEUE_NOT_FOUND"
    assert dict(info(details).metadata) == {"queue": "emails"}


async def test_an_unforeseen_error_is_logged_under_the_callers_id_and_says_nothing() -> None:
    queues = fake_queues()

    async def behave() -> None:
        raise ZeroDivisionError("SELECT secret FROM passwords")

    queues.behave = behave
    async with running(queue_service(queues)) as (_, channel):
        stub = queue_service_pb2_grpc.QueueServiceStub(channel)
        request = queue_service_pb2.GetQueueRequest(queue="emails")
        with capture_logs() as logs:
            code, message, details = await refused(
                stub.GetQueue(request, metadata=[("x-request-id", "from-the-caller")])
            )
        _, _, unnamed = await refused(stub.GetQueue(request))
    assert code is grpc.StatusCode.INTERNAL
    assert info(details).reason == "INTERNAL"
    assert "secret" not in message + str(details)
    assert info(details).metadata["request_id"] == "from-the-caller"
    logged = [entry for entry in logs if entry.get("request_id") == "from-the-caller"]
    assert isinstance(logged[0]["exc_info"], ZeroDivisionError)
    assert len(info(unnamed).metadata["request_id"]) == 32


async def test_a_database_that_is_away_makes_the_call_worth_repeating() -> None:
    queues = fake_queues()

    async def behave() -> None:
        await asyncpg.connect("postgresql://nobody@127.0.0.1:1/nothing")

    queues.behave = behave
    async with running(queue_service(queues)) as (_, channel):
        stub = queue_service_pb2_grpc.QueueServiceStub(channel)
        code, _, details = await refused(
            stub.GetQueue(queue_service_pb2.GetQueueRequest(queue="emails"))
        )
    assert code is grpc.StatusCode.UNAVAILABLE
    assert info(details).reason == "DATABASE_UNAVAILABLE"
    assert isinstance(details["RetryInfo"], error_details_pb2.RetryInfo)


async def test_a_call_that_its_client_gave_up_is_cancelled_in_the_servicer() -> None:
    queues = fake_queues()
    begun, ended = asyncio.Event(), asyncio.Event()

    async def behave() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise

    queues.behave = behave
    async with running(queue_service(queues)) as (_, channel):
        stub = queue_service_pb2_grpc.QueueServiceStub(channel)
        call = stub.GetQueue(queue_service_pb2.GetQueueRequest(queue="emails"))
        await begun.wait()
        call.cancel()
        async with asyncio.timeout(10):
            await ended.wait()


@pytest.mark.parametrize("jobs_class", [WritingJobs, GeneratingJobs])
async def test_a_stream_has_the_same_border(jobs_class: type[WritingJobs]) -> None:
    jobs = fake_jobs(jobs_class)
    jobs.error = NotFound("QUEUE_NOT_FOUND", "there is no queue emails")
    async with running(job_service(jobs)) as (_, channel):
        stub = job_service_pb2_grpc.JobServiceStub(channel)
        unnamed = stub.LeaseJobs(job_service_pb2.LeaseJobsRequest(max_in_flight=1))
        code, _, details = await refused(unnamed.read())
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert info(details).reason == "INVALID_REQUEST"
        good = stub.LeaseJobs(lease_request())
        assert await good.read() == job_service_pb2.LeaseJobsResponse()
        code, _, details = await refused(good.read())
        assert code is grpc.StatusCode.NOT_FOUND
        assert info(details).reason == "QUEUE_NOT_FOUND"
    assert jobs.ended == []


@pytest.mark.parametrize("jobs_class", [WritingJobs, GeneratingJobs])
async def test_a_stop_drains_the_streams_and_does_not_wait_for_its_grace(
    jobs_class: type[WritingJobs],
) -> None:
    jobs = fake_jobs(jobs_class)
    server = build_server(Settings(), "127.0.0.1:0", [job_service(jobs)], ready=always, access=OPEN)
    stop = asyncio.Event()
    serving = asyncio.create_task(
        serve(server, drain=[jobs.drain], stop=stop, handle_signals=False)
    )
    async with grpc.aio.insecure_channel(server.address) as channel:
        stream = job_service_pb2_grpc.JobServiceStub(channel).LeaseJobs(lease_request())
        await stream.read()
        watch = health_stub(channel).Watch(
            health_pb2.HealthCheckRequest(service=JOB_SERVICE.full_name)
        )
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stop.set()
        # The grace is 20 s.
        async with asyncio.timeout(5):
            await serving
        assert await stream.read() is END
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await watch.read() is END
    assert jobs.ended == ["drained"]


@pytest.mark.parametrize("jobs_class", [WritingJobs, GeneratingJobs])
async def test_a_drain_that_takes_too_long_or_fails_does_not_hold_the_server(
    jobs_class: type[WritingJobs],
) -> None:
    jobs = fake_jobs(jobs_class)
    settings = Settings.model_validate({"drain_grace": "200ms"})
    server = build_server(settings, "127.0.0.1:0", [job_service(jobs)], ready=always, access=OPEN)

    async def fail() -> None:
        raise ValueError("a hook")

    async def never() -> None:
        await asyncio.Event().wait()

    stop = asyncio.Event()
    serving = asyncio.create_task(
        serve(server, drain=[fail, never], stop=stop, handle_signals=False)
    )
    async with grpc.aio.insecure_channel(server.address) as channel:
        stream = job_service_pb2_grpc.JobServiceStub(channel).LeaseJobs(lease_request())
        await stream.read()
        stop.set()
        async with asyncio.timeout(10):
            await serving
    assert jobs.ended == ["cancelled"]


async def test_sigterm_drains_and_a_second_one_hurries() -> None:
    jobs = fake_jobs()
    draining = asyncio.Event()

    async def never() -> None:
        draining.set()
        await asyncio.Event().wait()

    server = build_server(Settings(), "127.0.0.1:0", [job_service(jobs)], ready=always, access=OPEN)
    serving = asyncio.create_task(serve(server, drain=[never]))
    async with grpc.aio.insecure_channel(server.address) as channel:
        stream = job_service_pb2_grpc.JobServiceStub(channel).LeaseJobs(lease_request())
        await stream.read()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await draining.wait()
        assert not serving.done()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await serving
    assert jobs.ended == ["cancelled"]


async def test_health_tells_readiness_by_service_and_liveness_by_the_empty_name() -> None:
    is_ready = False

    async def ready() -> bool:
        return is_ready

    async with running(queue_service(fake_queues()), ready=ready) as (server, channel):
        health = health_stub(channel)

        async def status(service: str) -> int:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            return int(answer.status)

        assert await status("") == health_pb2.HealthCheckResponse.SERVING
        assert await status(QUEUE_SERVICE.full_name) == health_pb2.HealthCheckResponse.NOT_SERVING
        is_ready = True
        await server.health.refresh()
        assert await status(QUEUE_SERVICE.full_name) == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await status("taskforge.v1.Nothing")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_is_there_only_when_switched_on() -> None:
    async def listed(channel: grpc.aio.Channel) -> set[str]:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        call = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        answer = await call.read()
        return {service.name for service in answer.list_services_response.service}

    async with running(queue_service(fake_queues()), settings=Settings(reflection=True)) as (
        _,
        channel,
    ):
        assert QUEUE_SERVICE.full_name in await listed(channel)
    async with running(queue_service(fake_queues())) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await listed(channel)
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_above_the_limit_is_refused_before_it_is_read() -> None:
    queues = fake_queues()
    async with running(queue_service(queues), settings=Settings(max_message_bytes=64 * 1024)) as (
        _,
        channel,
    ):
        stub = queue_service_pb2_grpc.QueueServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as too_large:
            await stub.GetQueue(queue_service_pb2.GetQueueRequest(queue="q" * 65 * 1024))
        assert too_large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert queues.seen == []


async def test_an_unknown_method_is_unimplemented_and_not_remembered() -> None:
    async with running(queue_service(fake_queues())) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await channel.unary_unary("/taskforge.v1.QueueService/Nothing", None, None)(b"")
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_an_address_that_is_taken_is_an_error() -> None:
    async with running(queue_service(fake_queues())) as (server, _):
        with pytest.raises(CannotListen, match=server.address):
            build_server(Settings(), server.address, [], ready=always, access=OPEN)


@pytest.mark.parametrize(
    ("authentication", "address", "warnings"),
    [
        ("on", "127.0.0.1:0", []),
        ("off", "127.0.0.1:0", ["authentication_off"]),
        ("on", "0.0.0.0:0", ["keys_travel_in_plaintext"]),
    ],
)
async def test_what_lets_others_in_is_told_when_it_starts(
    authentication: Any, address: str, warnings: list[str]
) -> None:
    settings = Settings(authentication=authentication)
    server = build_server(settings, address, [], ready=always, access=OPEN)
    with capture_logs() as logs:
        await server.start()
        await server.stop(hurry=at_once())
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == warnings


async def test_with_reuse_port_two_servers_share_an_address() -> None:
    settings = Settings(reuse_port=True)
    async with running(queue_service(fake_queues()), settings=settings) as (server, _):
        second = build_server(settings, server.address, [], ready=always, access=OPEN)
        assert second.address == server.address
        await second.start()
        await second.stop(hurry=at_once())


async def test_it_serves_on_a_unix_socket(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'socket'}"
    server = build_server(
        Settings(), address, [queue_service(fake_queues())], ready=always, access=OPEN
    )
    assert server.address == address
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = queue_service_pb2_grpc.QueueServiceStub(channel)
            await stub.GetQueue(queue_service_pb2.GetQueueRequest(queue="emails"))
    finally:
        await server.stop(hurry=at_once())
