"""Opens and closes lease calls: what LeaseJobs and AcquireJobs have in common."""

import asyncio
import uuid
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID
from weakref import WeakValueDictionary

from job_service.background import Background
from job_service.demanding import Demand, Leased, Subscription
from job_service.dispatching import Dispatcher
from job_service.grouping import Group
from job_service.opening import Opener, Opening
from job_service.queries import close_call
from job_service.reconciling import Reconciler
from job_service.returning import Returner
from job_service.routing import Routes
from job_service.waking import Waker
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.database_errors import DATABASE_EXCEPTIONS
from taskforge_core.errors import (
    Aborted,
    FailedPrecondition,
    PreconditionViolation,
    Unavailable,
)
from taskforge_core.ids import parse_id
from taskforge_core.projects import Projects
from taskforge_core.retrying import Released
from taskforge_core.tokens import NO_STREAM, STREAM, token_head

DEFAULT_LEASE_DURATION = timedelta(seconds=30)
DEFAULT_MAX_MESSAGE_BYTES = 4 * 1024 * 1024

CLOSE_AGAIN_AFTER_SECONDS = (0.5, 1, 2, 4, 8)
"""The pauses between tries to close a call while the database is away."""

_RETRY_ELSEWHERE = timedelta(milliseconds=100)


class Calls:
    """The lease calls of this replica, from their first to their last moment."""

    def __init__(
        self,
        database: Database,
        projects: Projects,
        routes: Routes,
        dispatcher: Dispatcher,
        reconciler: Reconciler,
        returner: Returner,
        waker: Waker,
        background: Background,
        server_id: UUID,
    ) -> None:
        self._database = database
        self._projects = projects
        self._routes = routes
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._returner = returner
        self._waker = waker
        self._background = background
        self._opener = Opener(database, server_id)
        self._is_draining = False
        self._turns: WeakValueDictionary[tuple[UUID, UUID], asyncio.Lock] = WeakValueDictionary()
        """One a session, while calls of it are being opened."""

    async def open(
        self, request: pb.LeaseJobsRequest | pb.AcquireJobsRequest
    ) -> tuple[Demand, Group]:
        """Make this the current call of its session and let it take jobs.

        Raises:
            TaskForgeError: As the contract says of the two RPCs.
        """
        if self._is_draining:
            raise server_draining()
        is_stream = isinstance(request, pb.LeaseJobsRequest)
        project = await self._projects.resolve_project(request.project_id)
        demand = await self._demand(project.id, request, is_stream=is_stream)
        turn = self._turns.setdefault((project.id, demand.session_id), asyncio.Lock())
        # One at a time, so that the call that became current last is registered last as well.
        async with turn:
            call = Opening(
                demand.session_id,
                request.worker_id,
                _lease_duration(request),
                demand.call_id,
                is_stream,
                request.max_in_flight,
            )
            opening = asyncio.create_task(self._opener.open(project, call))
            try:
                opened = await asyncio.shield(opening)
            except BaseException:
                # Whether it was opened is known only when the statement has ended.
                self._background.start("close call", self._close_after(opening, demand))
                raise
            if not opened:
                raise _session_has_stream(request.session_id)
            self._dispatcher.register(demand)
        try:
            # From here on no claim for an older call can commit, so this sees all that is held.
            await self._reconciler.reconcile(demand)
            self._waker.session_changed(demand.session_id)
            group = self._dispatcher.admit(demand)
            if self._is_draining:
                # It slipped in while the others were ended.
                demand.drain()
            return demand, group
        except BaseException:
            self.close(demand)
            raise

    def close(self, demand: Demand) -> None:
        """The call has ended: give back what it never sent, and note that it is closed."""
        self._dispatcher.remove(demand)
        unsent, demand.outbox = demand.outbox, []
        demand.give_back(unsent)
        self._background.start("close call", self._close(demand))

    async def refresh(self, demand: Demand) -> None:
        """Bring a call up to date with its session and its queues: notifications can be lost."""
        await self._reconciler.reconcile(demand)
        await self._reconciler.resubscribe([demand])

    def wake_for(self, demand: Demand) -> None:
        """Look for jobs for a call that has room again."""
        self._dispatcher.wake_for(demand)

    async def _close(self, demand: Demand) -> None:
        """Note that the call is closed; a heartbeat would believe it open until then."""
        for pause in CLOSE_AGAIN_AFTER_SECONDS:
            try:
                await close_call(
                    self._database.hot, demand.project_id, demand.session_id, demand.call_id
                )
                return
            except DATABASE_EXCEPTIONS:
                await asyncio.sleep(pause)
        await close_call(self._database.hot, demand.project_id, demand.session_id, demand.call_id)

    async def _close_after(self, opening: "asyncio.Task[bool]", demand: Demand) -> None:
        await asyncio.wait([opening])
        if not opening.cancelled() and opening.exception() is None:
            await self._close(demand)

    async def drain(self) -> None:
        """The server is leaving: open no more, and end those that are open."""
        self._is_draining = True
        self._dispatcher.drain()

    async def _demand(
        self,
        project_id: UUID,
        request: pb.LeaseJobsRequest | pb.AcquireJobsRequest,
        *,
        is_stream: bool,
    ) -> Demand:
        queue_ids = None
        if request.queues:
            queue_ids = await self._routes.resolve_all(project_id, request.queues)
        subscription = Subscription(project_id, queue_ids, tuple(sorted(set(request.job_types))))
        return Demand(
            subscription=subscription,
            session_id=parse_id(request.session_id),
            call_id=uuid.uuid4(),
            worker_id=request.worker_id,
            is_stream=is_stream,
            token_head=token_head(project_id, STREAM if is_stream else NO_STREAM),
            max_in_flight=request.max_in_flight,
            max_in_flight_bytes=request.max_in_flight_bytes,
            max_message_bytes=request.max_message_bytes or DEFAULT_MAX_MESSAGE_BYTES,
            give_back=partial(self._give_back, project_id),
            queues=tuple(request.queues),
        )

    def _give_back(self, project_id: UUID, leases: Sequence[Leased]) -> None:
        self._returner.give_back(project_id, leases, Released())


def stream_replaced(demand: Demand) -> Aborted:
    """The error that ends a call when a newer one of its session took its place."""
    return Aborted(
        "STREAM_REPLACED",
        "a newer lease call of the same session took this one's place",
        metadata={"session_id": str(demand.session_id)},
    )


def server_draining() -> Unavailable:
    """The error that ends, or refuses, calls when the server is leaving."""
    return Unavailable(
        "SERVER_DRAINING",
        "the server is leaving; call another one",
        retry_after=_RETRY_ELSEWHERE,
    )


def _session_has_stream(session_id: str) -> FailedPrecondition:
    return FailedPrecondition(
        "SESSION_HAS_STREAM",
        "the session has an open LeaseJobs stream",
        metadata={"session_id": session_id},
        precondition=PreconditionViolation(
            "SESSION_STATE", f"sessions/{session_id}", "it has an open LeaseJobs stream"
        ),
    )


def _lease_duration(request: pb.LeaseJobsRequest | pb.AcquireJobsRequest) -> timedelta:
    if not request.HasField("lease_duration"):
        return DEFAULT_LEASE_DURATION
    return request.lease_duration.ToTimedelta()
