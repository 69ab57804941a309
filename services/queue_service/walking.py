"""Goes through all jobs of a queue in steps of bounded cost, the oldest first."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from asyncpg import Record

PAGE = 5000
"""Jobs that are looked at by one statement: some milliseconds."""

BATCH = 1000
"""Jobs that are changed by one transaction: others may have to wait for it, or pass them over."""

BATCH_BYTES = 16 * 1024 * 1024
"""Payloads that are moved by one transaction; a batch of one job may have more."""

_FIRST = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))


async def pages(
    read: Callable[[datetime, UUID], Awaitable[list[Record]]], page: int
) -> AsyncIterator[list[Record]]:
    """All rows, page by page.

    What comes to stand behind the present page meanwhile is met, what comes before it is not.

    Args:
        read: Reads a page behind a place: creation and id of the last row before it.
        page: How many rows it reads; fewer mean that no more follow.
    """
    place = _FIRST
    while rows := await read(*place):
        yield rows
        if len(rows) < page:
            return
        place = (rows[-1]["created_at"], rows[-1]["id"])


def batches(rows: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    """The rows in their order, in batches of at most `size`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def light_batches(rows: Sequence[Record], size: int, most_bytes: int) -> Iterator[Sequence[Record]]:
    """The rows in their order, in batches of at most `size` and `most_bytes` of `payload_bytes`.

    A row that alone has more is a batch of its own.
    """
    batch: list[Record] = []
    weight = 0
    for row in rows:
        if batch and (len(batch) >= size or weight + row["payload_bytes"] > most_bytes):
            yield batch
            batch, weight = [], 0
        batch.append(row)
        weight += row["payload_bytes"]
    if batch:
        yield batch
