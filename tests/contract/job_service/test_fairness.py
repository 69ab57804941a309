"""Calls that cannot take jobs never keep the others from them, nor bend their order."""

import pytest
from tests.support.job_calls import acquire_one, create, create_all, heartbeat, spec
from tests.support.job_replicas import JobReplica
from tests.support.lease_streams import lease_stream
from tests.support.rows import insert_queue

from taskforge_core.database import Database

pytestmark = pytest.mark.usefixtures("no_polls")


async def test_a_session_that_must_speak_first_does_not_let_others_be_overtaken(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with (
        lease_stream(replica.stub, max_in_flight=5) as dead,
        lease_stream(replica.stub, max_in_flight=100) as live,
    ):
        await replica.until_taking(2)
        await database.hot.execute(
            "UPDATE taskforge.sessions SET must_heartbeat = true WHERE session_id = $1",
            dead.session_id,
        )
        for count in (4, 8, 12):
            await create_all(replica.stub, [spec(priority=9 - n) for n in range(4)])
            await live.until_leases(count)
        assert [lease.job.priority for lease in live.leases] == [9, 8, 7, 6] * 3
        assert dead.leases == []
        # Once it has spoken it takes its part again.
        await heartbeat(replica.stub, dead.session_id, 1)
        await create_all(replica.stub, [spec() for n in range(4)])
        await dead.until_leases(2)
        await live.until_leases(14)


async def test_a_session_whose_row_is_locked_does_not_stop_the_others_and_is_served_after(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with (
        lease_stream(replica.stub, max_in_flight=5) as locked,
        lease_stream(replica.stub, max_in_flight=4) as free,
    ):
        await replica.until_taking(2)
        async with database.hot.acquire() as other, other.transaction():
            await other.execute(
                "SELECT FROM taskforge.sessions WHERE session_id = $1 FOR UPDATE",
                locked.session_id,
            )
            await create_all(replica.stub, [spec()] * 6)
            await free.until_leases(4)
            assert locked.leases == []
        # Nobody tells it that the row is free again.
        await locked.until_leases(2)


async def test_many_jobs_too_large_for_a_client_do_not_keep_a_small_one_from_it(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    large = '"' + "x" * 100_000 + '"'
    await create_all(replica.stub, [spec(priority=5, payload=large)] * 20)
    small = await create(replica.stub)
    async with lease_stream(replica.stub, max_in_flight=1, max_message_bytes=65_536) as stream:
        [lease] = await stream.until_leases(1)
        assert lease.job.id == small.id
        assert (await acquire_one(replica.stub)).job.payload == large
