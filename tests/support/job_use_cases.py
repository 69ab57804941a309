"""The use cases of JobService, put together as its process does, without a server.

No loop runs and nothing is heard: tests call each pass themselves.
"""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from job_service.background import Background
from job_service.browsing import JobBrowser
from job_service.demanding import Demand, Leased
from job_service.dispatching import Dispatcher
from job_service.enqueueing import Enqueuer
from job_service.expediting import Expediter
from job_service.grouping import Group
from job_service.heartbeating import Heartbeats
from job_service.leasing import Claimer
from job_service.queries import open_call, update_session
from job_service.reconciling import Reconciler
from job_service.routing import Routes
from job_service.settling import Settler
from job_service.waking import Waker
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier
from taskforge_core.projects import Projects
from taskforge_core.settings import Settings


@dataclass(frozen=True)
class JobUseCases:
    """One process of the service."""

    database: Database
    server_id: UUID
    background: Background
    claimer: Claimer
    notifier: Notifier
    dispatcher: Dispatcher
    reconciler: Reconciler
    routes: Routes
    browser: JobBrowser
    enqueuer: Enqueuer
    heartbeats: Heartbeats
    settler: Settler

    async def open(
        self,
        *demands: Demand,
        is_stream: bool = True,
        lease_duration: timedelta = timedelta(seconds=30),
    ) -> None:
        """Make each the current call of its session and count its leases; it takes no job yet."""
        for demand in demands:
            assert await open_call(
                self.database.hot,
                demand.project_id,
                demand.session_id,
                demand.worker_id,
                lease_duration,
                demand.call_id,
                is_stream,
                self.server_id,
                demand.max_in_flight,
            )
            self.dispatcher.register(demand)

    async def allow(self, demand: Demand, max_in_flight: int) -> None:
        """Let the session hold so many jobs from now on."""
        await update_session(
            self.database.hot, demand.project_id, demand.session_id, max_in_flight, None
        )
        await self.reconciler.reconcile(demand)

    def deliver(self, demand: Demand) -> list[Leased]:
        """Send all that waits in the call's outbox, as its stream does."""
        leases = demand.take(len(demand.outbox))
        demand.sent(leases)
        return leases

    def group(self, *demands: Demand) -> Group:
        """The calls as one group, whose passes are the test's to run."""
        group = Group(demands[0].subscription, self.claimer, self.notifier)
        group.demands.extend(demands)
        return group

    async def beat(
        self, demand: Demand, sequence: int, held: Sequence[str | pb.HeldLease] = ()
    ) -> pb.HeartbeatResponse:
        """A heartbeat of the call's session that lists these tokens, or leases with progress."""
        listed = [
            each if isinstance(each, pb.HeldLease) else pb.HeldLease(lease_token=each)
            for each in held
        ]
        return await self.heartbeats.beat(
            pb.HeartbeatRequest(
                project_id=str(demand.project_id),
                session_id=str(demand.session_id),
                sequence=sequence,
                held=listed,
            )
        )


async def run(group: Group) -> None:
    """Passes until one says that there is no more to do now."""
    while await group.run_once():
        pass


def is_woken(group: Group) -> bool:
    """Whether the group was asked for a pass; nothing clears it but the test."""
    return bool(group._loop._woken.is_set())


@asynccontextmanager
async def job_use_cases(settings: Settings, name: str) -> AsyncIterator[JobUseCases]:
    """A replica with connections of its own."""
    database = await Database.open(settings, application_name=name)
    background = Background()
    notifier = Notifier(database.hot, origin=name)
    claimer = Claimer(database)
    dispatcher = Dispatcher(claimer, notifier, background)
    routes = Routes(database)
    waker = Waker(dispatcher, routes, notifier)
    projects = Projects(database)
    browser = JobBrowser(database, projects, routes)
    try:
        yield JobUseCases(
            database=database,
            server_id=uuid.uuid4(),
            background=background,
            claimer=claimer,
            notifier=notifier,
            dispatcher=dispatcher,
            reconciler=Reconciler(database, dispatcher),
            routes=routes,
            browser=browser,
            enqueuer=Enqueuer(
                database, projects, routes, browser, waker, Expediter(dispatcher, routes)
            ),
            heartbeats=Heartbeats(database, projects, dispatcher, waker),
            settler=Settler(database, projects, waker),
        )
        await background.idle()
        await notifier.flushed()
    finally:
        await database.close()
