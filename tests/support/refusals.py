"""Reads refused calls: the error's code, and the details that every refusal carries."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from taskforge.v1 import error_reason_pb2


@dataclass
class Refusal:
    """A `google.rpc.Status`, taken apart."""

    code: int
    message: str
    info: error_details_pb2.ErrorInfo
    metadata: dict[str, str]
    field_violations: dict[str, str] = field(default_factory=dict)
    """Field path to description."""
    preconditions: list[error_details_pb2.PreconditionFailure.Violation] = field(
        default_factory=list
    )
    retry_info: error_details_pb2.RetryInfo | None = None


def read_refusal(status: status_pb2.Status) -> Refusal:
    """Take a status apart, which must have exactly one ErrorInfo, of ours, with a known reason."""
    infos: list[error_details_pb2.ErrorInfo] = []
    bad_request = error_details_pb2.BadRequest()
    failure = error_details_pb2.PreconditionFailure()
    retry_info: error_details_pb2.RetryInfo | None = None
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            infos.append(info)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry_info = error_details_pb2.RetryInfo()
            detail.Unpack(retry_info)
        else:
            assert detail.Unpack(bad_request) or detail.Unpack(failure), detail.type_url
    assert len(infos) == 1, f"one ErrorInfo, not {len(infos)}"
    [info] = infos
    assert info.domain == "taskforge"
    assert f"ERROR_REASON_{info.reason}" in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    assert status.message
    return Refusal(
        code=status.code,
        message=status.message,
        info=info,
        metadata=dict(info.metadata),
        field_violations={each.field: each.description for each in bad_request.field_violations},
        preconditions=list(failure.violations),
        retry_info=retry_info,
    )


async def expect_error(call: Awaitable[Any], code: grpc.StatusCode, reason: str) -> Refusal:
    """Await a call that must be refused with this code and reason; returns the details."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    assert error.code() is code, error
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None, error
    return expect_status(status, code, reason)


def expect_status(status: status_pb2.Status, code: grpc.StatusCode, reason: str) -> Refusal:
    """The details of a status, such as an item's of a batch, which must have this code and reason.

    Which reasons some test provokes is read from the calls of this function and of `expect_error`
    (see `test_error_reasons`): spell code and reason out.
    """
    refusal = read_refusal(status)
    assert refusal.info.reason == reason, refusal
    assert refusal.code == code.value[0]
    return refusal
