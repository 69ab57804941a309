"""Tells the other processes what a pass changed, after its commit."""

from collections.abc import Iterable

from taskforge_core.ending import EndedLease
from taskforge_core.notifications import Notifier
from taskforge_core.statuses import JobStatus

READY = "ready"
"""Topic: jobs became ready; the keys are the ids of their queues."""

SESSION = "session"
"""Topic: leases were ended from outside; the keys are the ids of the sessions that held them. The
server that has the session's stream compares what is held and tells the worker what it lost."""


def announce_ended(notifier: Notifier, ended: Iterable[EndedLease]) -> None:
    """Wake claims of the queues that got jobs back, and the servers of those who lost them."""
    ended = list(ended)
    if ready := {str(lease.queue_id) for lease in ended if lease.status is JobStatus.PENDING}:
        notifier.notify(READY, *ready)
    if sessions := {str(lease.session_id) for lease in ended}:
        notifier.notify(SESSION, *sessions)
