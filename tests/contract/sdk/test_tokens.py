"""The SDK with tokens of an identity provider, which live for a moment only."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.contract.sdk.following import Working, finished
from tests.support.identity_provider import (
    AUDIENCE,
    ISSUER,
    RSA_KEY,
    SKEW_SECONDS,
    KeysFile,
    token,
)
from tests.support.tenants import insert_tenant

from taskforge_core.database import Database
from taskforge_core.settings import Settings
from taskforge_sdk import (
    Client,
    JobContext,
    JobStatus,
    NewJob,
    PermissionDenied,
    Unauthenticated,
    Worker,
)

LIFETIME = 2.0
"""Seconds for which a token is good."""

JOBS = 40
ROUNDS = 2


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings that name the test's own database; tokens of the provider are taken."""
    provider = KeysFile(tmp_path)
    provider.show(rsa=RSA_KEY)
    return Settings(
        database_url=database_url,
        listen_url=None,
        authentication="on",
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_keys=provider.source,
    )


@pytest.fixture(autouse=True)
async def tenant(database: Database) -> None:
    await insert_tenant(database.hot, "acme")


class Tokens:
    """Gives tokens that end soon, as a function or in a file that is written anew."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.given: list[str] = []

    def give(self) -> str:
        self.given.append(
            token(
                exp=time.time() + LIFETIME - SKEW_SECONDS,
                scope="job:write job:read queue:write",
                jti=str(len(self.given)),
            )
        )
        return self.given[-1]

    def read(self) -> str:
        """What stands in the file; who writes it has done so just before it is read."""
        self.file.write_text(self.give() + "\n")
        return self.file.read_text().strip()


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "token")


SOURCES: dict[str, Callable[[Tokens], Callable[[], str]]] = {
    "a function": lambda tokens: tokens.give,
    "a file": lambda tokens: tokens.read,
}


@pytest.mark.parametrize("source", SOURCES)
async def test_client_and_worker_go_on_with_each_new_token_and_lose_no_job(
    tokens: Tokens, queue_address: str, job_address: str, working: Working, source: str
) -> None:
    of_worker = Tokens(tokens.file.with_name("token-of-the-worker"))
    worker = Worker(
        job_address,
        concurrency=JOBS,
        lease_duration=3,
        grace=20,
        api_key=SOURCES[source](of_worker),
    )

    @worker.job("send")
    async def send(job: JobContext) -> None:
        # Half of them end while the token that they were leased with is good no more.
        await asyncio.sleep(job.payload)

    async with Client(
        queue_address=queue_address, job_address=job_address, api_key=SOURCES[source](tokens)
    ) as client:
        await client.create_queue("emails")
        async with working(worker):
            sessions = set()
            for _ in range(ROUNDS):
                made = await client.create_jobs(
                    NewJob("emails", "send", number % 2 * (LIFETIME + 0.5))
                    for number in range(JOBS)
                )
                for result in made:
                    assert result.job_id is not None
                    job = await finished(client, result.job_id)
                    assert (job.status, job.attempt_count) == (JobStatus.SUCCEEDED, 1)
                sessions.add(worker.session_id)
    assert len(sessions) == 1
    for each in (tokens, of_worker):
        assert len(each.given) >= ROUNDS


async def test_a_worker_whose_token_has_no_successor_stops_and_says_so(
    tokens: Tokens, job_address: str
) -> None:
    only = tokens.give()
    for api_key in (only, lambda: only):
        worker = Worker(job_address, api_key=api_key, grace=3600)
        worker.job("send")(lambda job: None)
        async with asyncio.timeout(LIFETIME + 5):
            with pytest.raises(Unauthenticated) as refused:
                await worker.run()
        assert refused.value.reason == "CREDENTIAL_EXPIRED"


async def test_a_token_without_the_permission_is_refused_as_such(
    queue_address: str, job_address: str
) -> None:
    async with Client(
        queue_address=queue_address, job_address=job_address, api_key=token(scope="job:read")
    ) as client:
        with pytest.raises(PermissionDenied) as refused:
            await client.create_job("emails", "send")
    assert refused.value.reason == "PERMISSION_MISSING"
