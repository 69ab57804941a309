"""TLS of the servers: what new connections are served while the files on disk change."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs
from tests.integration.core.serving import at_once

from taskforge_core.access import Access
from taskforge_core.authentication import NoAuthenticator
from taskforge_core.grpc_server import CannotListen, GrpcServer, build_server
from taskforge_core.settings import Settings
from taskforge_core.tls import Certificates

HOST = "127.0.0.1"


async def always() -> bool:
    return True


class Files:
    """The server's files, written anew by the test."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "server.pem"
        self.key = folder / "server.key"
        self.authorities = folder / "clients.pem"
        self.ca = trustme.CA()
        self.leaf = self.issue()

    def issue(self) -> trustme.LeafCert:
        """Another certificate of the same authority."""
        return self.ca.issue_cert(HOST)

    def write(self, leaf: trustme.LeafCert) -> None:
        self.leaf = leaf
        self.key.write_bytes(leaf.private_key_pem.bytes())
        self.certificate.write_bytes(chain_of(leaf))

    def settings(self, *, mutual: bool = False) -> Settings:
        return Settings(
            authentication="off",
            tls_certificate=self.certificate,
            tls_key=self.key,
            tls_client_authorities=self.authorities if mutual else None,
        )

    def client(self, leaf: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
        root = self.ca.cert_pem.bytes()
        if leaf is None:
            return grpc.ssl_channel_credentials(root)
        return grpc.ssl_channel_credentials(root, leaf.private_key_pem.bytes(), chain_of(leaf))


def chain_of(leaf: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in leaf.cert_chain_pems)


def serial_of(leaf: trustme.LeafCert) -> int:
    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).serial_number


@pytest.fixture
def files(tmp_path: Path) -> Files:
    files = Files(tmp_path)
    files.write(files.leaf)
    return files


OPEN = Access(NoAuthenticator())


async def started(settings: Settings) -> GrpcServer:
    server = build_server(settings, f"{HOST}:0", [], ready=always, access=OPEN)
    await server.start()
    return server


@pytest.fixture
async def server(files: Files) -> AsyncIterator[GrpcServer]:
    server = await started(files.settings())
    yield server
    await server.stop(hurry=at_once())


async def served(server: GrpcServer, files: Files) -> int:
    """The serial number of the certificate that a new connection is shown."""
    context = ssl.create_default_context()
    files.ca.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    host, _, port = server.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number


def health_of(channel: grpc.aio.Channel) -> Any:
    """The stub, whose methods its types leave out."""
    return health_pb2_grpc.HealthStub(channel)


async def check(server: GrpcServer, credentials: grpc.ChannelCredentials | None) -> int:
    """Ask for the server's health over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.aio.insecure_channel(server.address, options)
        if credentials is None
        else grpc.aio.secure_channel(server.address, credentials, options)
    )
    async with channel:
        answer = await health_of(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    status: int = answer.status
    return status


async def test_a_client_that_trusts_the_authority_is_served(
    server: GrpcServer, files: Files
) -> None:
    assert await check(server, files.client()) == health_pb2.HealthCheckResponse.SERVING


async def test_plaintext_and_foreign_authorities_are_not_served(
    server: GrpcServer, files: Files
) -> None:
    stranger = grpc.ssl_channel_credentials(trustme.CA().cert_pem.bytes())
    for credentials in (None, stranger):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await check(server, credentials)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_new_connections_get_the_certificate_that_lies_on_disk(
    server: GrpcServer, files: Files
) -> None:
    assert await served(server, files) == serial_of(files.leaf)
    with capture_logs() as logs:
        files.write(files.issue())
        assert await served(server, files) == serial_of(files.leaf)
        assert await served(server, files) == serial_of(files.leaf)
    (line,) = logs
    assert line["event"] == "certificate_reloaded"
    assert line["files"] == [str(files.certificate), str(files.key)]
    assert await check(server, files.client()) == health_pb2.HealthCheckResponse.SERVING


async def test_an_open_connection_outlives_a_change_of_the_certificate(
    server: GrpcServer, files: Files
) -> None:
    async with grpc.aio.secure_channel(server.address, files.client()) as channel:
        stub = health_of(channel)
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        files.write(files.issue())
        assert await served(server, files) == serial_of(files.leaf)
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)


GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "an empty file": lambda chain: b"",
    "no PEM": lambda chain: b"garbage\n" * 100,
    "bytes": lambda chain: bytes(range(256)),
    "a half-written certificate": lambda chain: chain[: len(chain) // 2],
    "a chain whose second certificate is cut off": lambda chain: chain + chain[: len(chain) - 9],
    "a block that is no certificate": lambda chain: (
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    ),
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_keeps_the_last_good_certificate_and_is_told_once(
    server: GrpcServer, files: Files, kind: str
) -> None:
    before = files.leaf
    whole = chain_of(files.issue())
    with capture_logs() as logs:
        files.certificate.write_bytes(GARBAGE[kind](whole))
        for _ in range(3):
            assert await served(server, files) == serial_of(before)
    (line,) = logs
    assert line["event"] == "certificate_unusable"
    assert line["log_level"] == "warning"
    assert str(files.certificate) in line["why"]
    files.write(files.issue())
    assert await served(server, files) == serial_of(files.leaf)


async def test_changed_files_are_looked_at_without_a_connection_too(files: Files) -> None:
    files.authorities.write_bytes(files.ca.cert_pem.bytes())
    certificates = Certificates.of(files.settings(mutual=True))
    assert certificates is not None
    files.authorities.write_bytes(b"garbage")
    with capture_logs() as logs:
        for _ in range(2):
            await certificates.refresh()
    (line,) = logs
    assert line["event"] == "certificate_unusable"
    assert str(files.authorities) in line["why"]
    files.authorities.write_bytes(trustme.CA().cert_pem.bytes())
    with capture_logs() as logs:
        for _ in range(2):
            await certificates.refresh()
    (line,) = logs
    assert (line["event"], line["files"]) == ("certificate_reloaded", [str(files.authorities)])


async def test_what_was_found_without_a_connection_is_served_to_the_next(files: Files) -> None:
    certificates = Certificates.of(files.settings())
    assert certificates is not None
    files.write(files.issue())
    await certificates.refresh()
    assert certificates._take_news() is certificates._good
    assert certificates._take_news() is None


async def test_a_key_of_another_certificate_waits_for_its_own(
    server: GrpcServer, files: Files
) -> None:
    before, after = files.leaf, files.issue()
    with capture_logs() as logs:
        files.key.write_bytes(after.private_key_pem.bytes())
        assert await served(server, files) == serial_of(before)
    assert "is not the key of the certificate" in logs[0]["why"]
    files.certificate.write_bytes(chain_of(after))
    assert await served(server, files) == serial_of(after)


NOW = datetime.now(UTC)
WRONG_TIMES = {
    "certificate_expired": (NOW - timedelta(days=2), NOW - timedelta(days=1)),
    "certificate_not_valid_yet": (NOW + timedelta(days=1), NOW + timedelta(days=2)),
}


@pytest.mark.parametrize("event", WRONG_TIMES)
async def test_a_certificate_outside_of_its_time_is_told_when_it_is_loaded(
    server: GrpcServer, files: Files, event: str
) -> None:
    begins, ends = WRONG_TIMES[event]
    files.write(files.ca.issue_cert(HOST, not_before=begins, not_after=ends))
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError):
                await check(server, files.client())
    assert [line["event"] for line in logs] == [event, "certificate_reloaded"]
    assert logs[0]["log_level"] == "warning"
    assert logs[0]["file"] == str(files.certificate)
    with capture_logs() as logs:
        other = await started(files.settings())
        await other.stop(hurry=at_once())
    assert logs[0]["event"] == event
    files.write(files.issue())
    with capture_logs() as logs:
        await check(server, files.client())
    assert [line["event"] for line in logs] == ["certificate_reloaded"]


async def test_missing_files_keep_the_last_good_certificate(
    server: GrpcServer, files: Files
) -> None:
    before = files.leaf
    files.key.unlink()
    files.certificate.unlink()
    assert await served(server, files) == serial_of(before)
    files.write(files.issue())
    assert await served(server, files) == serial_of(files.leaf)


async def test_with_client_authorities_only_their_clients_are_served(files: Files) -> None:
    clients = trustme.CA()
    files.authorities.write_bytes(clients.cert_pem.bytes())
    server = await started(files.settings(mutual=True))
    try:
        ours = clients.issue_cert("spiffe.example")
        assert await check(server, files.client(ours)) == health_pb2.HealthCheckResponse.SERVING
        for stranger in (None, trustme.CA().issue_cert("spiffe.example")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await check(server, files.client(stranger))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(hurry=at_once())


async def test_client_authorities_change_without_a_restart(files: Files) -> None:
    old, new = trustme.CA(), trustme.CA()
    files.authorities.write_bytes(old.cert_pem.bytes())
    server = await started(files.settings(mutual=True))
    try:
        newcomer = files.client(new.issue_cert("client.example"))
        with pytest.raises(grpc.aio.AioRpcError):
            await check(server, newcomer)
        files.authorities.write_bytes(b"garbage")
        old_client = files.client(old.issue_cert("client.example"))
        await check(server, old_client)
        files.authorities.write_bytes(new.cert_pem.bytes())
        await check(server, newcomer)
        with pytest.raises(grpc.aio.AioRpcError):
            await check(server, old_client)
    finally:
        await server.stop(hurry=at_once())


def _encrypted(leaf: trustme.LeafCert) -> bytes:
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


async def test_a_server_does_not_start_on_garbage_and_says_which_file(files: Files) -> None:
    whole = files.leaf
    for broken, data, words in (
        (files.certificate, b"garbage", "holds no certificate"),
        (files.certificate, chain_of(whole)[:-40], "holds no certificate"),
        (files.certificate, chain_of(files.issue()), "is not the key of the certificate"),
        (files.key, b"garbage", "holds no private key"),
        (files.key, _encrypted(whole), "is encrypted"),
        (files.authorities, b"garbage", "holds no certificate"),
    ):
        files.write(whole)
        files.authorities.write_bytes(files.ca.cert_pem.bytes())
        broken.write_bytes(data)
        with pytest.raises(CannotListen, match=words) as refused:
            build_server(files.settings(mutual=True), f"{HOST}:0", [], ready=always, access=OPEN)
        assert str(files.certificate) in str(refused.value) or str(broken) in str(refused.value)
        assert "\n" not in str(refused.value)
    files.key.unlink()
    with pytest.raises(CannotListen, match="cannot read"):
        build_server(files.settings(), f"{HOST}:0", [], ready=always, access=OPEN)
