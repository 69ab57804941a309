"""Lease calls without a stream behind them."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

from job_service.demanding import Demand, Leased, Subscription
from taskforge.v1 import job_pb2
from taskforge_core.ids import DEFAULT_PROJECT_ID, parse_id
from taskforge_core.tokens import STREAM, token_head


def nobody_gives_back(leases: Sequence[Leased]) -> None:
    raise AssertionError(f"given back: {leases}")


def demand(
    *,
    project_id: UUID = DEFAULT_PROJECT_ID,
    queue_ids: tuple[UUID, ...] | None = None,
    job_types: tuple[str, ...] = (),
    session_id: UUID | None = None,
    max_in_flight: int = 10,
    max_in_flight_bytes: int = 0,
    max_message_bytes: int = 4 * 1024 * 1024,
    give_back: Callable[[Sequence[Leased]], None] = nobody_gives_back,
    **fields: Any,
) -> Demand:
    """A call that takes jobs; `fields` are further ones of `Demand`."""
    return Demand(
        subscription=Subscription(project_id, queue_ids, job_types),
        session_id=session_id or parse_id(str(uuid4())),
        call_id=uuid4(),
        worker_id="worker",
        is_stream=True,
        token_head=token_head(project_id, STREAM),
        max_in_flight=max_in_flight,
        max_in_flight_bytes=max_in_flight_bytes,
        max_message_bytes=max_message_bytes,
        give_back=give_back,
        **fields,
    )


def leased(lease_seq: int, payload: str = "{}") -> Leased:
    """A lease that waits to be sent."""
    job_id = UUID(int=lease_seq)
    job = job_pb2.Job(id=str(job_id), payload=payload)
    return Leased(job_id, lease_seq, job_pb2.Lease(lease_token=f"token {lease_seq}", job=job))
