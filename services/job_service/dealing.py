"""Deals the candidates of a claim to the calls that want them: pure, so order can be proved."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from uuid import UUID


class Candidate(Protocol):
    """A job that might be claimed."""

    @property
    def id(self) -> UUID:
        """The job."""

    @property
    def source(self) -> Hashable:
        """The range of the index that it came from."""

    @property
    def payload_bytes(self) -> int:
        """The size of its payload."""

    @property
    def message_bytes(self) -> int:
        """The most that its lease takes in a message."""


CandidateT = TypeVar("CandidateT", bound=Candidate)


class Taker(Protocol):
    """A call that wants jobs."""

    @property
    def credit(self) -> int:
        """How many more jobs it takes."""

    @property
    def byte_credit(self) -> int | None:
        """How many more bytes it takes; None: any number."""

    @property
    def unsent_room(self) -> int:
        """How many more bytes of messages it takes; any one that it can receive, at least."""

    @property
    def held(self) -> dict[int, int]:
        """What its session holds."""

    @property
    def max_message_bytes(self) -> int:
        """The largest message that it can receive."""


TakerT = TypeVar("TakerT", bound=Taker)


def certain(candidates: Sequence[CandidateT], per_source: int) -> tuple[Sequence[CandidateT], bool]:
    """The candidates that are surely the next ones, and whether more may follow that are not here.

    A source that returned `per_source` candidates may have more that rank right behind its last
    one. So what ranks behind the last one of such a source is not certain.
    """
    if len(candidates) < per_source:
        return candidates, False
    seen: Counter[Hashable] = Counter()
    for index, candidate in enumerate(candidates):
        seen[candidate.source] += 1
        if seen[candidate.source] == per_source:
            return candidates[: index + 1], True
    return candidates, False


@dataclass(slots=True)
class _Seat(Generic[TakerT]):
    """A taker and what it can still take in this deal."""

    taker: TakerT
    credit: int
    byte_credit: int | None
    unsent_room: int
    is_empty: bool

    def can_receive(self, candidate: Candidate) -> bool:
        return candidate.message_bytes <= self.taker.max_message_bytes

    def has_room_for(self, candidate: Candidate) -> bool:
        if candidate.message_bytes > self.unsent_room:
            return False
        # A session that holds nothing may take one job that is larger than its limit.
        fits = self.byte_credit is None or candidate.payload_bytes <= self.byte_credit
        return fits or self.is_empty

    def take(self, candidate: Candidate) -> None:
        self.credit -= 1
        self.is_empty = False
        self.unsent_room -= candidate.message_bytes
        if self.byte_credit is not None:
            self.byte_credit = max(0, self.byte_credit - candidate.payload_bytes)


def deal(
    candidates: Sequence[CandidateT], takers: Sequence[TakerT], in_a_row: int = 1
) -> tuple[list[tuple[CandidateT, TakerT]], list[TakerT]]:
    """Deal candidates, in their order, to the takers in turn, each up to `in_a_row` at a time.

    At the first candidate for which nobody has bytes left, those who could receive it are out of
    the deal: a smaller one behind it must not overtake it. The others, whose messages cannot hold
    it, go on without it.

    Returns:
        Who gets what, and those who got nothing, as they have no bytes for what is theirs.
    """
    seats = [
        _Seat(taker, taker.credit, taker.byte_credit, taker.unsent_room, not taker.held)
        for taker in takers
        if taker.credit > 0
    ]
    hands: list[tuple[CandidateT, TakerT]] = []
    stuck: list[TakerT] = []
    turn = taken = 0
    for candidate in candidates:
        if not seats:
            break
        nobody_can_receive_it = True
        for offset in range(len(seats)):
            seat = seats[(turn + offset) % len(seats)]
            if seat.can_receive(candidate):
                nobody_can_receive_it = False
                if seat.has_room_for(candidate):
                    break
        else:
            if nobody_can_receive_it:
                continue
            # Whose turn it is comes first now.
            seats = seats[turn:] + seats[:turn]
            out = [seat for seat in seats if seat.can_receive(candidate)]
            stuck += [seat.taker for seat in out if seat.credit == seat.taker.credit]
            seats = [seat for seat in seats if not seat.can_receive(candidate)]
            turn = taken = 0
            continue
        seat.take(candidate)
        hands.append((candidate, seat.taker))
        place = (turn + offset) % len(seats)
        taken = taken + 1 if place == turn else 1
        if seat.credit == 0:
            del seats[place]
            turn, taken = place % max(1, len(seats)), 0
        elif taken == in_a_row:
            turn, taken = (place + 1) % len(seats), 0
        else:
            turn = place
    return hands, stuck
