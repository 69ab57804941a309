"""The real system that the model is held against: two replicas and the scheduler's passes."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from tests.integration.engine.queues import Queue
from tests.support.job_replicas import JobReplica

from queue_service.redriving import Redriver
from scheduler_service.folding import Folder
from scheduler_service.promoting import Promoter
from scheduler_service.rescuing import Rescuer
from scheduler_service.timing_out import TimeoutEnforcer
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier
from taskforge_core.projects import Projects

T = TypeVar("T")

CALL_SECONDS = 30


class World:
    """The real system: its parts, and the loop of the tests that they live in."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        database: Database,
        replicas: list[JobReplica],
        queues: dict[str, Queue],
    ) -> None:
        self._loop = loop
        self.database = database
        self.replicas = replicas
        self.queues = queues
        self.steps: Counter[str] = Counter()
        """What was done, by rule and by the status of a job that it led to."""
        notifier = Notifier(database.hot, "scheduler")
        self.promoter = Promoter(database.hot, notifier)
        self.rescuer = Rescuer(database.hot, notifier)
        self.enforcer = TimeoutEnforcer(database.hot, notifier)
        self.folder = Folder(database.hot, batch_size=7)
        self.redriver = Redriver(database, Projects(database), notifier)

    def do(self, work: Awaitable[T]) -> T:
        """Run it in the tests' loop, from the thread of the state machine."""

        async def run() -> T:
            async with asyncio.timeout(CALL_SECONDS):
                return await work

        coroutine: Coroutine[Any, Any, T] = run()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def sql(self, statement: str, *values: object) -> list[Any]:
        return list(self.do(self.database.hot.fetch(statement, *values)))

    def reset(self) -> None:
        """As if nothing had ever happened but the queues."""

        async def begin_anew() -> None:
            for replica in self.replicas:
                await replica.until_taking(0)
                await replica.server._background.idle()
            await self.database.hot.execute(
                "TRUNCATE taskforge.jobs, taskforge.job_history, taskforge.queue_counts,"
                " taskforge.queue_deltas, taskforge.sessions, taskforge.queue_starts"
            )
            await self.database.hot.execute(
                "UPDATE taskforge.queues SET is_active = true, accepts_jobs = true"
            )

        self.do(begin_anew())
