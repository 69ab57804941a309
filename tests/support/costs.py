"""What code costs, in counts that no clock and no other process can change."""

import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any
from unittest.mock import patch

from asyncpg import Connection

_EXECUTE = "_execute"


@dataclass
class Cost:
    """Of all that ran inside `counted`."""

    statements: int = 0
    """Sent to the database, those that begin and end transactions left out."""
    calls: int = 0
    """Of functions, ours and others', written in Python or not."""
    peak_bytes: int = 0
    """The most memory that was in use at once, beyond what was before."""


@contextmanager
def counted() -> Iterator[Cost]:
    """Count what runs inside, in this thread."""
    cost = Cost()
    execute = getattr(Connection, _EXECUTE)

    async def counting(self: Any, *args: Any, **options: Any) -> Any:
        cost.statements += 1
        return await execute(self, *args, **options)

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event in {"call", "c_call"}:
            cost.calls += 1

    with patch.object(Connection, _EXECUTE, counting):
        sys.setprofile(profile)
        try:
            yield cost
        finally:
            sys.setprofile(None)


@contextmanager
def traced() -> Iterator[Cost]:
    """Measure the memory of what runs inside; apart from `counted`, which takes some itself."""
    cost = Cost()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    try:
        yield cost
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        cost.peak_bytes = peak - before
