"""Dealing candidates to calls: their order is never bent, and nobody gets more than wanted."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_service.dealing import certain, deal

LARGE = 4 * 1024 * 1024

OVERHEAD = 500
"""What a lease's message takes beside its payload here."""


@dataclass(frozen=True)
class Candidate:
    """A job, called by its place."""

    number: int
    payload_bytes: int = 2
    source: str = "q"

    @property
    def id(self) -> UUID:
        return UUID(int=self.number)

    @property
    def message_bytes(self) -> int:
        return self.payload_bytes + OVERHEAD

    def __repr__(self) -> str:
        return f"{self.number}({self.payload_bytes})"


@dataclass(frozen=True)
class Taker:
    """A call, called by its name."""

    name: str
    credit: int
    byte_credit: int | None = None
    held: dict[int, int] = field(default_factory=dict)
    max_message_bytes: int = LARGE
    unsent_room: int = 2 * LARGE


def jobs(*sizes: int) -> list[Candidate]:
    return [Candidate(number, size) for number, size in enumerate(sizes)]


def hands(dealt: Sequence[tuple[Candidate, Taker]]) -> list[tuple[int, str]]:
    return [(candidate.number, taker.name) for candidate, taker in dealt]


def dealt_to(
    candidates: Sequence[Candidate], takers: Sequence[Taker], in_a_row: int = 1
) -> list[tuple[Candidate, Taker]]:
    dealt, _ = deal(candidates, takers, in_a_row)
    return dealt


def numbers(candidates: Sequence[Candidate]) -> list[int]:
    return [candidate.number for candidate in candidates]


# -- certain ------------------------------------------------------------------------------------


def of_sources(sources: str) -> list[Candidate]:
    return [Candidate(number, source=source) for number, source in enumerate(sources)]


@pytest.mark.parametrize(
    ("sources", "per_source", "sure", "more_may_follow"),
    [
        ("", 2, 0, False),
        ("a", 2, 1, False),
        ("abc", 2, 3, False),
        ("aab", 2, 2, True),
        ("aba", 2, 3, True),
        ("abab", 2, 3, True),
        ("abcabc", 2, 4, True),
        ("a", 1, 1, True),
        ("ab", 1, 1, True),
        ("bbbbab", 5, 6, True),
        ("bbbbabc", 5, 6, True),
        ("bbbba", 5, 5, False),
    ],
)
def test_what_ranks_behind_the_last_of_a_full_source_is_not_certain(
    sources: str, per_source: int, sure: int, more_may_follow: bool
) -> None:
    """Also where nothing else was picked behind it: the source itself may have more."""
    candidates = of_sources(sources)
    assert certain(candidates, per_source) == (candidates[:sure], more_may_follow)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=30),
    st.integers(1, 6),
    st.integers(1, 30),
)
def test_what_is_certain_is_what_a_full_sort_would_begin_with(
    ready: list[tuple[int, int]], per_source: int, limit: int
) -> None:
    """Against the pick as it is: the best `per_source` of each source, merged, then cut."""
    ranked = sorted((rank, source, number) for number, (source, rank) in enumerate(ready))
    by_source: dict[int, list[tuple[int, int, int]]] = {}
    for each in ranked:
        by_source.setdefault(each[1], []).append(each)
    picked = sorted(itertools.chain(*(each[:per_source] for each in by_source.values())))[:limit]
    candidates = [Candidate(number, source=str(source)) for _, source, number in picked]
    sure, more_may_follow = certain(candidates, per_source)
    assert numbers(sure) == [number for _, _, number in ranked[: len(sure)]]
    if not more_may_follow:
        assert len(sure) == min(len(ranked), limit)
    # It makes progress whenever anything is there.
    assert bool(sure) == bool(ready)


# -- deal: the single rules ---------------------------------------------------------------------


def test_candidates_go_round_the_takers_in_turn() -> None:
    dealt = dealt_to(jobs(*[2] * 7), [Taker("a", 9), Taker("b", 9), Taker("c", 9)])
    assert hands(dealt) == list(enumerate("abcabca"))


def test_a_taker_gets_no_more_than_its_credit_and_the_turn_goes_on_behind_it() -> None:
    dealt = dealt_to(jobs(*[2] * 9), [Taker("a", 1), Taker("b", 3), Taker("c", 2)])
    assert hands(dealt) == list(enumerate("abcbcb"))


def test_each_taker_gets_so_many_in_a_row_as_it_takes() -> None:
    takers = [Taker("a", 5), Taker("b", 1), Taker("c", 5)]
    shares = [name for _, name in hands(dealt_to(jobs(*[2] * 9), takers, 2))]
    assert "".join(shares) == "aabccaacc"


@pytest.mark.parametrize("credit", [0, -1])
def test_a_taker_without_credit_gets_nothing(credit: int) -> None:
    dealt = dealt_to(jobs(2, 2), [Taker("a", credit), Taker("b", 5)])
    assert hands(dealt) == [(0, "b"), (1, "b")]
    assert hands(dealt_to(jobs(2, 2), [Taker("a", credit)])) == []


def test_without_takers_nothing_is_dealt() -> None:
    takers: list[Taker] = []
    assert dealt_to(jobs(2, LARGE), takers) == []


def test_bytes_are_counted_down() -> None:
    dealt = dealt_to(jobs(40, 40, 20, 1), [Taker("a", 9, byte_credit=100, held={1: 2})])
    assert hands(dealt) == [(0, "a"), (1, "a"), (2, "a")]


def test_a_smaller_job_does_not_overtake_one_for_which_nobody_has_bytes() -> None:
    dealt = dealt_to(jobs(10, 91, 1), [Taker("a", 9, byte_credit=100, held={1: 2})])
    assert hands(dealt) == [(0, "a")]


def test_a_job_goes_to_the_next_taker_that_has_bytes_for_it() -> None:
    takers = [Taker("a", 9, byte_credit=5, held={1: 2}), Taker("b", 9)]
    assert hands(dealt_to(jobs(6, 6, 5, 2), takers)) == [(0, "b"), (1, "b"), (2, "a"), (3, "b")]


def test_a_session_that_holds_nothing_may_take_one_larger_job() -> None:
    dealt = dealt_to(jobs(500, 1), [Taker("a", 9, byte_credit=100)])
    assert hands(dealt) == [(0, "a")]


def test_a_session_that_holds_something_may_not() -> None:
    dealt = dealt_to(jobs(500), [Taker("a", 9, byte_credit=100, held={1: 2})])
    assert hands(dealt) == []


def test_a_session_is_empty_no_longer_once_it_was_dealt_a_job() -> None:
    dealt = dealt_to(jobs(2, 500), [Taker("a", 9, byte_credit=100)])
    assert hands(dealt) == [(0, "a")]


def test_a_job_that_fits_nobodys_messages_is_passed_over() -> None:
    takers = [Taker("a", 9, max_message_bytes=65_536), Taker("b", 9, max_message_bytes=80_000)]
    too_large = 80_000 - OVERHEAD + 1
    dealt = dealt_to(jobs(2, too_large, 2, too_large - 1), takers)
    assert hands(dealt) == [(0, "a"), (2, "b"), (3, "b")]


def test_a_large_job_goes_to_whoever_can_receive_it() -> None:
    takers = [Taker("small", 9, max_message_bytes=65_536), Taker("large", 1)]
    dealt = dealt_to(jobs(100_000, 100_000, 2), takers)
    # Once the one that could receive them has enough, the others are too large for who is left.
    assert hands(dealt) == [(0, "large"), (2, "small")]


def test_a_job_too_large_for_messages_is_passed_over_though_somebody_has_no_bytes() -> None:
    taker = Taker("a", 9, byte_credit=1, held={1: 1}, max_message_bytes=65_536)
    assert hands(dealt_to(jobs(100_000, 1), [taker])) == [(1, "a")]


def test_who_can_never_receive_a_job_does_not_wait_for_somebody_to_have_bytes_for_it() -> None:
    takers = [Taker("small", 9, max_message_bytes=65_536), Taker("full", 9, 5, {1: 2})]
    dealt, stuck = deal(jobs(100_000, 2, 3), takers)
    assert hands(dealt) == [(1, "small"), (2, "small")]
    # The one for whom it is gets nothing that stands behind it.
    assert [taker.name for taker in stuck] == ["full"]


def test_only_who_got_nothing_is_stuck() -> None:
    """The others may have room again, as soon as it is known what they really got."""
    takers = [Taker("a", 9, 5, {1: 2}), Taker("b", 9, 8, {1: 2}), Taker("c", 0, 5, {1: 2})]
    dealt, stuck = deal(jobs(7, 6, 1), takers)
    assert hands(dealt) == [(0, "b")]
    assert [taker.name for taker in stuck] == ["a"]


def test_the_turn_goes_on_when_some_have_to_wait() -> None:
    narrow = [Taker(name, 9, max_message_bytes=65_536) for name in "abc"]
    takers = [narrow[0], Taker("full", 9, 5, {1: 2}), *narrow[1:]]
    # It is c's turn when the others learn that "full" is out.
    dealt = dealt_to(jobs(6, 6, 100_000, 6, 6, 6), takers)
    assert hands(dealt) == [(0, "a"), (1, "b"), (3, "c"), (4, "a"), (5, "b")]


def test_nobody_gets_more_than_it_has_room_to_send() -> None:
    room = 3 * (100 + OVERHEAD)
    takers = [Taker("slow", 9, unsent_room=room), Taker("fast", 9)]
    dealt = dealt_to(jobs(*[100] * 9), takers)
    assert Counter(name for _, name in hands(dealt)) == {"slow": 3, "fast": 6}
    assert hands(dealt_to(jobs(*[100] * 9), takers[:1])) == [(0, "slow"), (1, "slow"), (2, "slow")]


def test_who_has_no_bytes_keeps_back_only_what_it_could_receive() -> None:
    takers = [Taker("small", 9, max_message_bytes=65_536), Taker("full", 9, 5, {1: 2})]
    assert hands(dealt_to(jobs(2, 6, 2), takers)) == [(0, "small"), (1, "small"), (2, "full")]


# -- deal: all rules together -------------------------------------------------------------------

TAKERS = st.lists(
    st.builds(
        Taker,
        name=st.just("t"),
        credit=st.integers(0, 5),
        byte_credit=st.none() | st.integers(0, 2000),
        held=st.sampled_from([{}, {1: 10}]),
        max_message_bytes=st.sampled_from([600, 1000, 1500, LARGE]),
        unsent_room=st.sampled_from([3000, 5000, LARGE]),
    ),
    max_size=4,
).map(lambda takers: [Taker(**vars(t) | {"name": str(i)}) for i, t in enumerate(takers)])

SIZES = st.lists(st.integers(1, 2000), max_size=25)


def naive(
    candidates: Sequence[Candidate], takers: Sequence[Taker], in_a_row: int
) -> list[tuple[int, str]]:
    """The rules word by word, with the whole table laid out anew for each candidate."""
    got: dict[str, list[int]] = {taker.name: [] for taker in takers}
    order = [taker for taker in takers if taker.credit > 0]
    dealt: list[tuple[int, str]] = []
    turns: list[str] = []
    for candidate in candidates:
        # `order` begins with whoever's turn it is.
        sitting = [taker for taker in order if len(got[taker.name]) < taker.credit]
        size = candidate.payload_bytes
        receivers = [taker for taker in sitting if size + OVERHEAD <= taker.max_message_bytes]
        if not receivers:
            continue
        able = [taker for taker in receivers if has_bytes(taker, got[taker.name], size)]
        if not able:
            order = [taker for taker in order if taker not in receivers]
            turns = []
            continue
        winner = able[0]
        got[winner.name].append(size)
        dealt.append((candidate.number, winner.name))
        turns = [*turns, winner.name] if {winner.name} >= set(turns) else [winner.name]
        is_through = len(turns) == in_a_row or len(got[winner.name]) == winner.credit
        place = order.index(winner) + is_through
        order = order[place:] + order[:place]
        turns = [] if is_through else turns
    return dealt


def has_bytes(taker: Taker, got: list[int], size: int) -> bool:
    if sum(got) + size + OVERHEAD * (len(got) + 1) > taker.unsent_room:
        return False
    if taker.byte_credit is None:
        return True
    is_empty = not taker.held and not got
    return is_empty or sum(got) + size <= taker.byte_credit


@given(SIZES, TAKERS, st.integers(1, 4))
def test_a_deal_is_what_the_rules_say(sizes: list[int], takers: list[Taker], in_a_row: int) -> None:
    dealt = dealt_to(jobs(*sizes), takers, in_a_row)
    assert hands(dealt) == naive(jobs(*sizes), takers, in_a_row)


@given(SIZES, TAKERS, st.integers(1, 4))
def test_no_rule_is_ever_broken(sizes: list[int], takers: list[Taker], in_a_row: int) -> None:
    dealt = dealt_to(jobs(*sizes), takers, in_a_row)
    got = [candidate.number for candidate, _ in dealt]
    assert got == sorted(set(got))
    for taker in takers:
        own = [candidate.payload_bytes for candidate, who in dealt if who is taker]
        assert len(own) <= max(0, taker.credit)
        assert all(size + OVERHEAD <= taker.max_message_bytes for size in own)
        assert sum(size + OVERHEAD for size in own) <= taker.unsent_room
        if taker.byte_credit is not None and sum(own) > taker.byte_credit:
            # One larger job alone, of a session that holds nothing.
            assert not taker.held
            assert len(own) == 1


@given(st.integers(0, 40), st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_equal_takers_get_equal_shares_as_far_as_their_credit_goes(
    count: int, credits_: list[int]
) -> None:
    takers = [Taker(str(place), credit) for place, credit in enumerate(credits_)]
    shares = Counter(who for _, who in hands(dealt_to(jobs(*[2] * count), takers)))
    assert sum(shares.values()) == min(count, sum(credits_))
    for first, second in itertools.permutations(takers, 2):
        if shares[first.name] < first.credit:
            assert shares[first.name] >= shares[second.name] - 1
