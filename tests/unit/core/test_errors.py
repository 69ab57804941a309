"""Errors: their wire form, and that every reason raised anywhere is one of the contract."""

import ast
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from taskforge.v1 import error_reason_pb2
from taskforge_core import errors
from taskforge_core.errors import (
    DOMAIN,
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PreconditionViolation,
    ResourceExhausted,
    TaskForgeError,
    Unauthenticated,
    Unavailable,
    invalid_field,
    to_status,
)

SERVICES = Path(errors.__file__).parent.parent
KINDS = [
    InvalidArgument,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
    Aborted,
    ResourceExhausted,
    Unavailable,
    Internal,
]


def details(status: status_pb2.Status) -> list[str]:
    return [packed.TypeName() for packed in status.details]


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_has_its_code_and_exactly_one_error_info(kind: type[TaskForgeError]) -> None:
    status = to_status(kind("QUEUE_NOT_FOUND", "there is none", metadata={"queue": "emails"}))
    assert status.code == kind.code.value[0]
    assert status.message == "there is none"
    assert details(status) == ["google.rpc.ErrorInfo"]
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("QUEUE_NOT_FOUND", DOMAIN)
    assert dict(info.metadata) == {"queue": "emails"}


def test_the_classes_are_all_the_codes_of_the_tree() -> None:
    assert set(TaskForgeError.__subclasses__()) == set(KINDS)
    assert [kind.code for kind in KINDS] == [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
    ]


def test_fields_state_and_delay_travel_as_details_of_their_own() -> None:
    error = FailedPrecondition(
        "QUEUE_PAUSED",
        "the queue is paused",
        field_violations=[FieldViolation("queue", "is paused"), FieldViolation("x", "y")],
        precondition=PreconditionViolation("QUEUE_STATE", "queues/1", "paused"),
        retry_after=timedelta(seconds=1.5),
    )
    status = to_status(error)
    assert details(status) == [
        "google.rpc.ErrorInfo",
        "google.rpc.BadRequest",
        "google.rpc.PreconditionFailure",
        "google.rpc.RetryInfo",
    ]
    bad, failure, retry = (
        error_details_pb2.BadRequest(),
        error_details_pb2.PreconditionFailure(),
        error_details_pb2.RetryInfo(),
    )
    for packed, detail in zip(status.details[1:], (bad, failure, retry), strict=True):
        assert packed.Unpack(detail)
    assert [violation.field for violation in bad.field_violations] == ["queue", "x"]
    assert failure.violations[0].subject == "queues/1"
    assert retry.retry_delay.ToTimedelta() == timedelta(seconds=1.5)


def test_a_single_wrong_field_is_named_everywhere() -> None:
    error = invalid_field("priority", "must be 0 to 9")
    assert error.reason == "INVALID_REQUEST"
    assert error.message == "priority: must be 0 to 9"
    assert error.metadata == {"field": "priority"}
    assert error.field_violations == (FieldViolation("priority", "must be 0 to 9"),)


def raised_reasons() -> list[tuple[str, str]]:
    """Each literal first argument of a call of an error class in services/: file and reason."""
    names = {kind.__name__ for kind in KINDS}
    found = []
    for path in sorted(SERVICES.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "taskforge_core.errors" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            first = node.args[0]
            if name in names and isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.append((str(path.relative_to(SERVICES)), first.value))
    return found


def test_every_reason_in_the_code_is_one_of_the_contract() -> None:
    prefix = "ERROR_REASON_"
    contract = {
        name.removeprefix(prefix) for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    }
    raised = raised_reasons()
    assert len(raised) >= 5
    assert [(path, reason) for path, reason in raised if reason not in contract] == []


def test_an_error_fits_into_trailers_however_long_a_caller_made_its_parts() -> None:
    long = "💥" * 10_000
    error = InvalidArgument(
        "INVALID_REQUEST",
        long,
        metadata={"field": long},
        field_violations=[FieldViolation(long, long)] * 100,
    )
    status = to_status(error)
    # The message is sent a second time with three characters a byte, the rest with 4/3.
    assert len(status.message.encode()) * 3 + status.ByteSize() * 4 / 3 < 8000
    assert status.message.endswith("…")
    assert to_status(NotFound("QUEUE_NOT_FOUND", "short")).message == "short"
