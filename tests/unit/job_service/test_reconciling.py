"""The mirror of a session's leases against rows that were read a moment ago."""

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import pytest
from asyncpg import Record
from tests.support.demands import demand

from job_service.demanding import Demand
from job_service.reconciling import apply, reading
from taskforge_core.tokens import decode_token


def rows(*lease_seqs: int, cancelled: Sequence[int] = ()) -> list[Record]:
    """Rows of `list_held_leases`, as far as they are looked at."""
    found: list[dict[str, Any]] = [
        {
            "id": str(UUID(int=seq)),
            "lease_seq": seq,
            "payload_bytes": 10,
            "cancel_requested": seq in cancelled,
        }
        for seq in lease_seqs
    ]
    return cast("list[Record]", found)


def holding(*lease_seqs: int) -> Demand:
    call = demand()
    for seq in lease_seqs:
        call.hold(seq, f"token {seq}", 10)
    return call


def test_a_row_that_was_not_counted_is_counted() -> None:
    """As after a reconnect: what the session held before is known by its rows alone."""
    call = holding()
    with reading(call) as before:
        apply(before, rows(1, 2))
    assert call.held == {1: 10, 2: 10}
    token = decode_token(call.tokens[1])
    assert (token.job_id, token.lease_seq) == (str(UUID(int=1)), 1)
    assert not call.lost


def test_what_has_no_row_any_more_is_lost() -> None:
    call = holding(1, 2)
    with reading(call) as before:
        apply(before, rows(2))
    assert call.held == {2: 10}
    assert call.lost == {"token 1"}


def test_a_lease_that_was_dropped_while_the_rows_were_read_is_not_counted_again() -> None:
    """The row is the older news: the settle committed after it was read."""
    call = holding(1, 2)
    with reading(call) as before:
        call.drop(1)
        apply(before, rows(1, 2))
    assert call.held == {2: 10}
    assert not call.lost


def test_a_lease_that_was_never_counted_and_ended_while_the_rows_were_read_is_not_counted() -> None:
    """Its claim is known here only by the row, its end only by the notification."""
    call = holding()
    with reading(call) as before:
        call.drop(1)
        apply(before, rows(1))
    assert call.held == {}


def test_a_lease_that_was_claimed_while_the_rows_were_read_is_not_lost() -> None:
    """The rows may be older than the claim."""
    call = holding(1)
    with reading(call) as before:
        call.hold(2, "token 2", 10)
        apply(before, rows(1))
    assert call.held == {1: 10, 2: 10}
    assert not call.lost


def test_a_lease_that_was_claimed_and_dropped_while_the_rows_were_read_stays_dropped() -> None:
    call = holding()
    with reading(call) as before:
        call.hold(1, "token 1", 10)
        call.drop(1)
        apply(before, rows(1))
    assert call.held == {}
    assert not call.lost


def test_a_lease_that_was_settled_while_the_rows_were_read_is_not_told_as_lost() -> None:
    call = holding(1)
    with reading(call) as before:
        call.drop(1)
        apply(before, rows())
    assert not call.lost


def test_readings_under_way_at_once_each_know_what_was_dropped_since_they_began() -> None:
    call = holding(1, 2, 3)
    with reading(call) as first:
        call.drop(1)
        with reading(call) as second:
            call.drop(2)
            apply(second, rows(2, 3))
        assert call.held == {3: 10}
        apply(first, rows(1, 2, 3))
    assert call.held == {3: 10}
    assert call.dropped == []


def test_equal_readings_do_not_end_each_other() -> None:
    """Two that have seen nothing yet look alike."""
    call = holding(1)
    with reading(call) as first:
        with reading(call):
            pass
        call.drop(1)
        apply(first, rows(1))
    assert call.held == {}
    assert call.dropped == []


def test_a_requested_cancellation_is_told_once_however_often_it_is_read() -> None:
    call = holding(1)
    for _ in range(2):
        with reading(call) as before:
            apply(before, rows(1, 2, cancelled=[1, 2]))
    assert len(call.cancelled) == 2
    call.cancelled = set()
    with reading(call) as before:
        apply(before, rows(1, 2, cancelled=[1, 2]))
    assert call.cancelled == set()


def test_a_reading_that_fails_leaves_nothing_behind() -> None:
    call = holding(1)
    with pytest.raises(ConnectionResetError), reading(call):
        raise ConnectionResetError
    assert call.dropped == []
    assert call.held == {1: 10}
