"""How a handler's end becomes a settlement.

returns                        success, with what it returned as the result
raises Retry(after)            failure, tried again after that time
raises Fatal(message)          failure, not tried again
raises Snooze(delay)           put off, without using an attempt
raises anything else           failure, tried again by the queue's backoff
is stopped: cancelled          failure, which the server turns into CANCELLED
is stopped: the worker leaves  given back, without using an attempt
"""

import traceback
from datetime import timedelta
from typing import Final

from taskforge.v1 import job_service_pb2 as pb
from taskforge_sdk import documents
from taskforge_sdk.conversion import duration_of
from taskforge_sdk.errors import InvalidRequest
from taskforge_sdk.holding import Stop
from taskforge_sdk.models import Span

MAX_RESULT_BYTES: Final = 1_048_576
MAX_MESSAGE_CHARACTERS: Final = 1_000
MAX_DETAIL_BYTES: Final = 8_192
MAX_DELAY: Final = timedelta(days=7)

_RELEASE: Final = pb.Release()


class Outcome(Exception):
    """What handlers raise to say how their attempt ended."""


class Retry(Outcome):
    """Try again after this time (0 to 7 days), or by the queue's backoff. Uses an attempt."""

    def __init__(self, after: Span | None = None, message: str = "") -> None:
        super().__init__(message or "the handler asked to be tried again")
        self.after = None if after is None else _delay(after)


class Fatal(Outcome):
    """Do not try again: the job is FAILED, whatever attempts are left."""


class Snooze(Outcome):
    """Try again after this time (0 to 7 days), without using an attempt."""

    def __init__(self, delay: Span) -> None:
        super().__init__(f"snoozed for {delay}")
        self.delay = _delay(delay)


class JobCancelled(Exception):
    """Raised by `JobContext.raise_if_cancelled`: the handler stops because it is told to."""


class UnsendableResult(ValueError):
    """What a handler returned is no JSON, or too large."""


def _delay(span: Span) -> timedelta:
    delay = span if isinstance(span, timedelta) else timedelta(seconds=span)
    if not timedelta(0) <= delay <= MAX_DELAY:
        raise ValueError(f"a delay is 0 to 7 days, not {delay}")
    return delay


def success(token: str, result: object) -> pb.Settlement:
    """The job is done; None is no result. UnsendableResult where it cannot be sent."""
    if result is None:
        return pb.Settlement(lease_token=token, success=pb.Success())
    try:
        text = documents.encode(result, "result")
    except InvalidRequest as error:
        raise UnsendableResult(f"the handler's result {error.violations[0].description}") from error
    size = len(text) if text.isascii() else len(text.encode())
    if size > MAX_RESULT_BYTES:
        raise UnsendableResult(
            f"the handler's result has {size:,} bytes, more than the {MAX_RESULT_BYTES:,} allowed"
        )
    return pb.Settlement(lease_token=token, success=pb.Success(result=text))


def release(token: str) -> pb.Settlement:
    """The job is given back."""
    return pb.Settlement(lease_token=token, release=_RELEASE)


def after_error(token: str, error: BaseException, stop: Stop | None) -> pb.Settlement:
    """What an exception means that left the handler, told to stop or not."""
    match error:
        case Snooze():
            delay = duration_of(error.delay, "delay")
            return pb.Settlement(lease_token=token, snooze=pb.Snooze(delay=delay))
        case Retry():
            failure = _failure(error, _text(error))
            if error.after is not None:
                failure.retry_after.FromTimedelta(error.after)
        case Fatal():
            failure = _failure(error, _text(error) or "the handler gave up")
            failure.retryable = False
        case _ if stop is Stop.LEAVING:
            return release(token)
        case _ if stop is not None:
            failure = pb.Failure(message=stop.value)
        case _:
            failure = _failure(error, f"{type(error).__name__}: {_text(error)}")
    return pb.Settlement(lease_token=token, failure=failure)


def failed(token: str, message: str) -> pb.Settlement:
    """The attempt failed without an exception of the handler's."""
    return pb.Settlement(lease_token=token, failure=pb.Failure(message=_clean(message)))


def substitute(refused: pb.Settlement, why: str) -> pb.Settlement | None:
    """What to settle instead of what the server will never take; None if there is nothing left."""
    message = f"the settlement was refused: {why}"
    if refused.HasField("failure") and not refused.failure.detail:
        return None
    return failed(refused.lease_token, message)


def _failure(error: BaseException, message: str) -> pb.Failure:
    return pb.Failure(message=_clean(message), detail=_detail(error))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a class of the user's that cannot even be told must not matter
        return "it has no text"


def _clean(text: str) -> str:
    """Text as the contract takes it: no NUL, no halves of surrogate pairs, 1,000 characters."""
    text = text.replace("\0", "\ufffd").encode(errors="replace").decode()
    if len(text) > MAX_MESSAGE_CHARACTERS:
        return text[: MAX_MESSAGE_CHARACTERS - 1] + "…"
    return text


def _detail(error: BaseException) -> str:
    """The exception's type and traceback as JSON of at most 8 KiB; the end of it tells most."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"[:200]
    lines = "".join(traceback.format_exception(error))
    lines = lines.replace("\0", "\ufffd").encode(errors="replace").decode()
    room = MAX_DETAIL_BYTES
    while True:
        tail = lines if len(lines) <= room else "…" + lines[-room:]
        text = documents.encode({"type": kind, "traceback": tail}, "detail")
        size = len(text.encode())
        if size <= MAX_DETAIL_BYTES:
            return text
        # Escapes and letters of several bytes make the text longer than its characters.
        room = min(len(lines), room) * MAX_DETAIL_BYTES // (size + 64)
