"""How many jobs a second a project may create: one budget over all replicas.

The budget is a row in the database. A replica withdraws from it what its waiting calls want, in
one statement for all that came meanwhile, before and apart from the transaction that creates their
jobs. Once it got less than was wanted it refuses by itself, without asking, for as long as there
can be no room: a refused call costs the database nothing, however many there are.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from job_service.queries import withdraw_jobs
from taskforge_core.batching import Batcher
from taskforge_core.database import Database
from taskforge_core.errors import ResourceExhausted, TaskForgeError

PAUSE_SECONDS = 0.05
"""After a refusal the database is not asked again for so long: at most 20 times a second."""

_KEPT_SECONDS = 1.0
"""What was withdrawn and not used lapses after this time."""


@dataclass(slots=True)
class _Budget:
    """What is known here of a project's budget."""

    room: float = math.inf
    """How many jobs the latest withdrawal left."""
    counted_at: float = 0.0
    """When that was; later than it was by the database, so that a wait is never told too short."""
    asked: int = 0
    """How many are being withdrawn: they count as used until it is known."""
    closed_until: float = 0.0
    kept: int = 0
    """Withdrawn, and not used."""
    kept_until: float = 0.0

    def wait_for(self, jobs: int, limit: int, now: float, *, asked: int = 0) -> float:
        """Seconds until there can be room for so many jobs beside those that are asked for."""
        room = min(limit, self.room + limit * (now - self.counted_at)) - asked
        return max(self.closed_until - now, (min(jobs, limit) - room) / limit)

    def keep(self, jobs: int, now: float) -> None:
        """Put so many back for calls to come."""
        self.kept = jobs + (self.kept if now < self.kept_until else 0)
        self.kept_until = now + _KEPT_SECONDS

    def take_kept(self, jobs: int, now: float) -> bool:
        """Use what was kept, if that is enough."""
        if self.kept < jobs or now >= self.kept_until:
            return False
        self.kept -= jobs
        return True


@dataclass(frozen=True, slots=True)
class _Wish:
    jobs: int
    limit: int


class JobBudgets:
    """The budgets of the projects that have a quota of jobs a second."""

    def __init__(self, database: Database) -> None:
        """One instance a process."""
        self._database = database
        self._budgets: dict[UUID, _Budget] = {}
        self._withdrawals: Batcher[_Wish, None] = Batcher(self._withdraw)

    async def charge(self, project_id: UUID, limit: int, jobs: int) -> None:
        """Take so many jobs out of the project's budget.

        More than a second's worth is granted when the budget is full; it is in debt then.

        Args:
            project_id: The project.
            limit: Its quota, in jobs a second.
            jobs: How many it wants to create, all or none.

        Raises:
            ResourceExhausted: There is no room (`JOB_RATE_EXCEEDED`); says when there will be.
        """
        budget = self._budgets.setdefault(project_id, _Budget())
        now = time.monotonic()
        if budget.take_kept(jobs, now):
            return
        wait = budget.wait_for(jobs, limit, now, asked=budget.asked)
        if wait > 0:
            raise _rate_exceeded(limit, wait)
        budget.asked += jobs
        try:
            await self._withdrawals.submit(project_id, _Wish(jobs, limit))
        finally:
            budget.asked -= jobs

    def refund(self, project_id: UUID, jobs: int) -> None:
        """Give back what was taken for jobs that had been created before."""
        self._budgets[project_id].keep(jobs, time.monotonic())

    async def _withdraw(
        self, project_id: UUID, wishes: list[_Wish]
    ) -> Sequence[TaskForgeError | None]:
        limit = wishes[-1].limit
        wanted = sum(wish.jobs for wish in wishes)
        left, room = await withdraw_jobs(
            self._database.hot, project_id, limit, wanted, wishes[0].jobs
        )
        now = time.monotonic()
        budget = self._budgets[project_id]
        budget.room, budget.counted_at = room, now
        if left < wanted:
            budget.closed_until = now + PAUSE_SECONDS
        answers: list[TaskForgeError | None] = []
        for wish in wishes:
            if wish.jobs <= left:
                left -= wish.jobs
                answers.append(None)
            else:
                wait = budget.wait_for(wish.jobs, limit, now)
                answers.append(_rate_exceeded(limit, wait))
        if left:
            budget.keep(left, now)
        return answers


def _rate_exceeded(limit: int, wait_seconds: float) -> ResourceExhausted:
    return ResourceExhausted(
        "JOB_RATE_EXCEEDED",
        f"the project may create {limit} jobs a second",
        metadata={"limit": str(limit)},
        # Rounded up: whoever waits exactly as long must find the room.
        retry_after=timedelta(milliseconds=math.ceil(wait_seconds * 1000)),
    )
