"""What a claim may take of queues with limits: decided without I/O, so every case is tried."""

import itertools
from dataclasses import dataclass
from uuid import UUID

from job_service.rationing import NO_RATION, Ration, within

FIRST, SECOND = UUID(int=1), UUID(int=2)


@dataclass(frozen=True)
class Job:
    """A candidate, called by its place."""

    place: int
    queue_id: UUID
    has_limits: bool = True


def jobs(*queues: UUID) -> list[Job]:
    return [Job(place, queue_id) for place, queue_id in enumerate(queues)]


def ration(room: dict[UUID, int], busy: frozenset[UUID] = frozenset()) -> Ration:
    return Ration(room, frozenset(room), busy, frozenset())


def test_the_first_ones_that_have_room_are_allowed() -> None:
    given = jobs(FIRST, FIRST, SECOND, FIRST, SECOND)
    allowed, full = within(ration({FIRST: 2}), given)
    assert [job.place for job in allowed] == [0, 1, 2, 4]
    assert full == {FIRST}


def test_a_queue_that_is_filled_exactly_is_not_full_for_this_claim() -> None:
    given = jobs(FIRST, FIRST)
    assert within(ration({FIRST: 2}), given) == (given, frozenset())


def test_a_claim_without_limited_queues_takes_all() -> None:
    given = jobs(FIRST, SECOND)
    assert within(NO_RATION, given) == (given, frozenset())


def test_nothing_is_taken_from_a_queue_that_another_claim_counts() -> None:
    allowed, full = within(ration({}, busy=frozenset({FIRST})), jobs(FIRST, SECOND, FIRST))
    assert [job.place for job in allowed] == [1]
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
        given = jobs(*queues)
        room = {
            queue_id: free
            for queue_id, free in ((FIRST, first), (SECOND, second))
            if free is not None and queue_id not in busy
        }
        allowed, full = within(ration(room, frozenset(busy)), given)
        assert [job.place for job in allowed] == sorted({job.place for job in allowed})
        for queue_id in (FIRST, SECOND):
            own = [job for job in given if job.queue_id == queue_id]
            limit = 0 if queue_id in busy else room.get(queue_id, len(own))
            # The best ones, as many as there is room for; full if that was not all.
            assert [job for job in allowed if job.queue_id == queue_id] == own[:limit]
            assert (queue_id in full) == (len(own) > limit)
