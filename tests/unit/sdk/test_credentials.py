"""The credential: what is sent, when another is asked for, and where it is not sent at all."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator

import grpc.aio
import pytest
from tests.unit.sdk.fake_job_service import PATIENCE, REVOKED, Context, abort, key_of

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as jobs
from taskforge.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from taskforge_sdk import (
    BlockingClient,
    Client,
    RetryPolicy,
    TaskForgeError,
    Tls,
    Unauthenticated,
    Unavailable,
    Worker,
)
from taskforge_sdk.channels import is_local, options_for
from taskforge_sdk.credentials import ApiKey, Credential

KEY = "tfk_0190b5a600007000800000000000000a_hunter2"
BEARER = (("authorization", f"Bearer {KEY}"),)


class Keyring(JobServiceServicer):
    """Answers calls with a key that is valid; remembers all."""

    def __init__(self) -> None:
        self.valid = {KEY}
        self.seen: list[str] = []

    async def RetryJob(
        self, request: jobs.RetryJobRequest, context: Context
    ) -> jobs.RetryJobResponse:
        self.seen.append(key_of(context))
        if self.seen[-1] not in self.valid:
            await abort(context, REVOKED)
        return jobs.RetryJobResponse(job=job_pb2.Job(id=request.job_id))


@pytest.fixture
async def keyring(address: str) -> AsyncIterator[Keyring]:
    keyring = Keyring()  # type: ignore[abstract]  # the rest answers UNIMPLEMENTED
    server = grpc.aio.server()
    add_JobServiceServicer_to_server(keyring, server)
    server.add_insecure_port(address)
    await server.start()
    yield keyring
    await server.stop(None)


Call = Callable[[ApiKey | None], "asyncio.Future[str]"]


@pytest.fixture(params=["asynchronous", "blocking"])
def call(request: pytest.FixtureRequest, address: str, keyring: Keyring) -> Call:
    """A call that may not be repeated without need, over a client of either kind."""
    retry = RetryPolicy(max_attempts=2, initial=0.001)

    async def asynchronously(api_key: ApiKey | None) -> str:
        async with Client(job_address=address, api_key=api_key, retry=retry) as client:
            return (await client.retry_job("j1")).id

    def blocking(api_key: ApiKey | None) -> str:
        with BlockingClient(job_address=address, api_key=api_key, retry=retry) as client:
            return client.retry_job("j1").id

    def make(api_key: ApiKey | None) -> "asyncio.Future[str]":
        if request.param == "asynchronous":
            return asyncio.ensure_future(asynchronously(api_key))
        return asyncio.ensure_future(asyncio.to_thread(blocking, api_key))

    return make


def giving(*keys: str) -> Callable[[], str]:
    """A function that gives one key after the other, and then fails."""
    left: Iterator[str] = iter(keys)

    def give() -> str:
        try:
            return next(left)
        except StopIteration:
            raise ConnectionError("hunter2") from None

    return give


async def test_the_key_is_sent_with_a_call(call: Call, keyring: Keyring) -> None:
    assert await call(KEY) == "j1"
    assert keyring.seen == [KEY]


async def test_without_a_key_none_is_sent(call: Call, keyring: Keyring) -> None:
    keyring.valid = {""}
    assert await call(None) == "j1"


async def test_a_refused_key_is_not_sent_again(call: Call, keyring: Keyring) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await call("tfk_wrong")
    assert refused.value.reason == "CREDENTIAL_REVOKED"
    assert keyring.seen == ["tfk_wrong"]


async def test_a_function_is_asked_again_when_its_key_is_refused(
    call: Call, keyring: Keyring
) -> None:
    assert await call(giving("old", KEY)) == "j1"
    assert keyring.seen == ["old", KEY]


async def test_a_function_is_asked_again_only_once_a_call(call: Call, keyring: Keyring) -> None:
    with pytest.raises(Unauthenticated):
        await call(giving("old", "older", KEY))
    assert keyring.seen == ["old", "older"]


async def test_a_function_that_has_no_other_key_ends_the_call(call: Call, keyring: Keyring) -> None:
    with pytest.raises(Unauthenticated):
        await call(lambda: "old")
    assert keyring.seen == ["old"]


@pytest.mark.parametrize("function", [giving(), lambda: "two\nlines hunter2", lambda: ""])
async def test_a_function_that_fails_is_told_without_its_words(
    call: Call, function: Callable[[], str]
) -> None:
    with pytest.raises(Unavailable) as failed:
        await call(function)
    assert "there is no API key" in str(failed.value)
    assert "hunter2" not in str(failed.value)


def test_the_function_is_asked_once_for_many_calls() -> None:
    asked: list[str] = []

    def give() -> str:
        asked.append(KEY)
        return KEY

    credential = Credential(give)
    assert asked == []
    assert {credential.metadata() for _ in range(5)} == {BEARER}
    assert asked == [KEY]


def test_a_key_that_another_call_has_renewed_is_not_asked_for_again() -> None:
    credential = Credential(giving("old", KEY))
    old = credential.metadata()
    assert credential.renew(old)
    assert credential.renew(old)
    assert credential.metadata() == BEARER


def test_a_function_that_fails_once_is_asked_again_by_the_next_call() -> None:
    answers: list[str | None] = ["old", None, KEY]

    def give() -> str:
        answer = answers.pop(0)
        if answer is None:
            raise TimeoutError
        return answer

    credential = Credential(give)
    with pytest.raises(Unavailable):
        credential.renew(credential.metadata())
    assert credential.metadata() == BEARER


@pytest.mark.parametrize("key", ["", "two words", "two\nlines", "schlüssel"])
def test_what_no_header_can_carry_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        Client(api_key=key)


async def test_the_key_is_shown_nowhere(
    address: str, keyring: Keyring, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    keyring.valid = set()
    client = Client(job_address=address, api_key=KEY)
    worker = Worker(address, api_key=KEY)
    worker.job("work")(lambda job: None)
    with pytest.raises(TaskForgeError) as refused:
        await client.retry_job("j1")
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(TaskForgeError) as ended:
            await worker.run()
    await client.close()
    shown = [
        client,
        vars(client),
        worker,
        vars(worker),
        worker.options,
        refused,
        ended,
        caplog.text,
    ]
    assert "hunter2" not in "".join(f"{each!r} {each}" for each in shown)


@pytest.mark.parametrize(
    ("address", "stays"),
    [
        ("127.0.0.1:50051", True),
        ("127.3.2.1:50051", True),
        ("[::1]:50051", True),
        ("::1", True),
        ("localhost:50051", True),
        ("dns:localhost:50051", True),
        ("dns:///localhost:50051", True),
        ("dns://10.0.0.1/localhost:50051", False),
        ("unix:/run/taskforge.sock", True),
        ("unix-abstract:taskforge", True),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:2", False),
        ("ipv6:[::1]:1", True),
        ("10.0.0.1:50051", False),
        ("0.0.0.0:50051", False),
        ("localhost.example.org:50051", False),
        ("jobs:50052", False),
        ("vsock:1:2", False),
    ],
)
def test_a_key_leaves_the_machine_over_tls_alone(address: str, stays: bool) -> None:
    assert is_local(address) is stays
    assert dict(options_for(address)).get("grpc.enable_http_proxy") == (0 if stays else None)
    if stays:
        Client(queue_address=address, job_address=address, api_key=KEY)
        return
    for make in (
        lambda: Client(queue_address=address, api_key=KEY),
        lambda: BlockingClient(job_address=address, api_key=lambda: KEY),
        lambda: Worker(api_key=KEY).configure(address=address),
    ):
        with pytest.raises(ValueError, match="in plaintext"):
            make()
    Client(queue_address=address)
    Client(queue_address=address, api_key=KEY, tls=Tls())
    Client(queue_address=address, api_key=KEY, allow_plaintext_key=True)


async def test_a_worker_does_not_start_with_a_key_that_all_could_read() -> None:
    worker = Worker("jobs.example.org:50052", api_key=KEY)
    worker.job("work")(lambda job: None)
    with pytest.raises(ValueError, match=r"jobs\.example\.org:50052 in plaintext"):
        await worker.run()
