"""UpdateWorker and ListWorkers: who takes jobs, how many, and what they hold."""

from typing import Any
from uuid import uuid4

import pytest
from grpc import StatusCode
from tests.support.job_calls import (
    acquire,
    complete,
    create,
    create_all,
    heartbeat,
    spec,
)
from tests.support.job_replicas import JobReplica
from tests.support.lease_streams import lease_stream
from tests.support.refusals import expect_error
from tests.support.rows import insert_project, insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub
from tests.support.waiting import eventually

from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID


async def update(stub: JobStub, session_id: str, **fields: Any) -> pb.Worker:
    request = pb.UpdateWorkerRequest(session_id=session_id, **fields)
    return (await stub.UpdateWorker(request)).worker


async def workers(stub: JobStub, **fields: Any) -> list[pb.Worker]:
    return list((await stub.ListWorkers(pb.ListWorkersRequest(**fields))).workers)


@pytest.fixture(params=["same replica", "other replica"])
def asked(
    request: pytest.FixtureRequest, replica: JobReplica, other_replica: JobReplica
) -> JobStub:
    """Who is asked for the change; the streams are open at `replica`."""
    return replica.stub if request.param == "same replica" else other_replica.stub


@pytest.mark.usefixtures("no_polls")
async def test_a_stream_may_hold_more_or_fewer_from_then_on(
    replica: JobReplica, asked: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec(payload=str(n)) for n in range(12)])
    async with lease_stream(replica.stub, max_in_flight=2) as stream:
        await stream.until_leases(2)
        worker = await update(asked, stream.session_id, max_in_flight=5)
        assert (worker.max_in_flight, worker.draining, worker.connected) == (5, False, True)
        await stream.until_leases(5)
        assert (await update(asked, stream.session_id, max_in_flight=3)).max_in_flight == 3
        demand = replica.server.dispatcher.demands[0]

        async def is_known() -> bool:
            return demand.max_in_flight == 3

        await eventually(is_known, "the stream's replica knows of it")
        # What it holds beyond it may be finished, and is not taken away.
        for token in stream.tokens[:2]:
            await complete(replica.stub, token)
        await replica.dispatch()
        assert len(stream.leases) == 5
        assert stream.lost == []
        await complete(replica.stub, stream.tokens[2])
        await stream.until_leases(6)
        await replica.dispatch()
        assert len(stream.leases) == 6


@pytest.mark.usefixtures("no_polls")
async def test_a_draining_worker_gets_no_more_jobs_until_it_is_taken_back(
    replica: JobReplica, asked: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec(payload=str(n)) for n in range(4)])
    async with lease_stream(replica.stub, max_in_flight=2) as stream:
        await stream.until_leases(2)
        worker = await update(asked, stream.session_id, draining=True)
        assert (worker.draining, worker.max_in_flight, worker.held_jobs) == (True, 2, 2)
        # It settles what it holds, and gets nothing for it, not even by a claim that follows.
        for token in stream.tokens:
            await complete(replica.stub, token)
        await replica.dispatch()
        assert len(stream.leases) == 2
        answer = await heartbeat(replica.stub, stream.session_id, 1)
        assert not answer.reconnect
        await replica.dispatch()
        assert len(stream.leases) == 2
        assert not (await update(asked, stream.session_id, draining=False)).draining
        await stream.until_leases(4)


async def test_draining_binds_later_calls_of_the_session_too(
    replica: JobReplica, asked: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec()] * 3)
    session_id = str(uuid4())
    [held] = await acquire(replica.stub, session_id, max_in_flight=1)
    await update(asked, session_id, draining=True)
    await complete(replica.stub, held.lease_token)
    assert await acquire(replica.stub, session_id) == []
    assert await acquire(asked, session_id) == []
    # Others are served.
    assert len(await acquire(asked, max_in_flight=1)) == 1
    await update(asked, session_id, draining=False)
    assert len(await acquire(replica.stub, session_id)) == 1


async def test_the_next_call_says_again_how_many_the_session_may_hold(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    session_id = str(uuid4())
    await acquire(job_stub, session_id, max_in_flight=2)
    assert (await update(job_stub, session_id, max_in_flight=7)).max_in_flight == 7
    await acquire(job_stub, session_id, max_in_flight=4)
    assert (await update(job_stub, session_id)).max_in_flight == 4


async def test_an_update_that_asks_for_nothing_changes_nothing(
    job_stub: JobStub, database: Database
) -> None:
    session_id = str(uuid4())
    await acquire(job_stub, session_id, max_in_flight=2)
    await update(job_stub, session_id, draining=True)
    async with unchanged(database.hot):
        worker = await update(job_stub, session_id)
    assert (worker.session_id, worker.max_in_flight, worker.draining) == (session_id, 2, True)


async def test_a_session_that_is_not_there_is_not_found(
    job_stub: JobStub, database: Database
) -> None:
    other = await insert_project(database.hot)
    session_id = str(uuid4())
    await acquire(job_stub, session_id)
    async with unchanged(database.hot):
        for asked, project in ((str(uuid4()), ""), (session_id, str(other))):
            refusal = await expect_error(
                update(job_stub, asked, project_id=project, draining=True),
                StatusCode.NOT_FOUND,
                "SESSION_NOT_FOUND",
            )
            assert refusal.metadata == {"session_id": asked}


@pytest.mark.parametrize("max_in_flight", [0, -1, 10_001])
async def test_a_session_holds_between_one_and_ten_thousand(
    job_stub: JobStub, max_in_flight: int
) -> None:
    session_id = str(uuid4())
    await acquire(job_stub, session_id)
    call = update(job_stub, session_id, max_in_flight=max_in_flight)
    await expect_error(call, StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


# -- ListWorkers ---------------------------------------------------------------------------------


async def test_workers_are_shown_with_what_they_hold(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    ids = await create_all(replica.stub, [spec()] * 3)
    async with lease_stream(replica.stub, worker_id="a", max_in_flight=2) as stream:
        await stream.until_leases(2)
        [third] = await acquire(other_replica.stub, worker_id="b", max_in_flight=7)
        await heartbeat(replica.stub, stream.session_id, 1, stream.tokens)
        for stub in (replica.stub, other_replica.stub):
            first, second = await workers(stub)
            assert first.session_id == stream.session_id
            assert first.project_id == str(DEFAULT_PROJECT_ID)
            assert (first.worker_id, first.max_in_flight) == ("a", 2)
            assert (first.connected, first.draining) == (True, False)
            assert (first.held_jobs, list(first.held_job_ids)) == (2, ids[:2])
            assert first.created_at.ToDatetime() <= first.last_heartbeat_at.ToDatetime()
            assert first.expires_at.ToDatetime() > first.last_heartbeat_at.ToDatetime()
            assert (second.worker_id, second.connected) == ("b", False)
            assert list(second.held_job_ids) == [third.job.id]
            assert not second.HasField("last_heartbeat_at")


async def test_a_worker_is_connected_while_its_stream_is_open_on_a_living_server(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    async with lease_stream(replica.stub) as stream:
        await replica.until_taking(1)
        await heartbeat(replica.stub, stream.session_id, 1)
        [worker] = await workers(other_replica.stub)
        assert worker.connected
        await replica.server.replica._loop.stop()
        await database.hot.execute(
            "UPDATE taskforge.servers SET alive_until = clock_timestamp() WHERE server_id = $1",
            replica.server.server_id,
        )
        [worker] = await workers(other_replica.stub)
        assert not worker.connected
        await replica.server.replica.run_once()
        assert (await workers(other_replica.stub))[0].connected

    async def has_left() -> bool:
        [worker] = await workers(other_replica.stub)
        return not worker.connected

    await eventually(has_left, "the end of the stream is known")


async def test_workers_that_hold_nothing_and_are_silent_for_a_day_are_not_listed(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create(job_stub)
    sessions = {name: str(uuid4()) for name in ("holds", "spoke", "silent", "never spoke")}
    assert len(await acquire(job_stub, sessions["holds"], worker_id="holds")) == 1
    for name in ("spoke", "silent", "never spoke"):
        assert await acquire(job_stub, sessions[name], worker_id=name) == []
    for name in ("spoke", "silent"):
        await heartbeat(job_stub, sessions[name], 1)
    for name, hours in (("spoke", 23), ("silent", 25)):
        await database.hot.execute(
            "UPDATE taskforge.sessions SET last_heartbeat_at = clock_timestamp()"
            " - make_interval(hours => $2) WHERE session_id = $1",
            sessions[name],
            hours,
        )
    assert [worker.worker_id for worker in await workers(job_stub)] == ["holds", "spoke"]


async def test_at_most_a_hundred_jobs_are_named_the_oldest(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    ids = await create_all(job_stub, [spec()] * 120)
    await acquire(job_stub, max_in_flight=120)
    [worker] = await workers(job_stub)
    assert worker.held_jobs == 120
    assert len(worker.held_job_ids) == 100
    assert set(worker.held_job_ids) < set(ids)


async def test_workers_come_in_pages_by_their_labels(job_stub: JobStub) -> None:
    labels = ["b", "a", "", "b", "é", "a"]
    for label in labels:
        session_id = str(uuid4())
        await acquire(job_stub, session_id, worker_id=label)
        await heartbeat(job_stub, session_id, 1)
    everybody = await workers(job_stub)
    assert len(everybody) == 6
    assert len({worker.session_id for worker in everybody}) == 6
    for page_size in (1, 2, 4, 6):
        found: list[pb.Worker] = []
        token = ""
        while True:
            page = await job_stub.ListWorkers(
                pb.ListWorkersRequest(page_size=page_size, page_token=token)
            )
            assert len(page.workers) <= page_size
            found += page.workers
            token = page.next_page_token
            if not token:
                break
        assert found == everybody
    assert [worker.worker_id for worker in everybody[:3]] == ["", "a", "a"]


async def test_a_page_token_of_another_list_is_refused(job_stub: JobStub) -> None:
    call = workers(job_stub, page_token="nonsense")
    await expect_error(call, StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")


async def test_another_projects_workers_are_not_seen_in_this_one(
    job_stub: JobStub, database: Database
) -> None:
    other = str(await insert_project(database.hot))
    own, foreign = str(uuid4()), str(uuid4())
    await acquire(job_stub, own)
    await acquire(job_stub, foreign, project_id=other)
    await heartbeat(job_stub, own, 1)
    await heartbeat(job_stub, foreign, 1, project_id=other)
    for project, expected in ((str(DEFAULT_PROJECT_ID), own), (other, foreign)):
        [worker] = await workers(job_stub, project_id=project)
        assert (worker.session_id, worker.project_id) == (expected, project)
