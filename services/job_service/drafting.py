"""Turns a producer's description of a job into the row to insert, after checking it."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
from google.protobuf.message import Message

from taskforge.v1 import job_pb2
from taskforge_core.ids import uuid7
from taskforge_core.json_documents import check_json

EMPTY_PAYLOAD = "{}"
"""The payload of a job that was created without one."""


@dataclass(slots=True)
class Draft:
    """A job that is about to be created. Hot, and so not frozen: that takes four times as long."""

    spec: job_pb2.JobSpec
    id: UUID
    queue_id: UUID | None
    job_type: str
    payload: str
    payload_bytes: int
    priority: int
    max_attempts: int | None
    scheduled_for: datetime | None
    timeout: timedelta | None
    labels: str | None
    traceparent: str | None
    tracestate: str | None
    request_id: str | None
    content_hash: bytes | None


def draft(spec: job_pb2.JobSpec, queue_id: UUID | None, path: str) -> Draft:
    """Check a description and give the job its id.

    Args:
        spec: The description; the contract's rules hold for it already.
        queue_id: The queue it names; None if there is none, which the insert refuses unless the
            creation is a repetition.
        path: Where the description stands in the request, for errors: `job` or `jobs[3]`.

    Raises:
        InvalidArgument: The payload is no JSON document (`INVALID_JSON`).
    """
    payload = spec.payload or EMPTY_PAYLOAD
    check_json(payload, f"{path}.payload")
    return Draft(
        spec=spec,
        id=uuid7(),
        queue_id=queue_id,
        job_type=spec.job_type,
        payload=payload,
        payload_bytes=len(payload) if payload.isascii() else len(payload.encode()),
        priority=spec.priority,
        max_attempts=spec.max_attempts if spec.HasField("max_attempts") else None,
        scheduled_for=(
            spec.scheduled_for.ToDatetime(tzinfo=UTC) if spec.HasField("scheduled_for") else None
        ),
        timeout=spec.timeout.ToTimedelta() if spec.HasField("timeout") else None,
        labels=orjson.dumps(dict(spec.labels)).decode() if spec.labels else None,
        traceparent=spec.traceparent or None,
        tracestate=spec.tracestate or None,
        request_id=spec.request_id or None,
        content_hash=content_hash(spec) if spec.request_id else None,
    )


def content_hash(message: Message) -> bytes:
    """What a repeated creation is compared by: the request as it was sent."""
    return hashlib.sha256(message.SerializeToString(deterministic=True)).digest()
