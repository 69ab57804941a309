"""What a call may still take: counted from its leases, never twice, never too much."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.support.demands import demand, leased

from job_service.demanding import PAUSE_SECONDS, Demand, Leased


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    found = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: found.now)
    return found


class Clock:
    now = 1000.0


def hold(call: Demand, *lease_seqs: int, payload_bytes: int = 10) -> None:
    for lease_seq in lease_seqs:
        call.hold(lease_seq, f"token {lease_seq}", payload_bytes)


def test_credit_is_what_the_session_does_not_hold() -> None:
    call = demand(max_in_flight=3)
    assert call.credit == 3
    hold(call, 1, 2)
    assert call.credit == 1
    call.drop(1)
    assert call.credit == 2


def test_holding_a_lease_twice_counts_it_once() -> None:
    call = demand(max_in_flight=3, max_in_flight_bytes=100)
    hold(call, 1, payload_bytes=10)
    hold(call, 1, payload_bytes=70)
    assert (call.credit, call.byte_credit) == (2, 90)
    assert call.held == {1: 10}


def test_dropping_a_lease_twice_frees_it_once() -> None:
    call = demand(max_in_flight=3, max_in_flight_bytes=100)
    hold(call, 1, 2)
    assert call.drop(1) == "token 1"
    assert call.drop(1) is None
    assert (call.credit, call.byte_credit) == (2, 90)


def test_dropping_what_was_never_held_frees_nothing() -> None:
    call = demand(max_in_flight=3, max_in_flight_bytes=100)
    assert call.drop(9) is None
    assert (call.credit, call.byte_credit) == (3, 100)


def test_credit_is_never_negative() -> None:
    """A session may come back with more than it may hold by now."""
    call = demand(max_in_flight=1, max_in_flight_bytes=5)
    hold(call, 1, 2, 3)
    assert (call.credit, call.byte_credit) == (0, 0)
    call.drop(1)
    call.drop(2)
    assert call.credit == 0
    call.drop(3)
    assert (call.credit, call.byte_credit) == (1, 5)


def test_without_a_limit_there_is_no_byte_credit_to_run_out() -> None:
    call = demand(max_in_flight_bytes=0)
    hold(call, 1, payload_bytes=10**9)
    assert call.byte_credit is None


@pytest.mark.parametrize("end", ["replace", "drain", "close"])
def test_a_call_that_has_ended_takes_nothing(end: str) -> None:
    call = demand(max_in_flight=3)
    if end == "close":
        call.is_closed = True
    else:
        getattr(call, end)()
        assert call.changed.is_set()
    assert call.is_ended
    assert not call.may_take
    assert call.credit == 0


def test_a_call_that_has_all_it_wants_is_not_barred() -> None:
    call = demand(max_in_flight=1)
    hold(call, 1)
    assert call.credit == 0
    assert call.may_take


def test_a_paused_call_takes_nothing_until_its_session_speaks(clock: Clock) -> None:
    call = demand(max_in_flight=3)
    call.pause()
    assert not call.may_take
    assert call.credit == 0
    clock.now += PAUSE_SECONDS * 0.99
    assert call.credit == 0
    call.resume()
    assert call.credit == 3


def test_a_pause_ends_by_itself(clock: Clock) -> None:
    """A heartbeat through another replica is not seen here."""
    call = demand(max_in_flight=3)
    call.pause()
    clock.now += PAUSE_SECONDS
    assert call.credit == 3


def test_leases_are_put_where_the_call_finds_them() -> None:
    call = demand()
    leases = [leased(1), leased(2)]
    call.send(leases)
    assert call.outbox == leases
    assert call.changed.is_set()


def test_leases_for_a_call_that_has_ended_are_given_back() -> None:
    given_back: list[Leased] = []
    call = demand(give_back=given_back.extend)
    call.is_closed = True
    call.send([leased(1)])
    assert given_back == [leased(1)]
    assert call.outbox == []


def test_a_cancellation_is_told_once() -> None:
    call = demand()
    hold(call, 1)
    call.report_cancelled(1)
    assert call.cancelled == {"token 1"}
    assert call.changed.is_set()
    call.cancelled = set()
    call.changed.clear()
    call.report_cancelled(1)
    assert call.cancelled == set()
    assert not call.changed.is_set()


def test_a_cancellation_of_what_is_not_held_is_not_told() -> None:
    call = demand()
    call.report_cancelled(1)
    hold(call, 2)
    call.drop(2)
    call.report_cancelled(2)
    assert call.cancelled == set()


def test_a_lost_lease_is_told_once_and_counted_no_longer() -> None:
    call = demand(max_in_flight=1)
    hold(call, 1)
    call.report_lost(1)
    assert call.lost == {"token 1"}
    assert call.credit == 1
    call.lost = set()
    call.changed.clear()
    call.report_lost(1)
    assert call.lost == set()
    assert not call.changed.is_set()


def test_a_lease_that_was_settled_is_not_told_as_lost() -> None:
    call = demand()
    hold(call, 1)
    call.drop(1)
    call.report_lost(1)
    assert call.lost == set()


def test_whoever_reads_the_rows_learns_what_was_dropped_meanwhile() -> None:
    """Also of leases that were not counted yet."""
    call = demand()
    hold(call, 1)
    first: set[int] = set()
    second: set[int] = set()
    call.dropped.append(first)
    call.drop(1)
    call.dropped.append(second)
    call.drop(2)
    assert (first, second) == ({1, 2}, {2})


SEQS = st.integers(1, 6)


class CountingMachine(RuleBasedStateMachine):
    """Whatever comes in whatever order, the mirror is a plain set of leases."""

    def __init__(self) -> None:
        super().__init__()
        self.call = demand(max_in_flight=4, max_in_flight_bytes=100)
        self.model: dict[int, int] = {}

    @rule(seq=SEQS, payload_bytes=st.integers(0, 60))
    def hold(self, seq: int, payload_bytes: int) -> None:
        self.call.hold(seq, f"token {seq}", payload_bytes)
        self.model.setdefault(seq, payload_bytes)

    @rule(seq=SEQS)
    def drop(self, seq: int) -> None:
        expected = f"token {seq}" if seq in self.model else None
        assert self.call.drop(seq) == expected
        self.model.pop(seq, None)

    @rule(seq=SEQS)
    def report_lost(self, seq: int) -> None:
        self.call.report_lost(seq)
        self.model.pop(seq, None)

    @rule(seq=SEQS)
    def report_cancelled(self, seq: int) -> None:
        self.call.report_cancelled(seq)

    @invariant()
    def counts_agree(self) -> None:
        assert self.call.held == self.model
        assert self.call.held_bytes == sum(self.model.values())
        assert self.call.tokens.keys() == self.model.keys()
        assert self.call.told_cancelled <= self.model.keys()
        assert self.call.credit == max(0, 4 - len(self.model))
        assert self.call.byte_credit == max(0, 100 - sum(self.model.values()))


TestCounting: Any = CountingMachine.TestCase


@given(st.lists(st.tuples(SEQS, st.integers(0, 60)), max_size=30))
def test_dropping_everything_leaves_nothing(leases: list[tuple[int, int]]) -> None:
    call = demand(max_in_flight=4, max_in_flight_bytes=100)
    for seq, payload_bytes in leases:
        hold(call, seq, payload_bytes=payload_bytes)
    for seq, _ in leases:
        call.drop(seq)
    assert (call.held, call.tokens, call.held_bytes, call.credit) == ({}, {}, 0, 4)
