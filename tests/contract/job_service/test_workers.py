"""Who takes jobs, how many, and what they hold."""

from typing import Any
from uuid import uuid4

import pytest
from grpc import StatusCode
from tests.support.job_calls import acquire, complete, create_all, heartbeat, spec
from tests.support.job_replicas import JobReplica
from tests.support.lease_streams import lease_stream
from tests.support.refusals import expect_error
from tests.support.rows import insert_project, insert_queue
from tests.support.stubs import JobStub

from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database


async def update(stub: JobStub, session_id: str, **changes: Any) -> pb.Worker:
    request = pb.UpdateWorkerRequest(session_id=session_id, **changes)
    return (await stub.UpdateWorker(request)).worker


async def workers(stub: JobStub, **fields: Any) -> list[pb.Worker]:
    return list((await stub.ListWorkers(pb.ListWorkersRequest(**fields))).workers)


@pytest.fixture(params=["its own replica", "another replica"])
def asked(
    request: pytest.FixtureRequest, replica: JobReplica, other_replica: JobReplica
) -> JobStub:
    """The replica that is told of the change: a stream follows wherever it is served."""
    return replica.stub if request.param == "its own replica" else other_replica.stub


async def test_a_stream_takes_more_or_fewer_jobs_when_told_to(
    replica: JobReplica, asked: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec()] * 20)
    session_id = str(uuid4())
    async with lease_stream(replica.stub, session_id=session_id, max_in_flight=2) as stream:
        await stream.until_leases(2)
        assert (await update(asked, session_id, max_in_flight=5)).max_in_flight == 5
        await stream.until_leases(5)
        assert (await update(asked, session_id, max_in_flight=4)).held_jobs == 5
        demand = replica.server.dispatcher.demands[0]
        await stream.until(lambda _: demand.max_in_flight == 4, "the stream has heard")
        await complete(replica.stub, stream.tokens[0])
        await replica.dispatch()
        assert len(stream.leases) == 5
        await complete(replica.stub, stream.tokens[1])
        await stream.until_leases(6)


async def test_a_draining_session_gets_nothing_by_any_call_until_it_is_told_otherwise(
    replica: JobReplica, asked: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    session_id = str(uuid4())
    async with lease_stream(replica.stub, session_id=session_id, max_in_flight=2) as stream:
        await replica.until_taking(1)
        assert (await update(asked, session_id, draining=True)).draining
        await create_all(replica.stub, [spec()] * 3)
        await replica.dispatch()
        assert stream.leases == []
    async with lease_stream(replica.stub, session_id=session_id, max_in_flight=2) as stream:
        await replica.until_taking(1)
        await replica.dispatch()
        assert stream.leases == []
        assert not (await update(asked, session_id, draining=False)).draining
        await stream.until_leases(2)


async def test_a_session_that_is_not_there_cannot_be_changed(
    replica: JobReplica, database: Database
) -> None:
    session_id = str(uuid4())
    refusal = await expect_error(
        update(replica.stub, session_id, draining=True), StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"
    )
    assert refusal.metadata == {"session_id": session_id}
    other = await insert_project(database.hot, "other")
    await insert_queue(database.hot, "emails")
    await acquire(replica.stub, session_id)
    await expect_error(
        update(replica.stub, session_id, project_id=str(other)),
        StatusCode.NOT_FOUND,
        "SESSION_NOT_FOUND",
    )


async def test_workers_are_listed_with_what_they_hold(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec()] * 5)
    calling, gone = str(uuid4()), str(uuid4())
    held = await acquire(replica.stub, calling, max_in_flight=2, worker_id="b")
    await heartbeat(replica.stub, calling, 1, [lease.lease_token for lease in held])
    await acquire(replica.stub, gone, max_in_flight=1, worker_id="a")
    await database.hot.execute("UPDATE taskforge.jobs SET priority = 9 WHERE status = 1")
    async with lease_stream(replica.stub, worker_id="c", max_in_flight=1) as stream:
        await stream.until_leases(1)
        listed = await workers(replica.stub)
        assert [(each.worker_id, each.held_jobs, each.connected) for each in listed] == [
            ("a", 1, False),
            ("b", 2, False),
            ("c", 1, True),
        ]
        assert list(listed[1].held_job_ids) == [lease.job.id for lease in held]
        assert listed[1].HasField("last_heartbeat_at")
        assert not listed[0].HasField("last_heartbeat_at")


async def test_a_page_of_workers_is_followed_by_the_next(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec()] * 3)
    for name in "abc":
        await acquire(replica.stub, max_in_flight=1, worker_id=name)
    first = await replica.stub.ListWorkers(pb.ListWorkersRequest(page_size=2))
    assert [each.worker_id for each in first.workers] == ["a", "b"]
    rest = await replica.stub.ListWorkers(
        pb.ListWorkersRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [each.worker_id for each in rest.workers] == ["c"]
    assert rest.next_page_token == ""


async def test_a_session_that_holds_nothing_and_never_spoke_is_not_listed(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await acquire(replica.stub, worker_id="nobody")
    assert await workers(replica.stub) == []
