"""What a claim may take of queues with limits: decided without I/O, so every case is tried."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from job_service.rationing import NO_RATION, Ration, within

FIRST, SECOND = UUID(int=1), UUID(int=2)


@dataclass(frozen=True)
class Job:
    """A candidate, whose id is its place."""

    id: UUID
    queue_id: UUID
    has_limits: bool = True


def hands(*queues: UUID) -> list[tuple[Job, str]]:
    """Jobs of these queues, each with who is to get it."""
    return [(Job(UUID(int=place), queue_id), "taker") for place, queue_id in enumerate(queues)]


def places(allowed: Sequence[tuple[Job, str]]) -> list[int]:
    return [job.id.int for job, _ in allowed]


def ration(room: dict[UUID, int], busy: frozenset[UUID] = frozenset()) -> Ration:
    return Ration(room, frozenset(room), busy, frozenset())


def test_the_first_ones_that_have_room_are_allowed() -> None:
    given = hands(FIRST, FIRST, SECOND, FIRST, SECOND)
    allowed, full = within(ration({FIRST: 2}), given)
    assert places(allowed) == [0, 1, 2, 4]
    assert full == {FIRST}


def test_a_queue_that_is_filled_exactly_is_not_full_for_this_claim() -> None:
    given = hands(FIRST, FIRST)
    assert within(ration({FIRST: 2}), given) == (given, frozenset())


def test_a_claim_without_limited_queues_takes_all() -> None:
    given = hands(FIRST, SECOND)
    assert within(NO_RATION, given) == (given, frozenset())


def test_nothing_is_taken_from_a_queue_that_another_claim_counts() -> None:
    allowed, full = within(ration({}, busy=frozenset({FIRST})), hands(FIRST, SECOND, FIRST))
    assert places(allowed) == [1]
    assert full == {FIRST}


def test_every_case_of_two_queues_is_as_the_rules_say() -> None:
    rooms = [None, 0, 1, 2, 3]
    sequences = [
        queues
        for length in range(6)
        for queues in itertools.product((FIRST, SECOND), repeat=length)
    ]
    for first, second, busy, queues in itertools.product(
        rooms, rooms, [(), (FIRST,), (SECOND,), (FIRST, SECOND)], sequences
    ):
        given = hands(*queues)
        room = {
            queue_id: free
            for queue_id, free in ((FIRST, first), (SECOND, second))
            if free is not None and queue_id not in busy
        }
        allowed, full = within(ration(room, frozenset(busy)), given)
        assert places(allowed) == sorted(set(places(allowed)))
        for queue_id in (FIRST, SECOND):
            own = [hand for hand in given if hand[0].queue_id == queue_id]
            limit = 0 if queue_id in busy else room.get(queue_id, len(own))
            # The best ones, as many as there is room for; full if that was not all.
            assert [hand for hand in allowed if hand[0].queue_id == queue_id] == own[:limit]
            assert (queue_id in full) == (len(own) > limit)
