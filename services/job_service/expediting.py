"""Eager dispatch: new jobs are leased in the statement that creates them, where workers keep up.

It bends no rule: `insert_leased_jobs.sql` leases them only if a claim in its place would.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from asyncpg import Record

from job_service.dealing import deal
from job_service.demanding import Leased
from job_service.dispatching import Dispatcher
from job_service.drafting import Draft
from job_service.grouping import Group
from job_service.leasing import MESSAGE_OVERHEAD_BYTES, Hand, Picked
from job_service.queries import insert_leased_jobs
from job_service.routing import Routes
from job_service.seating import Sitting
from taskforge_core.queries import Executor


class Offer:
    """New jobs, dealt to calls that are nobody else's to deal to until it is over."""

    def __init__(self, group: Group, hands: Sequence[Hand]) -> None:
        self._subscription = group.subscription
        self._calls = {picked.id: demand for picked, demand in hands}
        self._sitting = Sitting(self._subscription.project_id, self._calls.values())
        self._leased: list[tuple[Draft, Record]] = []

    @property
    def stands(self) -> bool:
        """Whether the calls still take what they were dealt."""
        return self._sitting.is_as_dealt

    async def insert(
        self, executor: Executor, drafts: Sequence[Draft], columns: Sequence[Sequence[object]]
    ) -> list[Record]:
        """Create the jobs, and lease those that were dealt if nothing stands against it.

        Returns:
            The rows of those that were created; what was leased is PROCESSING.
        """
        standings, rows = await insert_leased_jobs(
            executor,
            self._subscription.project_id,
            columns,
            self._sitting.terms,
            [(job_id, call.session_id, call.worker_id) for job_id, call in self._calls.items()],
            self._subscription.queue_ids,
            self._subscription.job_types,
        )
        self._sitting.follow(standings)
        by_id = {draft.id: draft for draft in drafts}
        self._leased = [(by_id[row["id"]], row) for row in rows if row["lease_seq"] is not None]
        return rows

    def deliver(self) -> None:
        """Send what was leased to its calls: it is committed."""
        parcels: dict[UUID, list[Leased]] = defaultdict(list)
        for draft, row in self._leased:
            call = self._calls[draft.id]
            leased = self._sitting.lease(
                call, draft.id, str(draft.queue_id), draft.payload_bytes, _lease_row(draft, row)
            )
            parcels[call.session_id].append(leased)
        calls = {call.session_id: call for call in self._calls.values()}
        for session_id, parcel in parcels.items():
            calls[session_id].send(parcel)


class Expediter:
    """Finds calls of this replica for jobs that are about to be created."""

    def __init__(self, dispatcher: Dispatcher, routes: Routes) -> None:
        self._dispatcher = dispatcher
        self._routes = routes

    @asynccontextmanager
    async def offer(self, project_id: UUID, drafts: Sequence[Draft]) -> AsyncIterator[Offer | None]:
        """Deal those of the jobs that a group of calls takes, if it takes them all and waits for
        such; None: create them as ever, and claims will find them."""
        for group in self._dispatcher.idle_groups(project_id):
            wanted = [draft for draft in drafts if self._suits(group, draft)]
            hands, _ = deal([_candidate(draft) for draft in wanted], group.takers())
            # If there is not room for all, which of them come first is for a claim to find out.
            if hands and len(hands) == len(wanted):
                async with group.turn:
                    yield Offer(group, hands)
                return
        yield None

    def _suits(self, group: Group, draft: Draft) -> bool:
        """Whether the group takes the job now, for all that is known here."""
        job_types = group.subscription.job_types
        return (
            draft.queue_id is not None
            and draft.scheduled_for is None
            and group.covers(draft.queue_id)
            and (not job_types or draft.job_type in job_types)
            and not self._routes.may_have_limits(draft.queue_id)
        )


def _candidate(draft: Draft) -> Picked:
    assert draft.queue_id is not None
    labels_bytes = len(draft.labels.encode()) if draft.labels else 0
    return Picked(
        draft.id,
        draft.queue_id,
        draft.queue_id,
        draft.payload_bytes,
        draft.payload_bytes + labels_bytes + MESSAGE_OVERHEAD_BYTES,
        has_limits=False,
    )


def _lease_row(draft: Draft, row: Record) -> dict[str, Any]:
    """What `claim_jobs` would tell of the job."""
    return {
        "id": draft.id,
        "lease_seq": row["lease_seq"],
        "job_type": draft.job_type,
        "payload": draft.payload,
        "priority": draft.priority,
        "max_attempts": row["max_attempts"],
        "attempt_count": 1,
        "created_at": row["created_at"],
        "started_at": row["created_at"],
        "scheduled_for": row["scheduled_for"],
        "timeout_at": row["timeout_at"],
        "timeout": draft.timeout,
        "progress": None,
        "labels": draft.labels,
        "traceparent": draft.traceparent,
        "tracestate": draft.tracestate,
        "origin_job_id": None,
    }
