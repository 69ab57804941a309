"""Puts the parts of one replica together and runs them."""

import uuid

from job_service.acquiring import Acquirer
from job_service.background import Background
from job_service.browsing import JobBrowser
from job_service.calling import Calls
from job_service.changing import JobChanger
from job_service.dispatching import Dispatcher
from job_service.enqueueing import Enqueuer
from job_service.expediting import Expediter
from job_service.hearing import Hearing
from job_service.heartbeating import Heartbeats
from job_service.leasing import Claimer
from job_service.reconciling import Reconciler
from job_service.replica import Replica
from job_service.returning import Returner
from job_service.routing import Routes
from job_service.servicer import JobServicer, UseCases
from job_service.settling import Settler
from job_service.staffing import Staff
from job_service.streaming import Streamer
from job_service.waking import Waker
from taskforge.v1 import job_service_pb2
from taskforge.v1.job_service_pb2_grpc import add_JobServiceServicer_to_server
from taskforge_core.access import Access
from taskforge_core.database import Database
from taskforge_core.grpc_server import GrpcServer, Service, build_server
from taskforge_core.notifications import Listener, Notifier
from taskforge_core.projects import Projects


class JobServer:
    """One job_service replica over a database, bound to its address but not yet serving."""

    def __init__(self, database: Database, address: str) -> None:
        """Build it; must be called in the event loop that will run it.

        Raises:
            CannotListen: The address cannot be bound.
        """
        settings = database.settings
        self.server_id = uuid.uuid4()
        self._background = Background()
        self._notifier = Notifier(database.hot, str(self.server_id))
        self.dispatcher = Dispatcher(Claimer(database), self._notifier, self._background)
        routes = Routes(database)
        waker = Waker(self.dispatcher, routes, self._notifier)
        returner = Returner(database, waker, self._background)
        reconciler = Reconciler(database, self.dispatcher)
        projects = Projects(database)
        browser = JobBrowser(database, projects, routes)
        calls = Calls(
            database,
            projects,
            routes,
            self.dispatcher,
            reconciler,
            returner,
            waker,
            self._background,
            self.server_id,
        )
        self.use_cases = UseCases(
            enqueuer=Enqueuer(
                database, projects, routes, browser, waker, Expediter(self.dispatcher, routes)
            ),
            browser=browser,
            changer=JobChanger(database, projects, browser, self.dispatcher, reconciler, waker),
            streamer=Streamer(calls, returner),
            acquirer=Acquirer(calls, returner),
            heartbeats=Heartbeats(database, projects, self.dispatcher, waker),
            settler=Settler(database, projects, waker),
            staff=Staff(database, projects, self.dispatcher, reconciler, waker),
        )
        servicer = JobServicer(self.use_cases)
        service = Service(
            job_service_pb2.DESCRIPTOR.services_by_name["JobService"],
            lambda server: add_JobServiceServicer_to_server(servicer, server),
        )
        self.grpc: GrpcServer = build_server(
            settings,
            address,
            [service],
            ready=database.ready,
            access=Access.of(database, projects),
        )
        self.replica = Replica(database, self.server_id, self.grpc.address)
        hearing = Hearing(self.dispatcher, reconciler, routes, self._background)
        self.listener = Listener(
            settings, hearing.hear, str(self.server_id), on_gap=hearing.catch_up
        )
        self.drain = calls.drain
        """Ends all lease calls; given to the server as its drain hook."""

    async def start(self) -> None:
        """Begin what runs beside the calls. Call it before serving."""
        self.replica.start()
        self.listener.start()

    async def stop(self) -> None:
        """End what runs beside the calls, and finish what they left to do. For after serving."""
        await self.listener.stop()
        await self.dispatcher.stop()
        for batcher in (
            self.use_cases.enqueuer.batcher,
            self.use_cases.settler.batcher,
            self.use_cases.heartbeats.batcher,
        ):
            await batcher.idle()
        await self._background.idle()
        await self._notifier.flushed()
        await self.replica.leave()
