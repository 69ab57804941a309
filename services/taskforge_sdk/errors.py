"""What can go wrong, and the one border where gRPC's errors are translated.

    TaskForgeError
    ├── InvalidRequest        the request alone is wrong (also a ValueError; raised locally, too)
    ├── Unauthenticated       no valid credential
    ├── PermissionDenied      the credential lacks the permission
    ├── NotFound              no such queue, job or project that the caller may see
    ├── AlreadyExists         a name is taken, a request_id was used for another content
    ├── PreconditionFailed    the state forbids it: a paused queue, a finished job
    ├── Aborted               somebody else's call took this one's place
    │   ├── LeaseLost         the lease is held no longer
    │   └── StreamReplaced    a newer stream of the session took this one's place
    ├── ResourceExhausted     a quota, or a message larger than a side takes
    ├── Unavailable           no answer: it may have happened, or not
    │   └── DeadlineExceeded  no answer in time
    └── ServerError           a fault in TaskForge, or an answer that is none of its own

Programs decide by the class and by `reason`, never by the text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "taskforge"

_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request that breaks a rule of the contract."""

    field: str
    description: str


class TaskForgeError(Exception):
    """A call that TaskForge refused or could not answer.

    `code` is the gRPC code; `reason` the name in the contract's ErrorReason without its prefix,
    empty where the server gave none; `metadata` every variable part of the message; `violations`
    the wrong fields; `preconditions` what the state forbids; `retry_after` when trying again can
    help.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
        preconditions: Iterable[str] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.preconditions = tuple(preconditions)
        self.retry_after = retry_after

    def __str__(self) -> str:
        """One line: the message, the fields that are wrong, and the reason."""
        line = " ".join(self.message.split()) or self.code.name
        fields = [
            f"{violation.field}: {violation.description}"
            for violation in self.violations
            if violation.description not in line
        ]
        if fields:
            line = f"{line} ({'; '.join(fields)})"
        return f"{line} [{self.reason or self.code.name}]"


class InvalidRequest(TaskForgeError, ValueError):
    """The request alone is wrong: no state of the system would make it right."""


class Unauthenticated(TaskForgeError):
    """There is no valid credential."""


class PermissionDenied(TaskForgeError):
    """The credential lacks the permission."""


class NotFound(TaskForgeError):
    """There is no such thing that the caller may see."""


class AlreadyExists(TaskForgeError):
    """A name is taken, or a request_id was used for another content."""


class PreconditionFailed(TaskForgeError):
    """The state forbids it."""


class Aborted(TaskForgeError):
    """Somebody else's call took this one's place."""


class LeaseLost(Aborted):
    """The lease is held no longer: somebody else has, or will have, the job."""


class StreamReplaced(Aborted):
    """A newer stream of the same session took this one's place."""


class ResourceExhausted(TaskForgeError):
    """A quota is used up, or a message is larger than one side takes; no client repeats the call.

    `retry_after` is set where waiting so long can help.
    """


class Unavailable(TaskForgeError):
    """There was no answer: the call may have had its effect, or not."""


class DeadlineExceeded(Unavailable):
    """There was no answer in time: the call may have had its effect, or not."""


class ServerError(TaskForgeError):
    """A fault in TaskForge, or an answer that is none of its own."""


_CLASS_OF_CODE: dict[grpc.StatusCode, type[TaskForgeError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    # Never by us: with it gRPC cuts off the calls that cross a server's leaving. A call that its
    # caller cancels does not come here.
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}

_CLASS_OF_REASON: dict[str, type[TaskForgeError]] = {
    "LEASE_LOST": LeaseLost,
    "STREAM_REPLACED": StreamReplaced,
}

_CODE_OF_NUMBER = {cast("tuple[int, str]", code.value)[0]: code for code in grpc.StatusCode}


def invalid(field: str, description: str, *, reason: str = "INVALID_REQUEST") -> InvalidRequest:
    """The error for an argument that is found wrong before anything is sent."""
    return InvalidRequest(
        f"{field}: {description}",
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason=reason,
        violations=[FieldViolation(field, description)],
    )


def from_status(status: status_pb2.Status) -> TaskForgeError:
    """Translate a `google.rpc.Status`, as one item of a batch carries it."""
    reason = ""
    metadata: dict[str, str] = {}
    violations: list[FieldViolation] = []
    preconditions: list[str] = []
    retry_after: timedelta | None = None
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    state = error_details_pb2.PreconditionFailure()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(request):
            violations += [
                FieldViolation(each.field, each.description) for each in request.field_violations
            ]
        elif detail.Unpack(state):
            preconditions += [each.description for each in state.violations]
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta()
    code = _CODE_OF_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
    error = _CLASS_OF_REASON.get(reason) or _CLASS_OF_CODE.get(code, ServerError)
    return error(
        status.message,
        code=code,
        reason=reason,
        metadata=metadata,
        violations=violations,
        preconditions=preconditions,
        retry_after=retry_after,
    )


def from_rpc_error(error: grpc.RpcError) -> TaskForgeError:
    """Translate what a gRPC call raised, of either kind of channel."""
    # Both kinds of RpcError have these methods; only the base class of neither declares them.
    call = cast("Any", error)
    code: grpc.StatusCode = call.code()
    number = cast("tuple[int, str]", code.value)[0]
    status = status_pb2.Status(code=number, message=call.details() or "")
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            status = _detailed(value, status)
    return from_status(status)


def _detailed(value: bytes, bare: status_pb2.Status) -> status_pb2.Status:
    """The status in the trailing metadata, or the bare one where a proxy has garbled it."""
    try:
        detailed = status_pb2.Status.FromString(value)
    except DecodeError:
        return bare
    return detailed if detailed.code == bare.code else bare
