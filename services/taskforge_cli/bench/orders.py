"""What a load process can be told to do, and what it answers; both sides know these."""

from dataclasses import asdict, dataclass, field
from typing import Any

JOB_TYPE = "noop"
"""The type of every job of the bench."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Produce:
    """Create jobs, one call after the other by each caller."""

    addresses: list[str]
    queues: list[str]
    jobs: int
    callers: int = 1
    batch: int = 0
    """Jobs a call of BatchCreateJobs; 0: CreateJob."""
    payload_bytes: int
    by_stubs: bool = False
    """By the bare stubs, without request ids for single jobs, instead of the SDK's client."""
    keep_starts: bool = False
    """Tell when the call of each job began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Create jobs at a rate, one CreateJob each."""

    addresses: list[str]
    queues: list[str]
    jobs: int
    per_second: float
    payload_bytes: int
    evenly: bool
    """True: at even distances, none while another is under way. False: at random, come what may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Run workers until told to stop."""

    addresses: list[str]
    queues: list[str]
    target: int
    """How many handlers this process is expected to run; it says at once when it has."""
    workers: int = 1
    """Workers of the SDK, each with a lease stream of its own, in turns over the addresses."""
    concurrency: int
    keep_starts: bool = False
    """Tell when the handler of each job began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linger:
    """Keep lease streams open, on which nothing comes, until told to stop."""

    addresses: list[str]
    queues: list[str]
    streams: int
    beats: bool
    """Whether their sessions send heartbeats, as the contract wants of workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Keep a transaction with a snapshot open until told to stop."""

    dsn: str


Order = Produce | Pace | Work | Linger | Pin

_ORDERS: dict[str, type[Order]] = {
    "produce": Produce,
    "pace": Pace,
    "work": Work,
    "linger": Linger,
    "pin": Pin,
}
_NAMES = {kind: name for name, kind in _ORDERS.items()}


def message_of(order: Order) -> dict[str, Any]:
    """The order as a message."""
    return {"order": _NAMES[type(order)], **asdict(order)}


def order_of(message: dict[str, Any]) -> Order:
    """The order that a message holds."""
    return _ORDERS[message["order"]](
        **{name: value for name, value in message.items() if name != "order"}
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an order. Times are CLOCK_MONOTONIC, which all processes of a machine share."""

    jobs: int = 0
    """Jobs created, or handlers run."""
    distinct: int = 0
    """Different jobs among them."""
    first_ns: int = 0
    """When the first call or handler began."""
    last_ns: int = 0
    """When the last call ended, or the last handler began."""
    call_ms: list[float] = field(default_factory=list)
    """How long each call took."""
    starts: dict[str, int] = field(default_factory=dict)
    """When the call or handler of each job began, by the job's id, where asked for."""
