"""The errors that callers of TaskForge can meet, and their form on the wire.

```
TaskForgeError
├── InvalidArgument       INVALID_ARGUMENT     the request alone is wrong
├── Unauthenticated       UNAUTHENTICATED      no valid credential
├── PermissionDenied      PERMISSION_DENIED    the credential does not allow it
├── NotFound              NOT_FOUND            no such thing that the caller may see
├── AlreadyExists         ALREADY_EXISTS       a name or a request_id is taken
├── FailedPrecondition    FAILED_PRECONDITION  the state forbids it
├── Aborted               ABORTED              the lease was lost, the stream replaced
├── ResourceExhausted     RESOURCE_EXHAUSTED   a limit or a quota
├── Unavailable           UNAVAILABLE          not now; repeating is safe
└── Internal              INTERNAL             our own defect
```

Every error carries a `reason`: the name of a value of `taskforge.v1.ErrorReason` without its
prefix `ERROR_REASON_`. Its message is for people and never holds SQL or a traceback; whatever
varies in it is in `metadata` too, so that programs need not read it. On the wire an error is a
`google.rpc.Status` with exactly one `ErrorInfo` of the domain `taskforge`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "taskforge"
"""The domain of each `ErrorInfo`."""

_LONGEST_TEXT_BYTES = 400
_ALL_VIOLATIONS_BYTES = 2000
"""gRPC refuses trailers above 8 KiB, and the client would get its error instead of ours. The
message travels twice, once with each byte beyond ASCII as three."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request: its path (`items[3].priority`) and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class PreconditionViolation:
    """The state that forbids a call: a kind (`QUEUE_STATE`), its bearer (`queues/…`), and words."""

    type: str
    subject: str
    description: str


class TaskForgeError(Exception):
    """The root; raise one of its subclasses."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        field_violations: Sequence[FieldViolation] = (),
        precondition: PreconditionViolation | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        """Describe the error.

        Args:
            reason: A value of `ErrorReason` without its prefix, such as `QUEUE_NOT_FOUND`.
            message: One sentence for people.
            metadata: The variable parts of the message, by name.
            field_violations: The wrong fields, for an invalid request.
            precondition: The state that forbids the call, for a failed precondition.
            retry_after: When trying again may help; unset where it never does by itself.
        """
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.field_violations = tuple(field_violations)
        self.precondition = precondition
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class InvalidArgument(TaskForgeError):
    """The request alone is wrong, whatever the state; repeating it cannot help."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class Unauthenticated(TaskForgeError):
    """There is no valid credential."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(TaskForgeError):
    """The credential is valid but does not allow the call."""

    code = grpc.StatusCode.PERMISSION_DENIED


class NotFound(TaskForgeError):
    """There is no such thing that the caller may see."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(TaskForgeError):
    """A name is taken, or a request_id was used for another content."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(TaskForgeError):
    """The state of the thing forbids the call until somebody changes that state."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(TaskForgeError):
    """Another one came first: the lease was lost, the stream was replaced."""

    code = grpc.StatusCode.ABORTED


class ResourceExhausted(TaskForgeError):
    """A limit or a quota is used up."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(TaskForgeError):
    """The database, a token's issuer or this server is not there now; a call may be repeated."""

    code = grpc.StatusCode.UNAVAILABLE


class Internal(TaskForgeError):
    """A defect of TaskForge; the server's log tells more under the request_id of the metadata."""

    code = grpc.StatusCode.INTERNAL


def invalid_field(
    field: str, description: str, *, reason: str = "INVALID_REQUEST"
) -> InvalidArgument:
    """The common case of a single wrong field."""
    return InvalidArgument(
        reason,
        f"{field}: {description}",
        metadata={"field": field},
        field_violations=[FieldViolation(field, description)],
    )


def to_status(error: TaskForgeError) -> status_pb2.Status:
    """The wire form of an error, for `abort_with_status` and for one item of a batch."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason,
            domain=DOMAIN,
            metadata={name: _shortened(value) for name, value in error.metadata.items()},
        )
    ]
    if error.field_violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.field_violations:
            bad_request.field_violations.add(
                field=_shortened(violation.field), description=_shortened(violation.description)
            )
            if bad_request.ByteSize() > _ALL_VIOLATIONS_BYTES:
                break
        details.append(bad_request)
    if error.precondition is not None:
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(
            type=error.precondition.type,
            subject=error.precondition.subject,
            description=_shortened(error.precondition.description),
        )
        details.append(failure)
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(error.retry_after)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=error.code.value[0], message=_shortened(error.message))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _shortened(text: str) -> str:
    """The text, or its beginning where a caller made it longer than an error can be."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= _LONGEST_TEXT_BYTES:
        return text
    return encoded[:_LONGEST_TEXT_BYTES].decode("utf-8", "ignore") + "…"
