"""The SDK with its keys, over services that let nobody in without one."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from tests.contract.sdk.following import Working
from tests.support.tenants import JOB_READ, QUEUE_READ, insert_key, key_id
from tests.support.waiting import PATIENCE, eventually

from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_ORGANISATION_ID
from taskforge_core.settings import Settings
from taskforge_sdk import (
    Client,
    JobContext,
    JobStatus,
    PermissionDenied,
    Unauthenticated,
    Worker,
)

REVOKED_WITHIN = 5.0
"""Seconds from a key's revocation to the end of its streams, by the contract."""


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings that name the test's own database; authentication is on."""
    return Settings(database_url=database_url, listen_url=None, authentication="on")


@pytest.fixture
async def key(database: Database) -> str:
    """A key for everything."""
    return await insert_key(database.hot, DEFAULT_ORGANISATION_ID)


@pytest.fixture
async def client(queue_address: str, job_address: str, key: str) -> AsyncIterator[Client]:
    async with Client(queue_address=queue_address, job_address=job_address, api_key=key) as client:
        yield client


async def revoke(database: Database, key: str) -> None:
    await database.hot.execute(
        "UPDATE taskforge.api_keys SET revoked_at = clock_timestamp() WHERE id = $1", key_id(key)
    )


async def test_a_call_needs_a_key_and_the_key_a_permission(
    database: Database, client: Client, queue_address: str
) -> None:
    await client.create_queue("emails")
    async with Client(queue_address=queue_address) as nobody:
        with pytest.raises(Unauthenticated) as refused:
            await nobody.get_queue("emails")
        assert refused.value.reason == "CREDENTIAL_MISSING"
    reader = await insert_key(database.hot, DEFAULT_ORGANISATION_ID, [QUEUE_READ])
    async with Client(queue_address=queue_address, api_key=reader) as reading:
        assert (await reading.get_queue("emails")).name == "emails"
        with pytest.raises(PermissionDenied) as denied:
            await reading.create_queue("more")
        assert denied.value.reason == "PERMISSION_MISSING"


async def test_a_worker_whose_key_is_revoked_stops_within_5_seconds(
    database: Database, client: Client, job_address: str
) -> None:
    await client.create_queue("emails")
    key = await insert_key(database.hot, DEFAULT_ORGANISATION_ID)
    worker = Worker(job_address, api_key=key, lease_duration=3600, grace=3600)
    started = asyncio.Event()

    @worker.job("send")
    async def send(job: JobContext) -> None:
        started.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(worker.run())
    await client.create_job("emails", "send")
    async with asyncio.timeout(PATIENCE):
        await started.wait()
    revoked_at = time.monotonic()
    await revoke(database, key)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unauthenticated) as refused:
            await running
    assert refused.value.reason == "CREDENTIAL_REVOKED"
    # Its handler has a second to end.
    assert time.monotonic() - revoked_at < REVOKED_WITHIN + 1


async def test_a_worker_whose_key_may_not_lease_does_not_run(
    database: Database, job_address: str
) -> None:
    reader = await insert_key(database.hot, DEFAULT_ORGANISATION_ID, [JOB_READ])
    worker = Worker(job_address, api_key=reader)
    worker.job("send")(lambda job: None)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(PermissionDenied):
            await worker.run()


async def test_a_worker_goes_on_with_the_key_that_replaces_a_revoked_one(
    database: Database, client: Client, job_address: str, working: Working
) -> None:
    await client.create_queue("emails")
    keys = [await insert_key(database.hot, DEFAULT_ORGANISATION_ID) for _ in range(2)]
    given = iter(keys)
    asked: list[str] = []

    def current() -> str:
        asked.append(next(given))
        return asked[-1]

    worker = Worker(job_address, api_key=current, grace=PATIENCE)

    @worker.job("send")
    async def send(job: JobContext) -> None:
        pass

    async def is_done(job_id: str) -> bool:
        return (await client.get_job(job_id)).status is JobStatus.SUCCEEDED

    async with working(worker):
        first = await client.create_job("emails", "send")
        await eventually(lambda: is_done(first.id), "the first job is done")
        session = worker.session_id
        await revoke(database, keys[0])

        async def is_renewed() -> bool:
            return asked == keys

        await eventually(is_renewed, "another key is asked for")
        second = await client.create_job("emails", "send")
        await eventually(lambda: is_done(second.id), "the second job is done")
        assert worker.session_id == session
