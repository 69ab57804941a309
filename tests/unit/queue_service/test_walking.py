"""Going through a queue's jobs in steps of bounded cost."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any, cast
from uuid import UUID

import pytest
from asyncpg import Record
from hypothesis import given
from hypothesis import strategies as st

from queue_service.walking import batches, light_batches, pages

START = datetime(2026, 1, 1, tzinfo=UTC)


def row(number: int, *, seconds: int = 0, payload_bytes: int = 0) -> Record:
    values: dict[str, Any] = {
        "id": UUID(int=number),
        "created_at": START + timedelta(seconds=seconds),
        "payload_bytes": payload_bytes,
    }
    return cast("Record", values)


class Table:
    """Rows in order, read as the statements read them."""

    def __init__(self, rows: Sequence[Record], page: int) -> None:
        self.rows = list(rows)
        self.page = page
        self.reads = 0

    async def read(self, created_at: datetime, row_id: UUID) -> list[Record]:
        self.reads += 1
        behind = [each for each in self.rows if place(each) > (created_at, row_id)]
        return behind[: self.page]


def place(row: Record) -> tuple[datetime, UUID]:
    return row["created_at"], row["id"]


@pytest.mark.parametrize("count", range(8))
async def test_every_row_is_met_once_in_order(count: int) -> None:
    # Many of one moment: only the id tells them apart.
    rows = [row(number, seconds=number // 3) for number in range(count)]
    table = Table(rows, page=2)
    met = [each async for page in pages(table.read, 2) for each in page]
    assert met == rows
    assert table.reads == count // 2 + 1


async def test_rows_that_vanish_meanwhile_hide_no_others() -> None:
    table = Table([row(number) for number in range(10)], page=3)
    met = []
    async for page in pages(table.read, 3):
        met += [each["id"].int for each in page]
        table.rows = [each for each in table.rows if each["id"].int not in met]
    assert met == list(range(10))


async def test_without_rows_there_is_no_page() -> None:
    assert [page async for page in pages(Table([], page=3).read, 3)] == []


def test_batches_hold_as_many_as_they_may() -> None:
    rows = [row(number) for number in range(7)]
    assert [len(batch) for batch in batches(rows, 3)] == [3, 3, 1]
    assert list(batches([], 3)) == []


@given(st.lists(st.integers(0, 30)), st.integers(1, 5), st.integers(1, 40))
def test_light_batches_are_all_rows_within_both_bounds(
    sizes: list[int], size: int, most_bytes: int
) -> None:
    rows = [row(number, payload_bytes=weight) for number, weight in enumerate(sizes)]
    made = list(light_batches(rows, size, most_bytes))
    assert [each for batch in made for each in batch] == rows
    for batch, following in zip_longest(made, made[1:]):
        weight = sum(each["payload_bytes"] for each in batch)
        assert 1 <= len(batch) <= size
        assert weight <= most_bytes or len(batch) == 1
        if following is not None:
            # One more would have been too much.
            heavier = weight + following[0]["payload_bytes"]
            assert len(batch) == size or heavier > most_bytes
