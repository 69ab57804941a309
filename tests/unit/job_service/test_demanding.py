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


# -- What waits to be sent -----------------------------------------------------------------------

MIB = 1024 * 1024


def waiting(call: Demand, *lease_seqs: int, size: int = 10) -> list[Leased]:
    """Leases in the call's outbox."""
    leases = [leased(lease_seq, "x" * size) for lease_seq in lease_seqs]
    hold(call, *lease_seqs)
    call.send(leases)
    return leases


def test_a_call_that_has_too_much_to_send_takes_no_more_until_it_has_sent_some() -> None:
    call = demand(max_in_flight=100)
    waiting(call, 1, 2, size=MIB - 100)
    assert call.credit == 98
    assert call.unsent_room < 2 * MIB + 1000
    waiting(call, 3)
    assert not call.is_congested
    waiting(call, 4, size=1000)
    assert call.is_congested
    assert (call.credit, call.takes_any_job) == (0, False)
    # What is being written has not left yet.
    leases = call.take(2)
    assert [each.lease_seq for each in leases] == [1, 2]
    assert call.credit == 0
    call.sent(leases)
    assert call.credit == 96
    assert call.unsent.keys() == {3, 4}


def test_whoever_has_credit_has_room_for_the_largest_message_it_can_receive() -> None:
    narrow, wide = demand(max_message_bytes=65_536), demand(max_message_bytes=16 * MIB)
    assert narrow.unsent_room == 2 * 65_536
    assert wide.unsent_room == 4 * MIB
    waiting(narrow, 1, size=65_000)
    assert narrow.credit > 0
    assert narrow.unsent_room >= 65_536
    waiting(narrow, 2, size=1000)
    assert narrow.credit == 0


@pytest.mark.parametrize("end", ["drop", "report_lost"])
def test_a_lease_that_ends_while_it_waits_is_not_sent_and_not_told(end: str) -> None:
    call = demand(max_in_flight=2)
    first, second = waiting(call, 1, 2)
    getattr(call, end)(1)
    assert call.outbox == [second]
    assert call.unsent == {2: second.size}
    assert call.unsent_bytes == second.size
    assert call.credit == 1
    assert call.lost == set()
    assert first.size > 0


def test_a_lease_that_is_lost_while_it_is_being_written_is_told() -> None:
    """The worker is to have it in a moment."""
    call = demand(max_in_flight=1)
    waiting(call, 1)
    writing = call.take(1)
    call.report_lost(1)
    assert call.lost == {"token 1"}
    assert call.unsent.keys() == {1}
    call.sent(writing)
    assert (call.unsent, call.unsent_bytes, call.arrivals.moments()) == ({}, 0, {})


def test_a_lease_counts_as_sent_only_when_it_was(clock: Clock) -> None:
    call = demand()
    first, second = waiting(call, 1, 2)
    call.take(1)
    clock.now += 60
    assert call.arrivals.moments() == {}
    call.sent([first])
    call.sent(call.take(1))
    arrivals = call.arrivals.moments()
    assert clock.now < arrivals[1] < arrivals[2] < clock.now + 1
    # Whoever has settled the second has got the first.
    clock.now += 1
    call.drop(2)
    assert call.arrivals.moments() == {1: clock.now}
    assert second.size > 0


def test_a_lease_that_is_lost_shows_nothing_of_what_was_sent_before_it(clock: Clock) -> None:
    call = demand()
    waiting(call, 1, 2)
    call.sent(call.take(2))
    before = call.arrivals.moments()
    clock.now += 1
    call.report_lost(2)
    assert call.arrivals.moments() == {1: before[1]}


def test_a_cancellation_is_not_told_before_the_lease_it_is_about() -> None:
    call = demand()
    waiting(call, 1, 2)
    call.sent(call.take(1))
    for lease_seq in (1, 2):
        call.report_cancelled(lease_seq)
    assert call.take_cancelled() == {"token 1"}
    assert call.take_cancelled() == set()
    call.sent(call.take(1))
    assert call.take_cancelled() == {"token 2"}


# -- The session's terms -------------------------------------------------------------------------


def test_a_call_goes_by_its_sessions_row() -> None:
    call = demand(max_in_flight=3)
    assert call.set_terms(5, draining=False, seen=call.terms_changes)
    assert call.credit == 5
    assert call.set_terms(5, draining=True, seen=call.terms_changes)
    assert call.credit == 0


def test_an_older_reading_of_the_row_does_not_undo_a_newer_one() -> None:
    call = demand(max_in_flight=3)
    older = newer = call.terms_changes
    assert call.set_terms(1, draining=True, seen=newer)
    assert not call.set_terms(3, draining=False, seen=older)
    assert (call.max_in_flight, call.takes_jobs) == (1, False)
    # Nor can one that says the same be wrong.
    assert call.set_terms(1, draining=True, seen=older)
    assert call.set_terms(3, draining=False, seen=call.terms_changes)
    assert call.credit == 3


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


SEQS = st.one_of(st.integers(1, 6), st.integers(101, 106))


class CountingMachine(RuleBasedStateMachine):
    """Whatever comes in whatever order, the mirror is a plain set of leases."""

    def __init__(self) -> None:
        super().__init__()
        self.call = demand(max_in_flight=4, max_in_flight_bytes=100)
        self.model: dict[int, int] = {}
        self.last_seq = 100
        self.writing: list[Leased] = []

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

    @rule(payload_bytes=st.integers(0, 60))
    def send(self, payload_bytes: int) -> None:
        """A claim brings a lease: it has a number that none had before."""
        self.last_seq += 1
        self.hold(self.last_seq, payload_bytes)
        self.call.send([leased(self.last_seq)])

    @rule(count=st.integers(0, 3))
    def take(self, count: int) -> None:
        self.writing += self.call.take(count)

    @rule()
    def sent(self) -> None:
        self.call.sent(self.writing)
        self.writing = []

    @invariant()
    def counts_agree(self) -> None:
        assert self.call.held == self.model
        assert self.call.held_bytes == sum(self.model.values())
        assert self.call.tokens.keys() == self.model.keys()
        assert self.call.told_cancelled <= self.model.keys()
        assert self.call.credit == max(0, 4 - len(self.model))
        assert self.call.byte_credit == max(0, 100 - sum(self.model.values()))

    @invariant()
    def unsent_is_what_waits_or_is_being_written(self) -> None:
        waiting = self.call.outbox
        assert {each.lease_seq for each in waiting} <= self.model.keys()
        assert self.call.unsent == {each.lease_seq: each.size for each in [*waiting, *self.writing]}
        assert self.call.unsent_bytes == sum(self.call.unsent.values())
        assert self.call.arrivals.moments().keys() <= self.model.keys() - self.call.unsent.keys()


TestCounting: Any = CountingMachine.TestCase


@given(st.lists(st.tuples(SEQS, st.integers(0, 60)), max_size=30))
def test_dropping_everything_leaves_nothing(leases: list[tuple[int, int]]) -> None:
    call = demand(max_in_flight=4, max_in_flight_bytes=100)
    for seq, payload_bytes in leases:
        hold(call, seq, payload_bytes=payload_bytes)
    for seq, _ in leases:
        call.drop(seq)
    assert (call.held, call.tokens, call.held_bytes, call.credit) == ({}, {}, 0, 4)
