"""Joins the demand of all lease calls of this replica into claims and deals out what they bring."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from job_service.background import Background
from job_service.dealing import certain, deal, largest_payload
from job_service.demanding import Demand, Leased, Subscription
from job_service.leasing import Claimer, Hand
from taskforge_core.loops import Loop
from taskforge_core.notifications import Notifier

MAX_CLAIM = 1000
"""Jobs in one claim. By 1,000 a job costs a twentieth of a single claim; more gains little."""

POLL = timedelta(seconds=1)
"""Covers notifications that were lost; the loop varies it by ± 20 %."""

MAX_PAYLOAD_BYTES = 1024 * 1024
"""The largest payload that any queue takes."""

MIN_PER_SOURCE = 8
"""Candidates to ask of each queue at least."""

MAX_CANDIDATES = 20_000
"""Candidates that one pick may read over all its queues before it was seen to need more."""

MAX_ROUNDS = 20
"""Picks in one pass: each goes on behind what the ones before could not get. So many take longer
than the claim of a thousand jobs in another replica, of which a call with little room tries few."""

LOCKED_PAUSE_SECONDS = 0.05
"""When to look again after a pass in which others had locked whatever was tried."""


ReadyKind = tuple[UUID, str | None]
"""A queue in which a job became ready, and the job's type; None: not known."""


class Group:
    """The lease calls of one subscription: one loop, one claim at a time."""

    def __init__(
        self,
        subscription: Subscription,
        claimer: Claimer,
        notifier: Notifier,
    ) -> None:
        self.subscription = subscription
        self.demands: list[Demand] = []
        self.loop = Loop(f"dispatch {subscription.project_id}", self.run_once, POLL)
        self._claimer = claimer
        self._notifier = notifier
        self._claiming = asyncio.Lock()
        self._sources_seen = 1
        self._to_pass_on: set[UUID] = set()
        self._has_left_jobs = False

    def covers(self, queue_id: UUID) -> bool:
        """Whether jobs of this queue may be for it."""
        queue_ids = self.subscription.queue_ids
        return queue_ids is None or queue_id in queue_ids

    def looks_at(self, queue_id: UUID, job_type: str | None) -> bool:
        """Whether it sees every job of this queue and type (None: any type) that is ready.

        Only then it knows what it leaves to others. Jobs that are too large for the messages of all
        calls that have room it does not see. Some call must have room.
        """
        job_types = self.subscription.job_types
        takers = [demand for demand in self.demands if demand.credit > 0]
        return (
            self.covers(queue_id)
            and (not job_types or job_type in job_types)
            and largest_payload(takers) >= MAX_PAYLOAD_BYTES
        )

    def wake(self, queue_ids: Iterable[UUID] = ()) -> None:
        """Look for jobs now. `queue_ids` were made ready by this replica, which told nobody else:
        if the calls here leave any of what they see, the others are told then."""
        self._to_pass_on.update(queue_ids)
        self.loop.wake()

    @property
    def credit(self) -> int:
        """How many jobs its calls take now."""
        return sum(demand.credit for demand in self.demands)

    async def run_once(self) -> bool:
        """Claim and deal until nobody wants more or nothing is left. True: look again at once."""
        async with self._claiming:
            passing_on, self._to_pass_on = self._to_pass_on, set()
            more = await self._claim_until_satisfied()
        if passing_on and (self._has_left_jobs or self.credit == 0):
            self._notifier.notify("ready", *map(str, passing_on))
        return more

    async def _claim_until_satisfied(self) -> bool:
        tried: list[UUID] = []
        per_source = 0
        self._has_left_jobs = True
        for _ in range(MAX_ROUNDS):
            takers = self._takers()
            wanted = min(MAX_CLAIM, sum(demand.credit for demand in takers))
            if wanted == 0:
                return False
            per_source = min(wanted, max(per_source, self._first_per_source(wanted)))
            picked = await self._claimer.pick(
                self.subscription, per_source, wanted, tried, largest_payload(takers)
            )
            self._sources_seen = max(1, len({candidate.source for candidate in picked}))
            sure, was_cut = certain(picked, per_source)
            dealt = deal(sure, takers)
            taken: set[UUID] = set()
            if dealt.hands:
                taken = await self._claim(dealt.hands)
            untaken = [(job, demand) for job, demand in dealt.hands if job.id not in taken]
            left_over = bool(untaken or dealt.too_large)
            if not left_over and not was_cut and len(picked) < wanted:
                self._has_left_jobs = bool(tried) or len(taken) < len(picked)
                return False
            if not left_over and not taken:
                # Nobody has the bytes for what comes next.
                return False
            tried += [candidate.id for candidate in dealt.too_large]
            # Others have locked these. But what a call got that may take nothing is dealt anew.
            tried += [job.id for job, demand in untaken if not demand.is_barred]
            if was_cut:
                per_source *= 4
        if not taken:
            # Whoever has locked all that was tried tells nobody when it is done.
            asyncio.get_running_loop().call_later(LOCKED_PAUSE_SECONDS, self.loop.wake)
        return bool(taken)

    def _takers(self) -> list[Demand]:
        """The calls that want jobs; each claim begins with another one."""
        if self.demands:
            self.demands.append(self.demands.pop(0))
        return [demand for demand in self.demands if demand.credit > 0]

    def _first_per_source(self, wanted: int) -> int:
        """Enough of each queue for most claims, without reading far into hundreds of them."""
        subscription = self.subscription
        sources = len(subscription.queue_ids or ()) or self._sources_seen
        sources *= len(subscription.job_types) or 1
        if sources == 1:
            return wanted
        share = max(MIN_PER_SOURCE, 2 * wanted // self._sources_seen)
        return min(share, max(MIN_PER_SOURCE, MAX_CANDIDATES // sources))

    async def _claim(self, hands: Sequence[Hand]) -> set[UUID]:
        leases = await self._claimer.claim(self.subscription.project_id, hands)
        parcels: dict[UUID, list[Leased]] = defaultdict(list)
        calls = {demand.call_id: demand for demand, _ in leases}
        for demand, leased in leases:
            parcels[demand.call_id].append(leased)
        for call_id, parcel in parcels.items():
            calls[call_id].send(parcel)
        return {leased.id for _, leased in leases}


class Dispatcher:
    """Knows every lease call of this replica, by session and by subscription."""

    def __init__(self, claimer: Claimer, notifier: Notifier, background: Background) -> None:
        self._claimer = claimer
        self._notifier = notifier
        self._background = background
        self._groups: dict[Subscription, Group] = {}
        self._by_session: dict[tuple[UUID, UUID], Demand] = {}

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
        group = self._groups.get(demand.subscription)
        if group is None:
            group = Group(demand.subscription, self._claimer, self._notifier)
            self._groups[demand.subscription] = group
            group.loop.start()
        group.demands.append(demand)
        group.wake()
        return group

    def remove(self, demand: Demand) -> None:
        """Forget a call that has ended."""
        demand.is_closed = True
        key = (demand.project_id, demand.session_id)
        if self._by_session.get(key) is demand:
            del self._by_session[key]
        group = self._groups.get(demand.subscription)
        if group is not None and demand in group.demands:
            group.demands.remove(demand)
            if not group.demands:
                del self._groups[demand.subscription]
                self._background.start("stop dispatching", group.loop.stop())

    def wake(self, queue_ids: Iterable[UUID]) -> None:
        """Let the calls that may take jobs of these queues look for them."""
        for queue_id in queue_ids:
            for group in self._groups.values():
                if group.covers(queue_id) and group.credit > 0:
                    group.wake()

    def serve(self, project_id: UUID, ready: Iterable[ReadyKind]) -> set[UUID]:
        """Let the calls here take what was made ready here; they tell others what they leave.

        Returns:
            The queues of jobs for which no call here has room now: of these nobody tells.
        """
        unserved = set()
        for queue_id, job_type in ready:
            served = False
            for group in self._groups.values():
                if group.credit == 0 or group.subscription.project_id != project_id:
                    continue
                if group.looks_at(queue_id, job_type):
                    served = True
                    group.wake([queue_id])
                elif group.covers(queue_id):
                    group.wake()
            if not served:
                unserved.add(queue_id)
        return unserved

    def wake_all(self) -> None:
        """Look for jobs everywhere: something may have been missed."""
        for group in self._groups.values():
            group.wake()

    def wake_for(self, demand: Demand) -> None:
        """Look for jobs for one call, which has credit again."""
        group = self._groups.get(demand.subscription)
        if group is not None and demand.credit > 0:
            group.wake()

    def lease_ended(self, project_id: UUID, session_id: UUID, lease_seq: int) -> bool:
        """Stop counting a lease. False: the session's call is not here."""
        demand = self._by_session.get((project_id, session_id))
        if demand is None:
            return False
        demand.drop(lease_seq)
        self.wake_for(demand)
        return True

    def drain(self) -> None:
        """End every call: the server is leaving."""
        for demand in self.demands:
            demand.drain()

    async def stop(self) -> None:
        """End the loops of calls that are still there."""
        await asyncio.gather(*(group.loop.stop() for group in self._groups.values()))
