"""Identifiers: UUIDv7, ascending within a process."""

import os
import time
import uuid

DEFAULT_ORGANISATION_ID = uuid.UUID("00000000-0000-7000-8000-000000000001")
"""The organisation that the first migration makes."""

DEFAULT_PROJECT_ID = uuid.UUID("00000000-0000-7000-8000-000000000002")
"""The project that the first migration makes, and that calls without a project_id use."""

_RANDOM_BITS = 62
_COUNTER_BITS = 12


class Uuid7Generator:
    """Makes UUIDs of version 7 (RFC 9562) that strictly ascend, even when the clock steps back.

    Within one millisecond the 12 bits behind the time count up (RFC 9562, method 1); when they
    overflow, the time is advanced by a millisecond instead of waiting for it.
    """

    def __init__(self) -> None:
        self._time_and_counter = 0

    def __call__(self) -> uuid.UUID:
        """The next identifier."""
        now = (time.time_ns() // 1_000_000) << _COUNTER_BITS
        self._time_and_counter = max(self._time_and_counter + 1, now)
        milliseconds = self._time_and_counter >> _COUNTER_BITS
        counter = self._time_and_counter & ((1 << _COUNTER_BITS) - 1)
        random = int.from_bytes(os.urandom(8), "big") >> (64 - _RANDOM_BITS)
        return uuid.UUID(
            int=(milliseconds << 80) | (0x7 << 76) | (counter << 64) | (0b10 << 62) | random
        )


uuid7 = Uuid7Generator()
"""The process's generator."""
