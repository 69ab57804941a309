"""Deals the candidates of a claim to the calls that want them: pure, so order can be proved."""

from collections import Counter
from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from uuid import UUID

MESSAGE_OVERHEAD_BYTES = 512
"""What a lease's message takes beside its payload, as a rule. Labels and progress can add more:
the sender measures the whole message; a job that turns out too large is `unfit` for its taker."""


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
    def held(self) -> dict[int, int]:
        """What its session holds."""

    @property
    def max_message_bytes(self) -> int:
        """The largest message that it can receive."""

    @property
    def unfit(self) -> Set[UUID]:
        """Jobs that turned out to be too large for its messages."""


TakerT = TypeVar("TakerT", bound=Taker)


@dataclass(frozen=True, slots=True)
class Deal(Generic[CandidateT, TakerT]):
    """Who gets what, best first."""

    hands: list[tuple[CandidateT, TakerT]]
    too_large: list[CandidateT]
    """Fit into no taker's messages: others may take them, so claims go on behind them."""


def certain(candidates: Sequence[CandidateT], per_source: int) -> tuple[Sequence[CandidateT], bool]:
    """The candidates that are surely the next ones, and whether any were cut off.

    A source that returned `per_source` candidates may have more that rank right behind its last
    one. So what ranks behind the last one of such a source is not certain.
    """
    seen: Counter[Hashable] = Counter()
    for index, candidate in enumerate(candidates):
        seen[candidate.source] += 1
        if seen[candidate.source] == per_source:
            return candidates[: index + 1], index + 1 < len(candidates)
    return candidates, False


@dataclass(slots=True)
class _Seat(Generic[TakerT]):
    """A taker and what it can still take in this deal."""

    taker: TakerT
    credit: int
    byte_credit: int | None
    is_empty: bool

    def has_room_for(self, payload_bytes: int) -> bool:
        # A session that holds nothing may take one job that is larger than its limit.
        return self.byte_credit is None or payload_bytes <= self.byte_credit or self.is_empty

    def take(self, payload_bytes: int) -> None:
        self.credit -= 1
        self.is_empty = False
        if self.byte_credit is not None:
            self.byte_credit = max(0, self.byte_credit - payload_bytes)


def _fits(candidate: Candidate, taker: Taker) -> bool:
    message_bytes = candidate.payload_bytes + MESSAGE_OVERHEAD_BYTES
    return message_bytes <= taker.max_message_bytes and candidate.id not in taker.unfit


def largest_payload(takers: Sequence[Taker]) -> int:
    """The size beyond which a payload fits into no taker's messages: none larger need be picked."""
    return max(taker.max_message_bytes for taker in takers) - MESSAGE_OVERHEAD_BYTES


def deal(candidates: Sequence[CandidateT], takers: Sequence[TakerT]) -> Deal[CandidateT, TakerT]:
    """Deal candidates, in their order, to the takers in turn.

    It stops at the first candidate for which nobody has bytes left: a smaller one behind it must
    not overtake it. One that fits into no taker's messages is set aside.
    """
    seats = [
        _Seat(taker, taker.credit, taker.byte_credit, not taker.held)
        for taker in takers
        if taker.credit > 0
    ]
    hands: list[tuple[CandidateT, TakerT]] = []
    too_large: list[CandidateT] = []
    turn = 0
    for candidate in candidates:
        size = candidate.payload_bytes
        if seats and not any(_fits(candidate, seat.taker) for seat in seats):
            too_large.append(candidate)
            continue
        for offset in range(len(seats)):
            seat = seats[(turn + offset) % len(seats)]
            if _fits(candidate, seat.taker) and seat.has_room_for(size):
                break
        else:
            break
        seat.take(size)
        hands.append((candidate, seat.taker))
        turn = (turn + offset + 1) % len(seats)
        if seat.credit == 0:
            position = seats.index(seat)
            del seats[position]
            if seats:
                turn = (turn - 1 if position < turn else turn) % len(seats)
    return Deal(hands, too_large)
