"""The client of a command, and the border where refusals become lines."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from taskforge_cli.configuration import load_settings
from taskforge_cli.failures import CommandError, ExitCode, usage_error
from taskforge_cli.identifying import given_key, local_key, refuse_plaintext_key, tls_of
from taskforge_core.settings import Settings
from taskforge_sdk import (
    BlockingClient,
    RetryPolicy,
    TaskForgeError,
    Unauthenticated,
    Unavailable,
)

_TIMEOUT_SECONDS = 15.0
# A person at a terminal wants to know at once; a script repeats by its own rules.
_NO_RETRY = RetryPolicy(max_attempts=1)
_HOW_TO_GIVE_A_KEY = (
    "set TASKFORGE_API_KEY_FILE to a file that holds an API key, or TASKFORGE_API_KEY to the key"
)


def make_client(settings: Settings, address: str) -> BlockingClient:
    """The client that every command uses; tests put one over a fake channel in its place.

    `address` is that of the one service that is called.
    """
    api_key = given_key(settings) or local_key(settings, address)
    tls = tls_of(settings)
    if api_key is not None and tls is None:
        refuse_plaintext_key(address)
    try:
        return BlockingClient(
            queue_address=address,
            job_address=address,
            api_key=api_key,
            tls=tls,
            timeout=_TIMEOUT_SECONDS,
            retry=_NO_RETRY,
        )
    except ValueError as error:
        raise usage_error(str(error)) from None


@contextmanager
def queue_calls(queue_address: str | None) -> Iterator[BlockingClient]:
    """A client for calls to queue_service, at the given address or that of the settings."""
    settings = load_settings(queue_address=queue_address)
    with (
        _refusals_as_lines("queue", settings.queue_address),
        make_client(settings, settings.queue_address) as client,
    ):
        yield client


@contextmanager
def job_calls(job_address: str | None) -> Iterator[BlockingClient]:
    """A client for calls to job_service, at the given address or that of the settings."""
    settings = load_settings(job_address=job_address)
    with (
        _refusals_as_lines("job", settings.job_address),
        make_client(settings, settings.job_address) as client,
    ):
        yield client


@contextmanager
def _refusals_as_lines(service: str, address: str) -> Iterator[None]:
    try:
        yield
    except TaskForgeError as error:
        raise refusal(error, service, address) from error


def refusal(error: TaskForgeError, service: str, address: str) -> CommandError:
    """The line for an error of the SDK: `QUEUE_NOT_FOUND: there is no queue emials`."""
    # A reason is the server's word; without one there was no server.
    if isinstance(error, Unavailable) and not error.reason:
        timed_out = error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        why = "no answer in time" if timed_out else _cause(error.message)
        return CommandError(
            f"cannot reach the {service} service at {address}: {why}", ExitCode.UNREACHABLE
        )
    fields = [
        f"{violation.field}: {violation.description}"
        for violation in error.violations
        if violation.description not in error.message
    ]
    words = "; ".join([error.message, *fields] if error.message else fields)
    if isinstance(error, Unauthenticated):
        words += f"; {_HOW_TO_GIVE_A_KEY}"
    return CommandError(f"{error.reason or error.code.name}: {words}")


def _cause(message: str) -> str:
    """gRPC's words for a failed connection, without the layers that repeat the address."""
    if "Connection refused" in message:
        return "connection refused; is it running?"
    if "Socket closed" in message:
        return "socket closed; does the server speak TLS, or want a client certificate?"
    return message.rpartition("last error: ")[2] or "no connection"
