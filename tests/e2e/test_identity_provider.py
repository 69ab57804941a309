"""A system whose callers have tokens of an identity provider, whose authority is its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import identity_provider
from tests.support.deployment import Deployment, Replica
from tests.support.dev_system import Command
from tests.support.identity_provider import AUDIENCE, ISSUER, RSA_KEY, STRANGER, KeysServer
from tests.support.processes import until

from taskforge_core.ids import DEFAULT_ORGANISATION_ID
from taskforge_sdk import BlockingClient, JobStatus, RetryPolicy, TaskForgeError

TASKS = """
from taskforge_sdk import JobContext, Worker

worker = Worker(queues=["emails"])


@worker.job("send-email")
async def send_email(job: JobContext) -> None:
    pass
"""


def token(key: Any = RSA_KEY, key_id: str = "rsa", sub: str = "ann") -> str:
    return identity_provider.token(
        key,
        key_id,
        sub=sub,
        organisation=str(DEFAULT_ORGANISATION_ID),
        scope="queue:write queue:read job:write job:read",
    )


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[KeysServer]:
    with KeysServer(tmp_path) as provider:
        provider.show(rsa=RSA_KEY)
        yield provider


@pytest.fixture
def variables(provider: KeysServer) -> dict[str, str]:
    """What the services are started with."""
    return {
        "TASKFORGE_JWT_ISSUER": ISSUER,
        "TASKFORGE_JWT_AUDIENCE": AUDIENCE,
        "TASKFORGE_JWT_KEYS": provider.source,
        "TASKFORGE_LOG_LEVEL": "debug",
        "SSL_CERT_FILE": str(provider.authority),
    }


@pytest.fixture
def deployment(open_folder: Path, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(open_folder, tmp_path) as deployment:
        yield deployment


def reason_of(client: BlockingClient) -> str:
    """Why a call is refused; empty if it is not."""
    try:
        client.job_stats()
    except TaskForgeError as error:
        return error.reason
    return ""


def client_of(queue: Replica, job: Replica, text: str) -> BlockingClient:
    """A client that tells what it was answered at once."""
    return BlockingClient(
        queue_address=queue.address,
        job_address=job.address,
        api_key=text,
        retry=RetryPolicy(max_attempts=1),
    )


def finish_a_job(client: BlockingClient) -> None:
    job_id = client.create_job("emails", "send-email").id
    until(lambda: client.get_job(job_id).status is JobStatus.SUCCEEDED, "the job is done")


def test_the_whole_system_runs_by_tokens_and_follows_the_providers_keys(
    deployment: Deployment, provider: KeysServer, variables: dict[str, str], tmp_path: Path
) -> None:
    queue, job = deployment.add("queue_service", "job_service", variables=variables)
    (tmp_path / "tasks.py").write_text(TASKS)
    of_worker = tmp_path / "worker.token"
    of_worker.write_text(token(sub="worker"))
    given = {"TASKFORGE_JOB_ADDRESS": job.address, "TASKFORGE_API_KEY_FILE": str(of_worker)}
    with (
        Command("worker", "run", "tasks:worker", variables=given, folder=tmp_path) as worker,
        client_of(queue, job, token()) as client,
        client_of(queue, job, token(STRANGER, "next")) as early,
    ):
        client.create_queue("emails")
        finish_a_job(client)

        # The provider is away: whom its last good keys do for goes on.
        provider.stop()
        until(lambda: reason_of(early) == "SIGNING_KEYS_UNAVAILABLE", "the new key is sought")
        assert job.has_logged("signing_keys_not_fetched")
        finish_a_job(client)

        # It is back, and signs with the new key.
        of_worker.write_text(token(STRANGER, "next", sub="worker"))
        provider.show(next=STRANGER)
        provider.start()
        until(lambda: reason_of(early) == "", "the new key is found")
        finish_a_job(early)
        assert reason_of(client) == "CREDENTIAL_INVALID"
        assert job.has_logged("token_refused")
        assert worker.stop() == 0
