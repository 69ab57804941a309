"""Calls of QueueService that many tests make."""

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from tests.support.stubs import QueueStub

from taskforge.v1 import queue_pb2
from taskforge.v1 import queue_service_pb2 as pb

SETTINGS = queue_pb2.QueueSettings(
    max_retries=0,
    timeout=Duration(seconds=90),
    retry_delay=Duration(seconds=1, nanos=500_000_000),
    max_retry_delay=Duration(seconds=604_800),
    backoff_multiplier=1.5,
    retry_jitter=0.0,
    max_payload_bytes=1_048_576,
    max_concurrent_jobs=1,
    rate_limit_per_minute=1_000_000,
    delay_by_priority=queue_pb2.PriorityDelays(
        low=Duration(seconds=3600), high=Duration(), urgent=Duration(nanos=1000)
    ),
)
"""Every setting but the dead-letter queue, which must be there."""


async def make(stub: QueueStub, name: str = "emails", **settings: Any) -> queue_pb2.Queue:
    """Make a queue; `settings` are the fields of `QueueSettings`."""
    request = pb.CreateQueueRequest(name=name, settings=queue_pb2.QueueSettings(**settings))
    return (await stub.CreateQueue(request)).queue


async def get(stub: QueueStub, queue: str) -> queue_pb2.Queue:
    return (await stub.GetQueue(pb.GetQueueRequest(queue=queue))).queue


def update(queue: str, *paths: str, **fields: object) -> pb.UpdateQueueRequest:
    return pb.UpdateQueueRequest(
        queue=queue,
        update_mask=FieldMask(paths=paths),
        **fields,  # type: ignore[arg-type]
    )
