"""Eager dispatch: new jobs are leased in the statement that creates them, where workers keep up.

It bends no rule: `insert_leased_jobs.sql` leases them only if a claim in its place would.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from asyncpg import Record

from job_service.dealing import deal
from job_service.demanding import Demand
from job_service.dispatching import Dispatcher
from job_service.drafting import Draft
from job_service.grouping import Group
from job_service.leasing import MESSAGE_OVERHEAD_BYTES, Picked
from job_service.queries import insert_leased_jobs
from job_service.routing import Routes
from job_service.seating import Sitting, send_all
from taskforge_core.queries import Executor


class Expediter:
    """Creates jobs for calls of this replica that wait for such."""

    def __init__(self, dispatcher: Dispatcher, routes: Routes) -> None:
        self._dispatcher = dispatcher
        self._routes = routes

    async def insert(
        self,
        executor: Executor,
        project_id: UUID,
        drafts: Sequence[Draft],
        columns: Sequence[Sequence[object]],
    ) -> list[Record] | None:
        """Create the jobs, lease those that calls here take, and send them.

        Args:
            executor: Not in a transaction: what is sent must be committed.
            project_id: The jobs' project.
            drafts: The jobs.
            columns: The same as `insert_jobs` takes them.

        Returns:
            The rows of those that were created; what was leased is PROCESSING. None: nothing was
            done, as nobody takes them just now. Claims will find them when they are created.
        """
        for group in self._dispatcher.idle_groups(project_id):
            wanted = self._wanted(group, drafts)
            if wanted:
                # It is free, so this does not wait, and nobody else deals until all is sent.
                async with group.turn:
                    return await _insert_for(group, executor, drafts, columns, wanted)
        return None

    def _wanted(self, group: Group, drafts: Sequence[Draft]) -> dict[UUID, Demand]:
        """Which call gets which of the jobs; none unless the group takes all that are for it.

        If there is not room for all, or one may have to wait, which of them come first is for
        a claim to find out.
        """
        job_types = group.subscription.job_types
        wanted = [
            draft
            for draft in drafts
            if draft.queue_id is not None
            and group.covers(draft.queue_id)
            and (not job_types or draft.job_type in job_types)
        ]
        project_id = group.subscription.project_id
        if not all(self._is_simple(project_id, draft) for draft in wanted):
            return {}
        # The best ones first: a worker may hold more than it runs at once.
        wanted.sort(key=lambda draft: -draft.priority)
        hands, _ = deal([_candidate(draft) for draft in wanted], group.takers())
        if len(hands) < len(wanted):
            return {}
        return {picked.id: demand for picked, demand in hands}

    def _is_simple(self, project_id: UUID, draft: Draft) -> bool:
        """Whether the job is ready at once and needs no counting, for all that is known here."""
        return (
            draft.queue_id is not None
            and draft.scheduled_for is None
            and not self._routes.may_have_limits(project_id, draft.queue_id)
        )


async def _insert_for(
    group: Group,
    executor: Executor,
    drafts: Sequence[Draft],
    columns: Sequence[Sequence[object]],
    wanted: dict[UUID, Demand],
) -> list[Record]:
    """Create the jobs, and lease the wanted ones if nothing stands against it."""
    subscription = group.subscription
    sitting = Sitting(subscription.project_id, wanted.values())
    standings, rows = await insert_leased_jobs(
        executor,
        subscription.project_id,
        columns,
        sitting.terms,
        [(job_id, call.session_id, call.worker_id) for job_id, call in wanted.items()],
        subscription.queue_ids,
        subscription.job_types,
    )
    # No pause from here on: the leases are counted as soon as they are known, and sent for sure.
    sitting.follow(standings)
    group.look_again_for_busy_sessions()
    by_id = {draft.id: draft for draft in drafts}
    leased_rows = {row["id"]: row for row in rows if row["lease_seq"] is not None}
    leases = []
    for job_id, call in wanted.items():
        if job_id in leased_rows:
            draft = by_id[job_id]
            row = _lease_row(draft, leased_rows[job_id])
            leased = sitting.lease(call, job_id, str(draft.queue_id), draft.payload_bytes, row)
            leases.append((call, leased))
    send_all(leases)
    return rows


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
