"""The lease calls of one subscription: their joint demand, one claim at a time."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg
import structlog

from job_service.dealing import certain, deal
from job_service.demanding import LARGEST_MESSAGE_BYTES, Demand, Subscription
from job_service.leasing import Claimed, Claimer, Hand
from job_service.seating import BUSY_SESSION_SECONDS, send_all
from taskforge_core.loops import Loop
from taskforge_core.notifications import Notifier

log = structlog.get_logger(__name__)

MAX_CLAIM = 1000
"""Jobs in one claim. By 1,000 a job costs a twentieth of a single claim; more gains little."""

MAX_CLAIM_BYTES = 16 * 1024 * 1024
"""Bytes of messages in one claim: it reads them all within one statement's time limit, and the
replica keeps them in memory."""

POLL = timedelta(seconds=0.8)
"""Covers notifications that were lost and claims that were rolled back, within a second: the loop
varies it by ± 20 %."""

MIN_PER_SOURCE = 8
"""Candidates to ask of each queue at least."""

MAX_CANDIDATES = 20_000
"""Candidates that one pick may read over all its queues before it was seen to need more."""

BUSY_QUEUE_SECONDS = 0.01
"""When to try a queue with limits again that another claim was counting."""

IN_A_ROW = 100
"""Jobs of a full claim that go to one call before the next one's turn. A message costs as much as
ten jobs, on either side and however few it carries; in turns of one, 200 calls get 5 in each."""

MAX_ROUNDS = 20
"""Picks in one pass: each goes on behind what the ones before could not get."""


class Group:
    """Joins the calls of one subscription into claims and deals out what they bring."""

    def __init__(
        self,
        subscription: Subscription,
        claimer: Claimer,
        notifier: Notifier,
    ) -> None:
        self.subscription = subscription
        self.demands: list[Demand] = []
        self._claimer = claimer
        self._notifier = notifier
        self._loop = Loop(f"dispatch {subscription.project_id}", self.run_once, POLL)
        self.turn = asyncio.Lock()
        """Held by whoever deals jobs to the calls: their credit is its to give away."""
        self.took_all = False
        """The latest pass took all that was ready, and nothing has become ready since."""
        self._passes: set[asyncio.Task[bool]] = set()
        self._sources_seen = 1
        self._most = MAX_CLAIM
        self._to_pass_on: set[UUID] = set()

    def start(self) -> None:
        """Look for jobs from now on: when woken, and each second."""
        self._loop.start()

    async def stop(self) -> None:
        """End the loop; what it was to pass on is told to the others."""
        await self._loop.stop()
        self._pass_on(self._to_pass_on)

    def covers(self, queue_id: UUID) -> bool:
        """Whether jobs of this queue may be for it."""
        queue_ids = self.subscription.queue_ids
        return queue_ids is None or queue_id in queue_ids

    def wake(self, queue_ids: Iterable[UUID] = ()) -> None:
        """Look for jobs now. `queue_ids` were made ready by this replica, which told nobody else:
        if the calls here have taken all they can, the others are told then."""
        self._to_pass_on.update(queue_ids)
        self.took_all = False
        self._loop.wake()

    def wake_for_credit(self) -> None:
        """Look for jobs now, as a call has room again; where nothing was left there is no need."""
        if not self.took_all:
            self._loop.wake()

    @property
    def credit(self) -> int:
        """How many jobs its calls take now."""
        return sum(demand.credit for demand in self.demands)

    @property
    def takes_any_job(self) -> bool:
        """Whether any job of its queues is taken by one of its calls now."""
        return any(demand.takes_any_job for demand in self.demands)

    async def look(self) -> None:
        """Make one pass now. It is finished even if the caller is cancelled: a claim that was
        committed must reach the calls that it was for."""
        one_pass = asyncio.create_task(self.run_once(), name="dispatch")
        self._passes.add(one_pass)
        one_pass.add_done_callback(self._passes.discard)
        try:
            await asyncio.shield(one_pass)
        except asyncio.CancelledError:
            one_pass.add_done_callback(_log_failure)
            raise

    async def run_once(self) -> bool:
        """Claim and deal until nobody wants more or nothing is left. True: look again at once."""
        async with self.turn:
            self.took_all = False
            passing_on, self._to_pass_on = self._to_pass_on, set()
            satisfied = False
            try:
                more = await self._claim_until_satisfied()
                satisfied = self.takes_any_job
            finally:
                if not satisfied:
                    self._pass_on(passing_on)
                self.look_again_for_busy_sessions()
        return more

    def _pass_on(self, queue_ids: Iterable[UUID]) -> None:
        keys = [str(queue_id) for queue_id in queue_ids]
        if keys:
            self._notifier.notify("ready", *keys)

    async def _claim_until_satisfied(self) -> bool:
        tried: list[UUID] = []
        full: set[UUID] = set()
        stuck: list[Demand] = []
        per_source = 0
        got_all = True
        for _ in range(MAX_ROUNDS):
            takers = [each for each in self.takers() if not any(each is one for one in stuck)]
            wanted = min(self._most, sum(demand.credit for demand in takers))
            if wanted == 0:
                return False
            per_source = min(wanted, max(per_source, self._first_per_source(wanted)))
            largest = max(demand.max_message_bytes for demand in takers)
            sees_all = largest >= LARGEST_MESSAGE_BYTES
            picked = await self._claimer.pick(
                self.subscription, per_source, wanted, tried, list(full), largest
            )
            self._sources_seen = max(1, len({candidate.source for candidate in picked}))
            sure, more_may_follow = certain(picked, per_source)
            if len(picked) < MAX_CLAIM:
                # Perhaps all that there is: nobody is to wait while another has much of it.
                dealt, without_bytes = deal(sure, takers)
            else:
                takers.sort(key=lambda demand: demand.credit, reverse=True)
                dealt, without_bytes = deal(sure, takers, IN_A_ROW)
            # What comes next is theirs, and they have to wait for it; the others go on.
            stuck += without_bytes
            hands = _within(MAX_CLAIM_BYTES, dealt)
            if not hands:
                if without_bytes:
                    continue
                if not tried:
                    self.took_all = not picked and not full and sees_all
                    return False
                got_all = False
                break
            claimed = await self._claim(hands)
            full |= claimed.full
            # The pass goes on behind what others have.
            tried += claimed.lost
            got_all = len(claimed.leases) == len(hands)
            if (
                got_all
                and len(hands) == len(picked)
                and not more_may_follow
                and len(picked) < wanted
            ):
                self.took_all = not tried and not full and sees_all
                return False
            if more_may_follow:
                per_source *= 4
        if got_all:
            return True
        # Others claim the same jobs at the same time: step aside for a moment.
        self._wake_in(random.uniform(0.002, BUSY_QUEUE_SECONDS))
        return False

    def takers(self) -> list[Demand]:
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

    async def _claim(self, hands: Sequence[Hand]) -> Claimed:
        try:
            claimed = await self._claimer.claim(self.subscription.project_id, hands)
        except (asyncpg.QueryCanceledError, TimeoutError):
            # Too much for the time limit of a statement, Postgres' or behind a pooler the
            # driver's: the next try is for half of it.
            self._most = max(1, len(hands) // 2)
            raise
        self._most = min(MAX_CLAIM, 2 * self._most)
        if claimed.busy:
            # Another claim counts there right now; it takes a few milliseconds.
            self._wake_in(BUSY_QUEUE_SECONDS)
        send_all(claimed.leases)
        return claimed

    def look_again_for_busy_sessions(self) -> None:
        """A session whose row was locked for a moment wants jobs all the same."""
        if any(demand.is_paused_briefly for demand in self.demands):
            self._wake_in(BUSY_SESSION_SECONDS)

    def _wake_in(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._loop.wake)


def _within(max_bytes: int, hands: Sequence[Hand]) -> Sequence[Hand]:
    """The first hands, as many as their messages together allow; one at least."""
    total = 0
    for place, (picked, _) in enumerate(hands):
        total += picked.message_bytes
        if total > max_bytes and place > 0:
            return hands[:place]
    return hands


def _log_failure(one_pass: "asyncio.Task[bool]") -> None:
    """Of a pass that nobody waits for any more."""
    if not one_pass.cancelled() and one_pass.exception() is not None:
        log.warning("dispatch_pass_failed", error=repr(one_pass.exception()))
