"""Tells the other processes what a pass changed, after its commit."""

from collections.abc import Iterable

from taskforge_core.ending import EndedLease
from taskforge_core.notifications import Notifier

READY = "ready"
"""Topic: jobs became ready; the keys are the ids of their queues."""

SESSION = "session"
"""Topic: leases were ended from outside; the keys are the ids of the sessions that held them. The
server that has the session's stream compares what is held and tells the worker what it lost."""


def announce_ended(notifier: Notifier, ended: Iterable[EndedLease]) -> None:
    """Wake claims of the queues that got jobs back, and the servers of those who lost them."""
    ended = list(ended)
    # Also where nothing came back: a slot of a queue with a limit is free.
    ready = {lease.queue_id for lease in ended}.union(*(lease.ready_queue_ids for lease in ended))
    if ready:
        notifier.notify(READY, *map(str, ready))
    if sessions := {str(lease.session_id) for lease in ended}:
        notifier.notify(SESSION, *sessions)
