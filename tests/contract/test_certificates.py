"""Clients that are known by their certificate: mutual TLS instead of a key."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
import trustme
from grpc import StatusCode
from tests.support.refusals import expect_error
from tests.support.tenants import (
    JOB_READ,
    JOB_WRITE,
    Tenant,
    bearer,
    insert_key,
    insert_tenant,
)

from job_service.composing import JobServer
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge.v1.job_service_pb2_grpc import JobServiceStub
from taskforge_core.database import Database
from taskforge_core.settings import Settings

HOST = "127.0.0.1"
NAME = "worker.acme.example.org"
OTHER_NAME = "unknown.example.org"

END_WITHIN = 5.0
"""Seconds from a key's end to that of its streams: the promise."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def server(
    settings: Settings, authority: trustme.CA, tmp_path: Path
) -> AsyncIterator[JobServer]:
    """A replica that lets in who has a certificate of the authority."""
    leaf = authority.issue_cert(HOST)
    leaf.private_key_pem.write_to_path(tmp_path / "key")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "certificate")
    authority.cert_pem.write_to_path(tmp_path / "authorities")
    database = await Database.open(
        settings.model_copy(
            update={
                "authentication": "on",
                "tls_key": tmp_path / "key",
                "tls_certificate": tmp_path / "certificate",
                "tls_client_authorities": tmp_path / "authorities",
            }
        )
    )
    server = JobServer(database, f"{HOST}:0")
    await server.start()
    await server.grpc.start()
    yield server
    await server.grpc.stop(drain=[server.drain])
    await server.stop()
    await database.close()


@pytest.fixture
async def tenant(database: Database) -> Tenant:
    return await insert_tenant(database.hot, "acme")


def channel(server: JobServer, authority: trustme.CA, *names: str) -> grpc.aio.Channel:
    """A client with a certificate of these names."""
    leaf = authority.issue_cert(*names)
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        leaf.private_key_pem.bytes(),
        leaf.cert_chain_pems[0].bytes(),
    )
    return grpc.aio.secure_channel(server.grpc.address, credentials)


async def test_a_certificate_stands_for_the_key_that_names_it(
    server: JobServer, authority: trustme.CA, tenant: Tenant, database: Database
) -> None:
    await insert_key(database.hot, tenant.organisation_id, [JOB_READ], certificate_name=NAME)
    async with channel(server, authority, "else.example.org", NAME) as known:
        stub = JobServiceStub(known)
        await stub.ListJobs(pb.ListJobsRequest())
        request = pb.CancelJobRequest(job_id=str(uuid4()))
        # It has that key's permissions, and no more.
        await expect_error(
            stub.CancelJob(request),
            StatusCode.PERMISSION_DENIED,
            "PERMISSION_MISSING",
        )
        # A key that is sent counts more than the certificate.
        await expect_error(
            stub.CancelJob(request, metadata=bearer(tenant.key)),
            StatusCode.NOT_FOUND,
            "JOB_NOT_FOUND",
        )


async def test_a_certificate_that_no_key_names_or_whose_key_is_revoked_opens_nothing(
    server: JobServer, authority: trustme.CA, tenant: Tenant, database: Database
) -> None:
    await insert_key(database.hot, tenant.organisation_id, certificate_name=NAME)
    await revoke(database)
    for name, reason in ((OTHER_NAME, "CREDENTIAL_MISSING"), (NAME, "CREDENTIAL_REVOKED")):
        async with channel(server, authority, name) as unknown:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await JobServiceStub(unknown).ListJobs(pb.ListJobsRequest())
        assert caught.value.code() is StatusCode.UNAUTHENTICATED
        assert reason in str(caught.value.trailing_metadata())


async def revoke(database: Database) -> None:
    await database.hot.execute(
        "UPDATE taskforge.api_keys SET revoked_at = now() WHERE certificate_name = $1", NAME
    )


async def test_a_stream_ends_with_its_key_though_another_takes_the_name(
    server: JobServer, authority: trustme.CA, tenant: Tenant, database: Database
) -> None:
    permissions = [JOB_READ, JOB_WRITE]
    await insert_key(database.hot, tenant.organisation_id, permissions, certificate_name=NAME)
    queue = pb.CreateJobRequest(job=job_pb2.JobSpec(queue="emails", job_type="send"))
    await database.hot.execute(
        "INSERT INTO taskforge.queues (project_id, id, name) VALUES ($1, $2, 'emails')",
        tenant.project_id,
        uuid4(),
    )
    async with channel(server, authority, NAME) as known:
        stub = JobServiceStub(known)
        first = (await stub.CreateJob(queue)).job
        stream: Any = stub.LeaseJobs(pb.LeaseJobsRequest(session_id=str(uuid4()), max_in_flight=2))
        [held] = (await stream.read()).leases.leases
        assert held.job.id == first.id
        await revoke(database)
        await insert_key(database.hot, tenant.organisation_id, permissions, certificate_name=NAME)
        async with asyncio.timeout(END_WITHIN):
            await expect_error(read_all(stream), StatusCode.UNAUTHENTICATED, "CREDENTIAL_REVOKED")
        # The certificate stands for the new key from now on; the old stream takes nothing more.
        second = (await stub.CreateJob(queue)).job
        new: Any = stub.LeaseJobs(pb.LeaseJobsRequest(session_id=str(uuid4()), max_in_flight=1))
        [taken] = (await new.read()).leases.leases
        assert taken.job.id == second.id


async def read_all(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
        pass


async def test_a_certificate_of_another_authority_does_not_even_connect(
    server: JobServer, authority: trustme.CA, tenant: Tenant, database: Database
) -> None:
    await insert_key(database.hot, tenant.organisation_id, certificate_name=NAME)
    leaf = trustme.CA().issue_cert(NAME)
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        leaf.private_key_pem.bytes(),
        leaf.cert_chain_pems[0].bytes(),
    )
    async with grpc.aio.secure_channel(server.grpc.address, credentials) as stranger:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await JobServiceStub(stranger).ListJobs(pb.ListJobsRequest(), timeout=5)
    assert caught.value.code() is StatusCode.UNAVAILABLE
