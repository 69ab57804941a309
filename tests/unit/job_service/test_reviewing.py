"""Heartbeats are judged by what they list and leave out, in every order that can happen."""

import itertools
from collections.abc import Collection, Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_service.reviewing import HeldLease, Review, delivery_time, review

LEASE_DURATION = timedelta(seconds=30)
RIPE = timedelta(seconds=10, milliseconds=1)
YOUNG = timedelta(seconds=10)

SEQ = 7


def held(*ages: timedelta, first: int = SEQ) -> dict[int, HeldLease]:
    """Leases of these ages, numbered from `first`."""
    return {
        seq: HeldLease(f"job {seq}", seq, cancel_requested=False, age=age)
        for seq, age in enumerate(ages, first)
    }


class Session:
    """What the session's row remembers from one heartbeat to the next."""

    def __init__(self) -> None:
        self.listed: frozenset[int] = frozenset()
        self.omitted: frozenset[int] = frozenset()

    def beat(self, leases: dict[int, HeldLease], named: Collection[int]) -> Review:
        found = review(leases, named, self.listed, self.omitted, LEASE_DURATION)
        self.listed, self.omitted = found.listed, found.omitted
        return found


def fate(beats: Sequence[tuple[bool, timedelta]]) -> str:
    """What becomes of one lease by heartbeats that list it or not, at these ages."""
    session = Session()
    for listed, age in beats:
        found = session.beat(held(age), [SEQ] if listed else [])
        if found.undelivered:
            return "undelivered"
        if found.forgotten:
            return "forgotten"
    return "held"


def expected_fate(beats: Sequence[tuple[bool, timedelta]]) -> str:
    """The promise, word by word: two successive omissions, both of a ripe lease, end it."""
    for place in range(1, len(beats)):
        pair = beats[place - 1 : place + 1]
        if all(not listed and age > YOUNG for listed, age in pair):
            ever_listed = any(listed for listed, _ in beats[:place])
            return "forgotten" if ever_listed else "undelivered"
    return "held"


def test_every_interleaving_of_lists_and_omissions_ends_as_promised() -> None:
    for length in range(1, 7):
        for pattern in itertools.product([True, False], repeat=length):
            # A lease only grows older, so it is young up to some heartbeat.
            for young in range(length + 1):
                beats = [
                    (listed, YOUNG if place < young else RIPE)
                    for place, listed in enumerate(pattern)
                ]
                assert fate(beats) == expected_fate(beats), beats


def test_a_lease_that_was_never_listed_and_is_left_out_twice_did_not_arrive() -> None:
    assert fate([(False, RIPE), (False, RIPE)]) == "undelivered"


def test_a_lease_that_was_listed_and_is_left_out_twice_was_forgotten() -> None:
    assert fate([(True, RIPE), (False, RIPE), (False, RIPE)]) == "forgotten"


def test_one_omission_changes_nothing() -> None:
    assert fate([(False, RIPE)]) == "held"
    assert fate([(True, RIPE), (False, RIPE), (True, RIPE), (False, RIPE)]) == "held"


def test_omissions_count_only_in_succession() -> None:
    assert fate([(False, RIPE), (True, RIPE), (False, RIPE), (True, RIPE)]) == "held"


def test_a_young_lease_is_not_judged() -> None:
    """Its message may be on the way still."""
    assert fate([(False, YOUNG)] * 5) == "held"
    assert fate([(False, YOUNG), (False, RIPE)]) == "held"
    assert fate([(False, YOUNG), (False, RIPE), (False, RIPE)]) == "undelivered"


def test_listing_a_young_lease_counts() -> None:
    assert fate([(True, YOUNG), (False, RIPE), (False, RIPE)]) == "forgotten"


@pytest.mark.parametrize(
    ("lease_duration", "expected"),
    [
        (timedelta(seconds=1), timedelta(seconds=1) / 3),
        (timedelta(seconds=15), timedelta(seconds=5)),
        (timedelta(seconds=30), timedelta(seconds=10)),
        (timedelta(seconds=31), timedelta(seconds=10)),
        (timedelta(hours=1), timedelta(seconds=10)),
    ],
)
def test_a_lease_is_ripe_after_a_third_of_its_duration_or_ten_seconds(
    lease_duration: timedelta, expected: timedelta
) -> None:
    assert delivery_time(lease_duration) == expected
    for age, is_judged in ((expected, False), (expected + timedelta(microseconds=1), True)):
        found = review(held(age), [], frozenset(), frozenset(), lease_duration)
        assert bool(found.omitted) is is_judged


def test_each_lease_is_judged_by_itself() -> None:
    session = Session()
    leases = held(RIPE, RIPE, RIPE, YOUNG, first=1)
    session.beat(leases, [2, 3])
    found = session.beat(leases, [3])
    assert found == Review(
        listed=frozenset({2, 3}),
        omitted=frozenset({2}),
        undelivered=frozenset({1}),
        forgotten=frozenset(),
    )
    del leases[1]
    found = session.beat(leases, [3])
    assert found == Review(
        listed=frozenset({3}),
        omitted=frozenset(),
        undelivered=frozenset(),
        forgotten=frozenset({2}),
    )


def test_what_is_not_held_is_neither_remembered_nor_judged() -> None:
    """Settled, lost, another session's, or invented: the list alone makes no lease."""
    found = review(held(RIPE), [SEQ, 8, 9], frozenset({8, 10}), frozenset({9, 10}), LEASE_DURATION)
    assert found == Review(frozenset({SEQ}), frozenset(), frozenset(), frozenset())


def test_a_lease_named_twice_is_listed_once() -> None:
    found = review(held(RIPE), [SEQ, SEQ], frozenset(), frozenset(), LEASE_DURATION)
    assert found.listed == {SEQ}


@given(
    st.dictionaries(st.integers(1, 8), st.sampled_from([YOUNG, RIPE]), max_size=8),
    st.frozensets(st.integers(1, 10)),
    st.frozensets(st.integers(1, 10)),
    st.frozensets(st.integers(1, 10)),
)
def test_whatever_comes_the_verdicts_are_apart_and_the_memory_is_of_what_stays_held(
    ages: dict[int, timedelta],
    named: frozenset[int],
    listed: frozenset[int],
    omitted: frozenset[int],
) -> None:
    leases = {seq: HeldLease("job", seq, cancel_requested=False, age=a) for seq, a in ages.items()}
    found = review(leases, named, listed, omitted, LEASE_DURATION)
    ended = found.undelivered | found.forgotten
    assert not found.undelivered & found.forgotten
    assert not ended & named
    assert ended <= omitted & leases.keys()
    assert found.listed | found.omitted <= leases.keys() - ended
    assert not found.omitted & named
    assert named & leases.keys() <= found.listed
    assert found.forgotten <= listed
    assert not found.undelivered & listed
