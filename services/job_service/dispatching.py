"""Knows every lease call of this replica, by session and by subscription."""

import asyncio
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from uuid import UUID

from job_service.background import Background
from job_service.demanding import Demand, Subscription
from job_service.grouping import Group
from job_service.leasing import Claimer
from taskforge_core.ending import LeaseKey
from taskforge_core.notifications import Notifier
from taskforge_core.tokens import decode_token


class Dispatcher:
    """Knows every lease call of this replica, by session and by subscription."""

    def __init__(self, claimer: Claimer, notifier: Notifier, background: Background) -> None:
        self._claimer = claimer
        self._notifier = notifier
        self._background = background
        self._groups: dict[UUID, dict[Subscription, Group]] = {}
        """By project."""
        self._by_session: dict[tuple[UUID, UUID], Demand] = {}
        self._settling: list[Set[int]] = []
        self._turn = 0

    @property
    def demands(self) -> list[Demand]:
        """All calls that are registered."""
        return list(self._by_session.values())

    def of_session(self, project_id: UUID, session_id: UUID) -> Demand | None:
        """The session's lease call, if this replica serves it."""
        return self._by_session.get((project_id, session_id))

    def register(self, demand: Demand) -> None:
        """Let leases of the session be counted; the call takes no job before `admit`.

        An older call of the session on this replica is replaced.
        """
        key = (demand.project_id, demand.session_id)
        older = self._by_session.get(key)
        self._by_session[key] = demand
        if older is not None:
            older.replace()

    def admit(self, demand: Demand) -> Group:
        """Let the call take jobs, unless it was ended meanwhile."""
        group = self._group_of(demand)
        if group is None:
            group = Group(demand.subscription, self._claimer, self._notifier)
            self._groups.setdefault(demand.project_id, {})[demand.subscription] = group
            group.start()
        group.demands.append(demand)
        group.wake()
        return group

    def groups(self, project_id: UUID | None = None) -> list[Group]:
        """Those of a project, or all."""
        if project_id is not None:
            return list(self._groups.get(project_id, {}).values())
        return [group for groups in self._groups.values() for group in groups.values()]

    def _group_of(self, demand: Demand) -> Group | None:
        return self._groups.get(demand.project_id, {}).get(demand.subscription)

    def idle_groups(self, project_id: UUID) -> list[Group]:
        """Those of the project that took all that was ready, and to whose calls nobody deals right
        now; another one first each time."""
        self._turn += 1
        idle = [
            group for group in self.groups(project_id) if group.took_all and not group.turn.locked()
        ]
        first = self._turn % max(1, len(idle))
        return idle[first:] + idle[:first]

    def remove(self, demand: Demand) -> None:
        """Forget a call that has ended."""
        demand.is_closed = True
        key = (demand.project_id, demand.session_id)
        if self._by_session.get(key) is demand:
            del self._by_session[key]
        self._leave(demand)

    def move(self, demand: Demand, subscription: Subscription) -> None:
        """Let the call take other jobs from now on: what it is for has changed."""
        was_admitted = self._leave(demand)
        demand.subscription = subscription
        if was_admitted:
            self.admit(demand)

    def _leave(self, demand: Demand) -> bool:
        group = self._group_of(demand)
        if group is None or demand not in group.demands:
            return False
        group.demands.remove(demand)
        if not group.demands:
            of_project = self._groups[demand.project_id]
            del of_project[demand.subscription]
            if not of_project:
                del self._groups[demand.project_id]
            self._background.start("stop dispatching", group.stop())
        return True

    def wake(self, queue_ids: Iterable[UUID], *, untold_in: UUID | None = None) -> list[UUID]:
        """Let the calls that take jobs of these queues look for them.

        Args:
            queue_ids: Queues in which something became ready.
            untold_in: The queues' project, if nobody else was told: tell them when the calls here
                cannot take it all. None: all were told, and the project is not known.

        Returns:
            The queues whose jobs, for all that is known here, no call of this replica takes.
        """
        unserved = []
        for queue_id in queue_ids:
            served = False
            # One of all queues covers those of its own project alone.
            for group in self.groups(untold_in):
                if not group.covers(queue_id):
                    continue
                # Also if nobody has room now: whoever has room again must look then.
                group.took_all = False
                if group.credit == 0:
                    continue
                # Whoever takes only some of the queue's jobs may not take these.
                serves = group.takes_any_job
                group.wake([queue_id] if untold_in is not None and serves else ())
                served = served or serves
            if not served:
                unserved.append(queue_id)
        return unserved

    def wake_all(self) -> None:
        """Look for jobs everywhere: something may have been missed."""
        for group in self.groups():
            group.wake()

    def wake_for(self, demand: Demand) -> None:
        """Look for jobs for one call, which has credit again."""
        group = self._group_of(demand)
        if group is not None and demand.credit > 0:
            group.wake_for_credit()

    def leases_ended(self, project_id: UUID, session_id: UUID, lease_seqs: Iterable[int]) -> bool:
        """Stop counting leases of a session. False: its call is not here."""
        demand = self._by_session.get((project_id, session_id))
        if demand is None:
            return False
        for lease_seq in lease_seqs:
            demand.drop(lease_seq)
        self.wake_for(demand)
        return True

    def leases_gone(self, project_id: UUID, keys: Iterable[LeaseKey]) -> None:
        """Stop counting leases that have no row any more, whoever ended them."""
        jobs = {lease_seq: job_id for job_id, lease_seq in keys}
        for demand in self.demands:
            if demand.project_id != project_id:
                continue
            for lease_seq in demand.held.keys() & jobs.keys():
                # A token may be made up: then its number is that of another job's lease.
                if decode_token(demand.tokens[lease_seq]).job_id == jobs[lease_seq]:
                    demand.drop(lease_seq)
            self.wake_for(demand)

    @contextmanager
    def settling(self, lease_seqs: Set[int]) -> Iterator[None]:
        """Settle leases inside, and tell there what became of them.

        Whoever reads meanwhile that such a lease has ended leaves it alone: it is not lost.
        """
        self._settling.append(lease_seqs)
        try:
            yield
        finally:
            # By identity: two batches may settle the same leases.
            self._settling = [other for other in self._settling if other is not lease_seqs]

    def is_settling(self, lease_seq: int) -> bool:
        """Whether this replica settles the lease right now."""
        return any(lease_seq in lease_seqs for lease_seqs in self._settling)

    def drain(self) -> None:
        """End every call: the server is leaving."""
        for demand in self.demands:
            demand.drain()

    async def stop(self) -> None:
        """End the loops of calls that are still there."""
        await asyncio.gather(*(group.stop() for group in self.groups()))
