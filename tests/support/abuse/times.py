"""Durations and timestamps that are none, and the last ones that are."""

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

BILLION = 1_000_000_000

_EDGES_OF_NUMBERS = ((2**63 - 1, 0), (-(2**63), 0), (0, 2**31 - 1), (0, -(2**31)))

_MALFORMED = {
    "Duration": (
        # Seconds and nanos of different signs.
        (1, -1),
        (-1, 1),
        (0, BILLION),
        (0, -BILLION),
        (1, BILLION),
        (315_576_000_001, 0),
        (-315_576_000_001, 0),
        *_EDGES_OF_NUMBERS,
    ),
    "Timestamp": (
        # Nanos count forward, also before 1970.
        (0, -1),
        (1, -1),
        (0, BILLION),
        (-62_135_596_801, 0),
        (253_402_300_800, 0),
        *_EDGES_OF_NUMBERS,
    ),
}
"""Seconds and nanos that the comments of `duration.proto` and `timestamp.proto` rule out."""

_EXTREME = {
    "Duration": (
        (0, 0),
        (0, 1),
        (0, -1),
        (-1, 0),
        (315_576_000_000, 999_999_999),
        (-315_576_000_000, -999_999_999),
    ),
    "Timestamp": ((0, 0), (-62_135_596_800, 0), (253_402_300_799, 999_999_999)),
}


def malformed(of: Descriptor) -> list[Message]:
    """Values of the type that stand for no time at all."""
    return [_time(of, *parts) for parts in _MALFORMED[of.name]]


def extreme(of: Descriptor) -> list[Message]:
    """Values of the type that are as far away as any can be, or as little."""
    return [_time(of, *parts) for parts in _EXTREME[of.name]]


def _time(of: Descriptor, seconds: int, nanos: int) -> Message:
    return GetMessageClass(of)(seconds=seconds, nanos=nanos)
