"""TLS of clients and workers, against a real server, while the files change."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
from tests.unit.sdk.fake_job_service import PATIENCE, FakeJobService, lease, soon

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as jobs
from taskforge.v1.job_service_pb2_grpc import add_JobServiceServicer_to_server
from taskforge_sdk import (
    BlockingClient,
    Client,
    JobContext,
    RetryPolicy,
    Tls,
    Unavailable,
    Worker,
    tls,
)


class Service(FakeJobService):
    """Answers GetJob with the certificate's name that the client has shown."""

    async def GetJob(
        self, request: jobs.GetJobRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> jobs.GetJobResponse:
        names = context.auth_context().get("x509_subject_alternative_name", [b""])
        return jobs.GetJobResponse(job=job_pb2.Job(id=next(iter(names)).decode()))


class Place:
    """A server that takes the clients of one authority; the files a client finds it with."""

    def __init__(self, folder: Path) -> None:
        self.service = Service()  # type: ignore[abstract]  # the rest answers UNIMPLEMENTED
        self.address = "127.0.0.1:0"
        self.servers_ca, self.clients_ca = trustme.CA(), trustme.CA()
        self.authorities = folder / "authorities.pem"
        self.certificate = folder / "client.pem"
        self.key = folder / "client.key"
        self.tls = Tls(self.authorities, self.certificate, self.key)
        self._server: grpc.aio.Server | None = None

    def write(self, name: str) -> None:
        """The client's files, with a certificate of this name."""
        leaf = self.clients_ca.issue_cert(name)
        self.authorities.write_bytes(self.servers_ca.cert_pem.bytes())
        self.key.write_bytes(leaf.private_key_pem.bytes())
        self.certificate.write_bytes(leaf.cert_chain_pems[0].bytes())

    async def start(self) -> None:
        """Serve, on the port of the last time."""
        leaf = self.servers_ca.issue_cert("127.0.0.1")
        self._server = server = grpc.aio.server()
        add_JobServiceServicer_to_server(self.service, server)
        credentials = grpc.ssl_server_credentials(
            [(leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())],
            self.clients_ca.cert_pem.bytes(),
            require_client_auth=True,
        )
        port = server.add_secure_port(self.address, credentials)
        self.address = f"127.0.0.1:{port}"
        await server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(None)


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(tls, "_LOOK_INTERVAL", 0)
    place = Place(tmp_path)
    place.write("first.example")
    await place.start()
    yield place
    await place.stop()


Ask = Callable[[], Awaitable[str]]


@pytest.fixture(params=["asynchronous", "blocking"])
async def ask(request: pytest.FixtureRequest, place: Place) -> AsyncIterator[Ask]:
    """Asks the server for the name that the client has shown."""
    retry = RetryPolicy(max_attempts=1)
    if request.param == "asynchronous":
        async with Client(job_address=place.address, tls=place.tls, retry=retry) as client:

            async def ask() -> str:
                return (await client.get_job("j1")).id

            yield ask
        return
    blocking_client = BlockingClient(job_address=place.address, tls=place.tls, retry=retry)

    async def ask_in_thread() -> str:
        return (await asyncio.to_thread(blocking_client.get_job, "j1")).id

    yield ask_in_thread
    blocking_client.close()


async def test_a_client_shows_its_certificate(ask: Ask) -> None:
    assert await ask() == "first.example"


async def test_a_client_goes_on_with_changed_files(ask: Ask, place: Place) -> None:
    assert await ask() == "first.example"
    place.write("second.example")
    assert await ask() == "second.example"


async def test_a_client_follows_its_servers_to_another_authority(ask: Ask, place: Place) -> None:
    await ask()
    await place.stop()
    place.servers_ca = trustme.CA()
    await place.start()
    with pytest.raises(Unavailable):
        await ask()
    place.write("second.example")
    assert await ask() == "second.example"


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nMII"])
async def test_garbage_keeps_the_last_good_files_and_is_told_once(
    ask: Ask, place: Place, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for file in (place.authorities, place.certificate, place.key):
        caplog.clear()
        file.write_bytes(garbage)
        assert [await ask() for _ in range(3)] == ["first.example"] * 3
        (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert str(file) in warning.getMessage()
        place.write("first.example")
        await ask()
    place.write("second.example")
    assert await ask() == "second.example"


async def test_a_call_that_is_under_way_ends_on_its_old_channel(place: Place) -> None:
    async with Client(job_address=place.address, tls=place.tls) as client:
        await client.get_job("j1")
        (old,) = client._lines.values()
        busy = client._take_line(next(iter(client._lines)))
        assert busy is old
        place.write("second.example")
        assert (await client.get_job("j1")).id == "second.example"
        answer = await busy.stub.GetJob(jobs.GetJobRequest(job_id="j1"))
        assert answer.job.id == "first.example"
        assert client._give_back(busy) == [busy.channel]


async def test_a_worker_goes_on_with_changed_files(place: Place) -> None:
    worker = Worker(place.address, tls=place.tls, lease_duration=0.15)

    @worker.job("work")
    async def handle(job: JobContext) -> None:
        pass

    running = asyncio.create_task(worker.run())
    stream = await soon(place.service.streams)
    place.servers_ca = trustme.CA()
    place.write("second.example")
    stream.end()
    await place.stop()
    await place.start()
    stream = await soon(place.service.streams)
    stream.send(lease("t1"))
    assert (await soon(place.service.settlements)).lease_token == "t1"
    worker.stop()
    async with asyncio.timeout(PATIENCE):
        await running


def test_unusable_files_are_told_before_anything_is_sent(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("garbage")
    missing = tmp_path / "missing.pem"
    with pytest.raises(ValueError, match=f"cannot read {missing}"):
        Client(tls=Tls(missing))
    with pytest.raises(ValueError, match=f"{garbage} holds no certificate"):
        BlockingClient(tls=Tls(garbage))
    with pytest.raises(ValueError, match="are no certificate and its key"):
        Client(tls=Tls(certificate=garbage, key=garbage))
    with pytest.raises(ValueError, match="go together"):
        Tls(certificate=garbage)
