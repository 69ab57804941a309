"""Identifiers: UUIDv7, ascending within a process."""

import os
import struct
import time
import uuid
from collections.abc import Iterator

# The driver's class is a `uuid.UUID`, and ten times as fast to make, to hash and to print.
from asyncpg.pgproto.pgproto import UUID as FAST_UUID

DEFAULT_ORGANISATION_ID = uuid.UUID("00000000-0000-7000-8000-000000000001")
"""The organisation that the first migration makes."""

DEFAULT_PROJECT_ID = uuid.UUID("00000000-0000-7000-8000-000000000002")
"""The project that the first migration makes, and that calls without a project_id use."""

_COUNTER_BITS = 12
_VERSION = 0x7 << _COUNTER_BITS
_VARIANT = 0b10 << 62
_RANDOM_MASK = (1 << 62) - 1
_DRAWN_AT_ONCE = 512
"""Random numbers; asking the system for each would cost more than all else."""


class Uuid7Generator:
    """Makes UUIDs of version 7 (RFC 9562) that strictly ascend, even when the clock steps back.

    Within one millisecond the 12 bits behind the time count up (RFC 9562, method 1); when they
    overflow, the time is advanced by a millisecond instead of waiting for it.
    """

    def __init__(self) -> None:
        self._time_and_counter = 0
        self._random = _random_numbers()

    def __call__(self) -> uuid.UUID:
        """The next identifier."""
        now = (time.time_ns() // 1_000_000) << _COUNTER_BITS
        self._time_and_counter = max(self._time_and_counter + 1, now)
        milliseconds, counter = divmod(self._time_and_counter, 1 << _COUNTER_BITS)
        high = (milliseconds << 16) | _VERSION | counter
        low = _VARIANT | next(self._random)
        return FAST_UUID(((high << 64) | low).to_bytes(16, "big"))


def _random_numbers() -> Iterator[int]:
    """Of 62 bits each."""
    while True:
        for number in struct.unpack(f"{_DRAWN_AT_ONCE}Q", os.urandom(8 * _DRAWN_AT_ONCE)):
            yield number & _RANDOM_MASK


def parse_id(text: str) -> uuid.UUID:
    """The id that a text is, in any spelling of RFC 9562; ValueError if it is none.

    Use it for what is looked up again and again.
    """
    return FAST_UUID(text)


uuid7 = Uuid7Generator()
"""The process's generator."""
