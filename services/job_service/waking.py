"""Tells whoever waits: the calls of this replica directly, other replicas by notification.

Call it after the commit of what it tells about.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from contextlib import AbstractContextManager
from uuid import UUID

from job_service.dispatching import Dispatcher
from job_service.routing import Routes
from taskforge_core.ending import EndedLease, LeaseKey
from taskforge_core.notifications import Notifier
from taskforge_core.statuses import JobStatus


class Waker:
    """The outgoing side of wake-ups; `hearing` is the incoming one."""

    def __init__(self, dispatcher: Dispatcher, routes: Routes, notifier: Notifier) -> None:
        self._dispatcher = dispatcher
        self._routes = routes
        self._notifier = notifier

    def jobs_ready(self, project_id: UUID, queue_ids: Iterable[UUID]) -> None:
        """Jobs of these queues of a project became ready.

        Where a call of this replica can take them, the others need not be woken: its claim is on
        the way, and if it cannot take them all, it passes the word on.
        """
        unserved = self._dispatcher.wake(queue_ids, untold_in=project_id)
        if unserved:
            self._notifier.notify("ready", *map(str, unserved))

    def settling(self, lease_seqs: Set[int]) -> AbstractContextManager[None]:
        """Settle leases inside, and tell there what became of them (`Dispatcher.settling`)."""
        return self._dispatcher.settling(lease_seqs)

    def leases_gone(self, project_id: UUID, keys: Iterable[LeaseKey]) -> None:
        """Leases have no row any more; the calls of this replica that count them have room."""
        self._dispatcher.leases_gone(project_id, keys)

    def leases_ended(
        self,
        project_id: UUID,
        ended: Sequence[EndedLease],
        *,
        counted: Set[LeaseKey] | None = None,
    ) -> None:
        """Leases were ended: their sessions have room again, and their jobs may be ready.

        Args:
            project_id: Owner of the jobs.
            ended: The leases.
            counted: Those of them that another replica may count, where that is known (a lease
                that went out without a stream is counted by nobody). Default: all.
        """
        by_session: dict[UUID, list[EndedLease]] = defaultdict(list)
        for lease in ended:
            by_session[lease.session_id].append(lease)
        elsewhere = []
        for session_id, leases in by_session.items():
            lease_seqs = [lease.key[1] for lease in leases]
            if not self._dispatcher.leases_ended(project_id, session_id, lease_seqs):
                elsewhere += [
                    f"{project_id}:{session_id}:{lease.key[1]:x}"
                    for lease in leases
                    if counted is None or lease.key in counted
                ]
        if elsewhere:
            self._notifier.notify("ended", *elsewhere)
        ready = set().union(
            *(lease.ready_queue_ids for lease in ended if lease.status != JobStatus.SUCCEEDED)
        )
        # In a queue with limits a slot is free, which another replica's call may be waiting for.
        queue_ids = {lease.queue_id for lease in ended}
        ready |= {each for each in queue_ids if self._routes.may_have_limits(project_id, each)}
        if ready:
            self.jobs_ready(project_id, ready)

    def session_changed(self, session_id: UUID) -> None:
        """Something about a session changed that another replica's call of it must look up."""
        self._notifier.notify("session", str(session_id))
