"""How much a session gets at once: jobs, bytes of payload, and the size of a message."""

from typing import Any
from uuid import uuid4

import pytest
from tests.support.job_calls import (
    acquire,
    acquire_one,
    complete,
    create,
    create_all,
    duration,
    fail,
    get,
    payloads,
    release,
    settle,
    snoozed,
    spec,
)
from tests.support.job_replicas import JobReplica
from tests.support.lease_streams import lease_stream
from tests.support.rows import insert_queue

from taskforge.v1 import job_pb2
from taskforge_core.database import Database

MIB = 1024 * 1024


def text(size: int, first: str = "x") -> str:
    """A payload of so many bytes."""
    return f'"{first}{"x" * (size - 3)}"'


async def processing(database: Database) -> int:
    count: int = await database.hot.fetchval("SELECT count(*) FROM taskforge.jobs WHERE status = 3")
    return count


async def test_a_stream_never_holds_more_than_its_max_in_flight(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec(payload=str(n)) for n in range(12)])
    async with lease_stream(replica.stub, max_in_flight=3) as stream:
        for settled in range(9):
            await stream.until_leases(settled + 3)
            await replica.dispatch()
            assert await processing(database) == 3
            assert len(stream.leases) == settled + 3
            await complete(replica.stub, stream.tokens[settled])
        await stream.until_leases(12)
        assert stream.payloads == [str(n) for n in range(12)]


async def test_every_way_to_settle_frees_a_slot(replica: JobReplica, database: Database) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec(payload=str(n), max_attempts=1) for n in range(5)])
    async with lease_stream(replica.stub, max_in_flight=1) as stream:
        await stream.until_leases(1)
        await complete(replica.stub, stream.tokens[0])
        await stream.until_leases(2)
        await fail(replica.stub, stream.tokens[1])
        await stream.until_leases(3)
        await settle(replica.stub, [snoozed(stream.tokens[2])])
        # Ready at once, it is the oldest again.
        await stream.until_leases(4)
        await release(replica.stub, stream.tokens[3])
        await stream.until_leases(5)
        assert stream.payloads == ["0", "1", "2", "2", "2"]


async def test_a_session_holds_no_more_bytes_than_it_asked_for(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    sizes = (400, 600, 1, 300)
    jobs = [spec(payload=text(size) if size > 2 else "1") for size in sizes]
    await create_all(replica.stub, jobs)
    async with lease_stream(replica.stub, max_in_flight_bytes=1000) as stream:
        await stream.until_leases(2)
        await replica.dispatch()
        # Full to the byte. The small one does not fit either.
        assert [len(payload) for payload in stream.payloads] == [400, 600]
        await complete(replica.stub, stream.tokens[0])
        await stream.until_leases(4)
        assert [len(payload) for payload in stream.payloads] == [400, 600, 1, 300]


async def test_a_small_job_does_not_overtake_one_that_waits_for_bytes(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec(payload=text(size)) for size in (600, 600, 10)])
    async with lease_stream(replica.stub, max_in_flight_bytes=1000) as stream:
        await stream.until_leases(1)
        await replica.dispatch()
        assert await processing(database) == 1
        await complete(replica.stub, stream.tokens[0])
        await stream.until_leases(3)
        assert [len(payload) for payload in stream.payloads] == [600, 600, 10]


async def test_a_session_that_holds_nothing_takes_one_job_beyond_its_bytes(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec(payload=text(size)) for size in (5000, 5000, 10)])
    session_id = str(uuid4())
    for _ in range(2):
        [lease] = await acquire(replica.stub, session_id, max_in_flight_bytes=100)
        assert len(lease.job.payload) == 5000
        assert await acquire(replica.stub, session_id, max_in_flight_bytes=100) == []
        await complete(replica.stub, lease.lease_token)
    async with lease_stream(replica.stub, max_in_flight_bytes=1) as stream:
        await stream.until_leases(1)


# -- Messages ------------------------------------------------------------------------------------


async def test_the_messages_of_a_stream_stay_below_two_mib(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    ids = []
    for _ in range(2):
        ids += await create_all(replica.stub, [spec(payload=text(200_000))] * 12)
    async with lease_stream(replica.stub) as stream:
        leases = await stream.until_leases(24)
        assert [lease.job.id for lease in leases] == ids
        assert len(stream.batches) >= 3
        for batch in stream.batches:
            assert sum(lease.ByteSize() for lease in batch) < 2 * MIB


async def test_no_message_is_larger_than_the_client_can_receive(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec(payload=text(20_000))] * 10)
    async with lease_stream(replica.stub, max_message_bytes=65_536, max_in_flight=5) as stream:
        await stream.until_leases(5)
        for batch in stream.batches:
            assert sum(lease.ByteSize() for lease in batch) < 65_536
    # An answer is one message: what does not fit in is left to the next call.
    first = await acquire(replica.stub, max_message_bytes=65_536)
    assert len(first) == 3
    second = await acquire(replica.stub, max_in_flight=2, wait=duration(seconds=10))
    assert len(second) == 2
    assert {lease.job.attempt_count for lease in (*first, *second)} == {1}


async def test_an_answer_stays_below_what_the_server_can_send_whatever_the_client_can_receive(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    for _ in range(2):
        await create_all(replica.stub, [spec(payload=text(250_000))] * 12)
    leases = await acquire(replica.stub, max_message_bytes=16 * MIB)
    assert 1 < len(leases) < 24
    assert {lease.job.attempt_count for lease in leases} == {1}


LABELS = {f"{n:02}": "x" * 255 for n in range(32)}
"""More than 8 KiB that are no payload."""

TOO_LARGE: list[dict[str, Any]] = [
    {"payload": text(100_000)},
    {"payload": text(60_000), "labels": LABELS},
]


@pytest.mark.parametrize("job", TOO_LARGE, ids=["by its payload", "by its labels"])
async def test_a_job_that_is_too_large_for_a_clients_messages_is_left_to_others(
    replica: JobReplica, database: Database, job: dict[str, Any]
) -> None:
    await insert_queue(database.hot, "emails")
    large = await create(replica.stub, priority=9, **job)
    async with lease_stream(replica.stub, max_message_bytes=65_536) as small:
        await create(replica.stub, payload="1")
        await small.until_leases(1)
        for _ in range(5):
            await replica.dispatch()
        await create(replica.stub, payload="2")
        await small.until_leases(2)
        assert small.payloads == ["1", "2"]
        await create(replica.stub, payload="3")
        await small.until_leases(3)
        shown = await get(replica.stub, large.id)
        assert shown.status == job_pb2.JOB_STATUS_PENDING
        assert (shown.attempt_count, len(shown.attempts)) == (0, 0)
        assert (await acquire_one(replica.stub)).job.id == large.id


@pytest.mark.parametrize("job", TOO_LARGE, ids=["by its payload", "by its labels"])
async def test_a_call_gets_what_lies_behind_a_job_that_is_too_large_for_its_answer(
    replica: JobReplica, database: Database, job: dict[str, Any]
) -> None:
    await insert_queue(database.hot, "emails")
    large = await create(replica.stub, priority=9, **job)
    await create_all(replica.stub, [spec(payload=str(n)) for n in range(3)])
    # Also where the large one alone would take all the room there is.
    [first] = await acquire(replica.stub, max_message_bytes=65_536, max_in_flight=1)
    others = await acquire(replica.stub, max_message_bytes=65_536)
    assert payloads([first, *others]) == ["0", "1", "2"]
    assert await acquire(replica.stub, max_message_bytes=65_536) == []
    assert (await acquire_one(replica.stub, wait=duration(seconds=5))).job.id == large.id
    assert (await get(replica.stub, large.id)).attempt_count == 1
