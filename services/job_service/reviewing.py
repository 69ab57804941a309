"""Judges a heartbeat: pure, so that every interleaving of lists and leases can be tested."""

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from datetime import timedelta

MAX_DELIVERY_TIME = timedelta(seconds=10)

MAX_UNSENT_TIME = timedelta(seconds=40)
"""How long a stream's replica may keep a lease before it has sent it, or given it back: at most
three messages of leases wait there (`Demand.unsent_room`) and a few small ones between them, and a
write that takes 10 s ends the stream."""


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease that a session holds, by its row."""

    job_id: str
    lease_seq: int
    cancel_requested: bool
    age: timedelta
    """How long before the heartbeat its worker had it, if it was not lost on the way."""


@dataclass(frozen=True, slots=True)
class Review:
    """What a heartbeat's list says about the leases of its session."""

    listed: frozenset[int]
    """Held leases that this or an earlier heartbeat has listed."""
    omitted: frozenset[int]
    """Held leases that this heartbeat should have listed and did not."""
    undelivered: frozenset[int]
    """Left out twice and never listed: they did not reach the worker."""
    forgotten: frozenset[int]
    """Left out twice though listed before: the worker no longer knows them."""


def delivery_time(lease_duration: timedelta) -> timedelta:
    """How old a lease must be before a heartbeat must list it: 10 s, or a third of the lease."""
    return min(MAX_DELIVERY_TIME, lease_duration / 3)


def review(
    held: Mapping[int, HeldLease],
    named: Collection[int],
    listed_before: Set[int],
    omitted_before: Set[int],
    lease_duration: timedelta,
) -> Review:
    """Compare a heartbeat's list with what its session holds.

    Args:
        held: The session's leases by sequence.
        named: The leases that the heartbeat lists.
        listed_before: Those that earlier ones have listed.
        omitted_before: Those that the last one left out.
        lease_duration: The session's.
    """
    ripe = delivery_time(lease_duration)
    held_seqs = held.keys()
    listed_now = held_seqs & set(named)
    omitted = {seq for seq in held_seqs - listed_now if held[seq].age > ripe}
    given_up = omitted & omitted_before
    ever_listed = (listed_before & held_seqs) | listed_now
    return Review(
        listed=frozenset(ever_listed - given_up),
        omitted=frozenset(omitted - given_up),
        undelivered=frozenset(given_up - ever_listed),
        forgotten=frozenset(given_up & ever_listed),
    )
