"""Tokens of an identity provider, over real servers: which are taken, for what, and how long."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from grpc import StatusCode
from structlog.testing import capture_logs
from tests.support.administration import administration
from tests.support.identity_provider import (
    AUDIENCE,
    EC_KEY,
    ISSUER,
    RSA_KEY,
    SKEW_SECONDS,
    STRANGER,
    WRONG,
    KeysFile,
    KeysServer,
    token,
)
from tests.support.job_replicas import job_replica
from tests.support.refusals import expect_error
from tests.support.snapshots import unchanged
from tests.support.stubs import AdminStub, JobStub, QueueStub
from tests.support.tenants import ADMIN, Tenant, bearer, insert_key, insert_tenant, key_id

from taskforge.v1 import admin_service_pb2, job_pb2, queue_service_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge.v1.admin_service_pb2_grpc import AdminServiceStub
from taskforge.v1.queue_service_pb2_grpc import QueueServiceStub
from taskforge_core.database import Database

END_WITHIN = 5.0
"""Seconds from a credential's end to that of its streams: the promise."""


@pytest.fixture(params=["file", "https"])
def provider(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[KeysFile | KeysServer]:
    """Shows its keys in a file, or behind a certificate that its own authority has signed."""
    # New keys are looked for with each token of an unknown one, instead of every 10 s.
    monkeypatch.setattr("taskforge_core.json_web_tokens._FETCH_AT_MOST_EVERY_SECONDS", 0.0)
    if request.param == "file":
        in_file = KeysFile(tmp_path)
        in_file.show(rsa=RSA_KEY, ec=EC_KEY)
        yield in_file
        return
    with KeysServer(tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
        server.show(rsa=RSA_KEY, ec=EC_KEY)
        yield server


only_https = pytest.mark.parametrize("provider", ["https"], indirect=True)
only_file = pytest.mark.parametrize("provider", ["file"], indirect=True)


@pytest.fixture
async def tenant(database: Database) -> Tenant:
    return await insert_tenant(database.hot, "acme")


@dataclass(frozen=True)
class Servers:
    """Calls of both servers, which take tokens of the provider."""

    jobs: JobStub
    queues: QueueStub
    admin: AdminStub

    async def create(self, text: str, **fields: str) -> job_pb2.Job:
        """Make a job by this token; raises what gRPC raises."""
        request = pb.CreateJobRequest(job=SEND, **fields)
        return (await self.jobs.CreateJob(request, metadata=bearer(text))).job

    async def make_queue(self, text: str, name: str) -> None:
        request = queue_service_pb2.CreateQueueRequest(name=name)
        await self.queues.CreateQueue(request, metadata=bearer(text))

    def lease(self, text: str) -> Any:
        """A stream that is opened by this token."""
        request = pb.LeaseJobsRequest(session_id=str(uuid4()), max_in_flight=1)
        return self.jobs.LeaseJobs(request, metadata=bearer(text), timeout=60)


SEND = job_pb2.JobSpec(queue="emails", job_type="send")


@pytest.fixture
async def servers(
    database: Database, open_folder: Path, provider: KeysFile | KeysServer, tenant: Tenant
) -> AsyncIterator[Servers]:
    """They run; acme has the queue `emails`."""
    database.settings = settings = database.settings.model_copy(
        update={
            "authentication": "on",
            "jwt_issuer": ISSUER,
            "jwt_audience": AUDIENCE,
            "jwt_keys": provider.source,
        }
    )
    async with (
        job_replica(settings, open_folder, "job") as replica,
        administration(database, open_folder) as admin,
        grpc.aio.insecure_channel(admin.address) as channel,
    ):
        servers = Servers(replica.stub, QueueServiceStub(channel), AdminServiceStub(channel))
        await servers.make_queue(tenant.key, "emails")
        yield servers


async def read_all(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
        pass


# -- Coming in ----------------------------------------------------------------------------------


async def test_a_token_of_the_provider_is_taken_by_both_servers(
    servers: Servers, tenant: Tenant
) -> None:
    scope = "job:write queue:write"
    for text in (token(scope=scope), token(EC_KEY, "ec", "ES256", scope=scope)):
        await servers.make_queue(text, uuid4().hex)
        assert (await servers.create(text)).project_id == str(tenant.project_id)


@only_file
@pytest.mark.parametrize("wrong", WRONG)
async def test_both_servers_refuse_and_do_not_tell_why_a_token_that_is(
    servers: Servers, database: Database, wrong: str
) -> None:
    text = WRONG[wrong]()
    calls: list[Awaitable[Any]] = [
        servers.create(text),
        read_all(servers.lease(text)),
        servers.make_queue(text, "more"),
        servers.admin.ListOrganisations(
            admin_service_pb2.ListOrganisationsRequest(), metadata=bearer(text)
        ),
    ]
    async with unchanged(database.hot):
        for call in calls:
            refusal = await expect_error(call, StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")
            assert (refusal.message, refusal.metadata) == ("this is no valid credential", {})


@only_file
async def test_a_token_opens_only_what_it_names(
    servers: Servers, database: Database, tenant: Tenant
) -> None:
    stranger = await insert_tenant(database.hot, "stranger")
    job = await servers.create(token())
    ours, other = str(tenant.project_id), str(tenant.other_project_id)
    theirs = str(stranger.project_id)
    async with unchanged(database.hot):
        for call in (
            servers.create(token(scope="job:read")),
            servers.create(token(scope=None)),
            servers.make_queue(token(), "more"),
        ):
            await expect_error(call, StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
        for call in (
            servers.create(token(organisation="stranger"), project_id=ours),
            servers.create(token(project=theirs)),
            servers.create(token(project=other), project_id=ours),
        ):
            await expect_error(call, StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")
        look = servers.jobs.GetJob(
            pb.GetJobRequest(job_id=job.id), metadata=bearer(token(organisation="stranger"))
        )
        await expect_error(look, StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
        await expect_error(
            servers.create(token(project=other)), StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND"
        )
        await expect_error(
            servers.create(token(exp=time.time() - 60)),
            StatusCode.UNAUTHENTICATED,
            "CREDENTIAL_EXPIRED",
        )


@only_file
async def test_a_token_for_a_foreign_project_makes_no_key(
    servers: Servers, database: Database
) -> None:
    stranger = await insert_tenant(database.hot, "stranger")
    request = admin_service_pb2.CreateApiKeyRequest(name="made", permissions=[ADMIN])
    async with unchanged(database.hot):
        for project_id in (stranger.project_id, uuid4()):
            text = token(scope="admin", project=str(project_id))
            call = servers.admin.CreateApiKey(request, metadata=bearer(text))
            await expect_error(call, StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")


# -- The provider's keys ------------------------------------------------------------------------


async def test_a_new_key_is_taken_without_a_restart_and_a_withdrawn_one_no_more(
    servers: Servers, provider: KeysFile | KeysServer
) -> None:
    scope = "job:write queue:write"
    old, new = token(scope=scope), token(STRANGER, "new", scope=scope)
    await servers.create(old)
    await servers.make_queue(old, "by-the-old")
    provider.show(new=STRANGER)
    await servers.create(new)
    await servers.make_queue(new, "by-the-new")
    for call in (servers.create(old), servers.make_queue(old, "more")):
        await expect_error(call, StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


async def test_a_provider_that_is_down_leaves_its_last_good_keys_and_the_log_tells(
    servers: Servers, provider: KeysFile | KeysServer
) -> None:
    await servers.create(token())
    provider.stop()
    fresh = token(STRANGER, "fresh")
    with capture_logs() as logs:
        refusal = await expect_error(
            servers.create(fresh), StatusCode.UNAVAILABLE, "SIGNING_KEYS_UNAVAILABLE"
        )
        await servers.create(token(sub="bob"))
    assert refusal.retry_info is not None
    [line, *_] = [line for line in logs if line["event"] == "signing_keys_not_fetched"]
    assert (line["log_level"], line["source"]) == ("warning", provider.source)
    assert line["error"]
    if isinstance(provider, KeysServer):
        provider.start()
    provider.show(rsa=RSA_KEY, fresh=STRANGER)
    await servers.create(fresh)


@only_https
async def test_a_provider_of_an_unknown_authority_is_not_believed(
    servers: Servers, provider: KeysServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await servers.create(token())
    monkeypatch.delenv("SSL_CERT_FILE")
    provider.show(rsa=RSA_KEY, fresh=STRANGER)
    fresh = token(STRANGER, "fresh")
    with capture_logs() as logs:
        await expect_error(
            servers.create(fresh), StatusCode.UNAVAILABLE, "SIGNING_KEYS_UNAVAILABLE"
        )
    assert "CERTIFICATE_VERIFY_FAILED" in str(logs)
    # Who is trusted may change while the servers run.
    monkeypatch.setenv("SSL_CERT_FILE", str(provider.authority))
    await servers.create(fresh)


# -- Staying ------------------------------------------------------------------------------------


@only_file
async def test_a_stream_ends_with_its_token(servers: Servers) -> None:
    ends_at = time.time() + 1
    short = servers.lease(token(exp=ends_at - SKEW_SECONDS))
    staying = asyncio.create_task(read_all(servers.lease(token())))
    await expect_error(read_all(short), StatusCode.UNAUTHENTICATED, "CREDENTIAL_EXPIRED")
    assert ends_at <= time.time() < ends_at + END_WITHIN
    assert not staying.done()
    staying.cancel()


@only_file
async def test_a_stream_ends_with_its_organisation_though_that_has_another_name_by_now(
    servers: Servers, database: Database, tenant: Tenant
) -> None:
    stream = servers.lease(token())
    await servers.create(token())
    await stream.read()
    await database.hot.execute(
        "UPDATE taskforge.organisations SET name = 'formerly-acme', disabled_at = now()"
        " WHERE id = $1",
        tenant.organisation_id,
    )
    # Whoever has the name gets the tokens that name it: new calls are theirs.
    heir = await insert_tenant(database.hot, "acme")
    async with asyncio.timeout(END_WITHIN):
        await expect_error(read_all(stream), StatusCode.UNAUTHENTICATED, "CREDENTIAL_REVOKED")
    by_id = token(organisation=str(tenant.organisation_id))
    await expect_error(servers.create(by_id), StatusCode.UNAUTHENTICATED, "CREDENTIAL_REVOKED")
    await servers.make_queue(heir.key, "emails")
    assert (await servers.create(token())).project_id == str(heir.project_id)


async def test_a_stream_ends_when_the_key_that_signed_its_token_is_withdrawn(
    servers: Servers, provider: KeysFile | KeysServer
) -> None:
    stream, staying = servers.lease(token()), servers.lease(token(EC_KEY, "ec", "ES256"))
    await servers.create(token())
    await servers.create(token())
    await asyncio.gather(stream.read(), staying.read())
    going_on = asyncio.create_task(read_all(staying))
    provider.show(ec=EC_KEY, new=STRANGER)
    # Fetched now, since it names a key that is not known; else a file is read when it changes, and
    # an address asked every five minutes.
    await servers.create(token(STRANGER, "new"))
    async with asyncio.timeout(END_WITHIN):
        await expect_error(read_all(stream), StatusCode.UNAUTHENTICATED, "CREDENTIAL_REVOKED")
    assert not going_on.done()
    going_on.cancel()


@only_https
async def test_a_provider_that_does_not_answer_delays_no_revocation(
    servers: Servers, provider: KeysServer, database: Database, tenant: Tenant
) -> None:
    key = await insert_key(database.hot, tenant.organisation_id)
    revoked = servers.lease(key)
    await servers.create(key)
    await revoked.read()
    provider.called.clear()
    provider.answering.clear()
    unknown = servers.lease(token(STRANGER, "unknown"))
    assert await asyncio.to_thread(provider.called.wait, END_WITHIN)
    await database.hot.execute(
        "UPDATE taskforge.api_keys SET revoked_at = now() WHERE id = $1", key_id(key)
    )
    async with asyncio.timeout(END_WITHIN):
        await expect_error(read_all(revoked), StatusCode.UNAUTHENTICATED, "CREDENTIAL_REVOKED")
    unknown.cancel()
    provider.answering.set()
