"""Calls that their clients give up at any moment: nothing is stranded, and nobody else is hurt."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from tests.support.job_calls import (
    acquire,
    complete,
    create,
    create_all,
    duration,
    invoke,
    spec,
)
from tests.support.job_replicas import DRAIN_GRACE, JobReplica
from tests.support.lease_streams import lease_stream
from tests.support.leases import miscounts
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.waiting import eventually, until_blocked

from job_service.acquiring import Acquirer
from job_service.grouping import Group
from job_service.leasing import Claimed, Claimer, Hand
from scheduler_service.rescuing import Rescuer
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier
from taskforge_core.statuses import JobStatus


class Stage:
    """Holds claims back after their commit, before anybody has learned what they brought."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        claim = Claimer.claim

        async def held_back(claimer: Claimer, project_id: UUID, hands: Sequence[Hand]) -> Claimed:
            claimed = await claim(claimer, project_id, hands)
            self.reached.set()
            await self.go_on.wait()
            return claimed

        monkeypatch.setattr(Claimer, "claim", held_back)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


@pytest.fixture
def only_own_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody claims but a call that looks for itself."""
    monkeypatch.setattr(Group, "start", lambda group: None)


async def until_ready(database: Database, count: int) -> None:
    """Return when so many jobs wait, and none runs."""

    async def are_ready() -> bool:
        rows = await database.hot.fetch("SELECT status FROM taskforge.jobs")
        return [row["status"] for row in rows] == [JobStatus.PENDING] * count

    await eventually(are_ready, f"{count} jobs wait and none runs")


async def until_closed(database: Database) -> None:
    """Return when no lease call counts as open."""

    async def are_closed() -> bool:
        return not await database.hot.fetchval(
            "SELECT count(*) FROM taskforge.sessions WHERE call_is_open"
        )

    await eventually(are_closed, "no call counts as open")


async def test_a_call_that_is_given_up_while_its_claim_commits_strands_nothing(
    replica: JobReplica, database: Database, stage: Stage
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec()] * 3)
    call = asyncio.create_task(acquire(replica.stub, max_in_flight=2, wait=duration(seconds=60)))
    await stage.reached.wait()
    call.cancel()
    await replica.until_taking(0)
    stage.go_on.set()
    await until_ready(database, 3)
    assert {lease.job.attempt_count for lease in await acquire(replica.stub)} == {1}
    await until_closed(database)
    assert await miscounts(database.hot) == []


@pytest.mark.usefixtures("only_own_looks")
async def test_a_look_goes_on_to_its_end_when_its_caller_is_gone(
    replica: JobReplica, database: Database, stage: Stage
) -> None:
    """It claims for the streams as well, and what it has claimed must reach somebody."""
    await insert_queue(database.hot, "emails")
    async with lease_stream(replica.stub, max_in_flight=1) as stream:
        await replica.until_taking(1)
        await create_all(replica.stub, [spec()] * 2)
        call = asyncio.create_task(acquire(replica.stub, max_in_flight=1))
        await stage.reached.wait()
        call.cancel()
        await replica.until_taking(1)
        stage.go_on.set()
        [lease] = await stream.until_leases(1)
        assert lease.job.attempt_count == 1

        async def other_is_ready() -> bool:
            rows = await database.hot.fetch("SELECT status FROM taskforge.jobs ORDER BY status")
            return [row["status"] for row in rows] == [JobStatus.PENDING, JobStatus.PROCESSING]

        await eventually(other_is_ready, "what was for the call is given back")


async def test_a_stream_that_is_given_up_while_its_claim_commits_strands_nothing(
    replica: JobReplica, database: Database, stage: Stage
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec()] * 3)
    async with lease_stream(replica.stub, max_in_flight=2):
        await stage.reached.wait()
    await replica.until_taking(0)
    stage.go_on.set()
    await until_ready(database, 3)
    await until_closed(database)


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_call_that_is_given_up_while_it_is_opened_does_not_stay_open(
    replica: JobReplica, database: Database, is_stream: bool
) -> None:
    await insert_queue(database.hot, "emails")
    session_id = str(uuid4())
    assert await acquire(replica.stub, session_id) == []
    await until_closed(database)
    async with database.hot.acquire() as other, other.transaction():
        await other.execute("SELECT FROM taskforge.sessions FOR UPDATE")
        if is_stream:
            async with lease_stream(replica.stub, session_id):
                await until_blocked(database.hot, other.get_server_pid())
        else:
            call = asyncio.create_task(acquire(replica.stub, session_id))
            await until_blocked(database.hot, other.get_server_pid())
            call.cancel()
    await until_closed(database)
    # Were a stream still open, this would be refused.
    await create(replica.stub)
    assert len(await acquire(replica.stub, session_id)) == 1


async def test_a_stream_that_opens_while_its_replica_leaves_is_ended_like_the_others(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    session_id = str(uuid4())
    assert await acquire(replica.stub, session_id) == []
    clock = asyncio.get_running_loop().time
    started = clock()
    async with database.hot.acquire() as other, other.transaction():
        await other.execute("SELECT FROM taskforge.sessions FOR UPDATE")
        # It is on its way when the others are ended.
        request = pb.LeaseJobsRequest(session_id=session_id, max_in_flight=1)
        opening = asyncio.create_task(invoke(replica.stub, request))
        await until_blocked(database.hot, other.get_server_pid())
        await replica.server.drain()
        leaving = asyncio.create_task(replica.drain())
    await expect_error(opening, grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    await leaving
    # Else it would have waited until its grace was over.
    assert clock() - started < DRAIN_GRACE.total_seconds() / 2


async def test_an_answer_that_finds_its_client_gone_is_given_back(
    replica: JobReplica, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec()] * 3)
    reached, never = asyncio.Event(), asyncio.Event()
    acquire_jobs = Acquirer.acquire

    async def held_back(
        acquirer: Acquirer, request: pb.AcquireJobsRequest, context: Any
    ) -> pb.AcquireJobsResponse:
        response = await acquire_jobs(acquirer, request, context)
        reached.set()
        await never.wait()
        return response

    monkeypatch.setattr(Acquirer, "acquire", held_back)
    call = asyncio.create_task(acquire(replica.stub, max_in_flight=2))
    await reached.wait()
    call.cancel()
    await until_ready(database, 3)
    undelivered = await database.hot.fetchval("SELECT sum(undelivered_count) FROM taskforge.jobs")
    assert undelivered == 2


async def test_calls_that_are_given_up_at_any_moment_lose_no_job(
    replica: JobReplica, database: Database
) -> None:
    """At many moments, beside a stream of the same subscription."""
    chance = random.Random(7)
    await insert_queue(database.hot, "emails")
    rescuer = Rescuer(database.hot, Notifier(database.hot, "scheduler"))
    answered = 0
    async with lease_stream(replica.stub, max_in_flight=1000) as stream:
        await replica.until_taking(1)
        for _ in range(60):
            await create(replica.stub)
            call = asyncio.create_task(acquire(replica.stub, max_in_flight=1))
            # Not a wait for anything: the moment at which the client gives up.
            await asyncio.sleep(chance.uniform(0, 0.02))
            call.cancel()
            try:
                for lease in await call:
                    answered += 1
                    status = await complete(replica.stub, lease.lease_token)
                    assert status == job_pb2.JOB_STATUS_SUCCEEDED
            except asyncio.CancelledError:
                pass
        await replica.until_taking(1)
        # An answer that left just before its client did is lost for as long as its lease.
        await database.hot.execute(
            "UPDATE taskforge.sessions SET expires_at = clock_timestamp() WHERE session_id <> $1",
            UUID(stream.session_id),
        )
        await rescuer.run_once()
        await stream.until_leases(60 - answered)
        held = {row["lease_seq"] for row in await database.hot.fetch(_HELD)}
        assert held == {int(token[76:], 16) for token in stream.tokens}
        assert len(held) == 60 - answered
    assert await miscounts(database.hot) == []


_HELD = "SELECT lease_seq FROM taskforge.jobs WHERE status = 3"
