"""Errors, decoded at one border."""

from datetime import timedelta

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

from taskforge.v1 import error_reason_pb2
from taskforge_sdk import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    LeaseLost,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
    ServerError,
    StreamReplaced,
    TaskForgeError,
    Unauthenticated,
    Unavailable,
)
from taskforge_sdk.errors import from_rpc_error, from_status, invalid


def packed(message: Message) -> any_pb2.Any:
    holder = any_pb2.Any()
    holder.Pack(message)
    return holder


def rpc_error(code: grpc.StatusCode, message: str, details: bytes | None = None) -> AioRpcError:
    trailing = Metadata(*(() if details is None else (("grpc-status-details-bin", details),)))
    return AioRpcError(code, Metadata(), trailing, message, None)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (code_pb2.INVALID_ARGUMENT, "INVALID_REQUEST", InvalidRequest),
        (code_pb2.UNAUTHENTICATED, "", Unauthenticated),
        (code_pb2.PERMISSION_DENIED, "", PermissionDenied),
        (code_pb2.NOT_FOUND, "JOB_NOT_FOUND", NotFound),
        (code_pb2.ALREADY_EXISTS, "QUEUE_NAME_TAKEN", AlreadyExists),
        (code_pb2.FAILED_PRECONDITION, "QUEUE_PAUSED", PreconditionFailed),
        (code_pb2.ABORTED, "LEASE_LOST", LeaseLost),
        (code_pb2.ABORTED, "STREAM_REPLACED", StreamReplaced),
        (code_pb2.ABORTED, "", Aborted),
        (code_pb2.RESOURCE_EXHAUSTED, "", ResourceExhausted),
        (code_pb2.UNAVAILABLE, "SERVER_DRAINING", Unavailable),
        (code_pb2.CANCELLED, "", Unavailable),
        (code_pb2.DEADLINE_EXCEEDED, "", DeadlineExceeded),
        (code_pb2.INTERNAL, "INTERNAL", ServerError),
        (code_pb2.UNIMPLEMENTED, "", ServerError),
        (code_pb2.UNKNOWN, "", ServerError),
        (99, "", ServerError),
    ],
)
def test_each_refusal_is_what_a_user_would_catch(
    code: int, reason: str, kind: type[TaskForgeError]
) -> None:
    status = status_pb2.Status(code=code, message="no")
    if reason:
        assert error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}")
        status.details.append(
            packed(error_details_pb2.ErrorInfo(domain="taskforge", reason=reason))
        )
    error = from_status(status)

    assert type(error) is kind
    assert error.reason == reason


def test_everything_that_the_server_said_is_there() -> None:
    status = status_pb2.Status(
        code=code_pb2.INVALID_ARGUMENT,
        message="the request is wrong",
        details=[
            packed(
                error_details_pb2.ErrorInfo(
                    domain="taskforge", reason="INVALID_REQUEST", metadata={"field": "priority"}
                )
            ),
            packed(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(
                            field="job.priority", description="must be at most 9"
                        )
                    ]
                )
            ),
            packed(
                error_details_pb2.PreconditionFailure(
                    violations=[
                        error_details_pb2.PreconditionFailure.Violation(description="it is paused")
                    ]
                )
            ),
            packed(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2))),
        ],
    )
    error = from_rpc_error(
        rpc_error(
            grpc.StatusCode.INVALID_ARGUMENT, "the request is wrong", status.SerializeToString()
        )
    )

    assert type(error) is InvalidRequest
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_REQUEST"
    assert error.metadata == {"field": "priority"}
    assert error.violations == (FieldViolation("job.priority", "must be at most 9"),)
    assert error.preconditions == ("it is paused",)
    assert error.retry_after == timedelta(seconds=2)
    assert str(error) == "the request is wrong (job.priority: must be at most 9) [INVALID_REQUEST]"


@pytest.mark.parametrize(
    "details", [None, b"\xff\xff garbage", status_pb2.Status(code=5).SerializeToString()]
)
def test_an_error_without_proper_details_is_still_an_error_of_ours(details: bytes | None) -> None:
    error = from_rpc_error(rpc_error(grpc.StatusCode.UNAVAILABLE, "connection refused", details))

    assert type(error) is Unavailable
    assert error.reason == ""
    assert str(error) == "connection refused [UNAVAILABLE]"


def test_an_error_is_one_line_and_never_empty() -> None:
    assert str(ServerError("two\nlines", code=grpc.StatusCode.INTERNAL)) == "two lines [INTERNAL]"
    assert str(ServerError("", code=grpc.StatusCode.INTERNAL)) == "INTERNAL [INTERNAL]"


def test_a_wrong_argument_is_a_value_error_too() -> None:
    error = invalid("payload", "is too odd")
    assert isinstance(error, ValueError)
    assert str(error) == "payload: is too odd [INVALID_REQUEST]"
