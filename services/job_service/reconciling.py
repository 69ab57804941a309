"""Compares what a call's mirror counts with the lease rows, which are the truth."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from asyncpg import Record

from job_service.demanding import Demand
from job_service.dispatching import Dispatcher
from job_service.queries import list_held_leases, list_queue_names, read_session
from taskforge_core.database import Database
from taskforge_core.queue_names import parse_queue_id
from taskforge_core.tokens import encode_token


@dataclass(frozen=True, slots=True)
class Reading:
    """What was counted when the rows began to be read, and what was dropped since;
    and how often the session's terms had changed by then."""

    demand: Demand
    known: frozenset[int]
    dropped: set[int]
    terms_changes: int


@contextmanager
def reading(demand: Demand) -> Iterator[Reading]:
    """Begin to read the rows of a call's session; use `apply` with them before it ends."""
    dropped: set[int] = set()
    demand.dropped.append(dropped)
    try:
        yield Reading(demand, frozenset(demand.held), dropped, demand.terms_changes)
    finally:
        # By identity: readings that overlap and saw the same dropped are equal.
        demand.dropped = [other for other in demand.dropped if other is not dropped]


def _nothing_is_settling(_lease_seq: int) -> bool:
    return False


def apply(
    before: Reading,
    rows: Sequence[Record],
    is_settling: Callable[[int], bool] = _nothing_is_settling,
) -> None:
    """Make the mirror agree with rows of `list_held_leases` that were read since.

    What was counted before and has no row was lost, or settled elsewhere; what is being settled
    here is left alone, as that tells it. A row that was not counted before is counted now, unless
    it was dropped meanwhile: then the row is the older news.
    """
    demand = before.demand
    held = {row["lease_seq"]: row for row in rows}
    for lease_seq in before.known - held.keys():
        if not is_settling(lease_seq):
            demand.report_lost(lease_seq)
    for lease_seq, row in held.items():
        if lease_seq in before.dropped:
            continue
        token = encode_token(demand.token_head, row["id"], lease_seq)
        demand.hold(lease_seq, token, row["payload_bytes"])
        if row["cancel_requested"]:
            demand.report_cancelled(lease_seq)


def follow(before: Reading, session: Record) -> bool:
    """Make a call go by its session's row, read since; False: read again (`Demand.set_terms`)."""
    demand = before.demand
    if session["call_id"] != demand.call_id:
        demand.replace()
        return True
    return demand.set_terms(
        session["max_in_flight"], draining=session["draining"], seen=before.terms_changes
    )


class Reconciler:
    """Looks up sessions and queues that something happened to."""

    def __init__(self, database: Database, dispatcher: Dispatcher) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._resubscribing = asyncio.Lock()

    async def reconcile(self, demand: Demand) -> None:
        """Bring a call up to date: replaced? leases lost? cancellations asked for?"""
        while not await self._reconcile_once(demand):
            pass
        self._dispatcher.wake_for(demand)

    async def _reconcile_once(self, demand: Demand) -> bool:
        project_id, session_id = demand.project_id, demand.session_id
        with reading(demand) as before:
            async with self._database.hot.acquire() as connection:
                session = await read_session(connection, project_id, session_id)
                rows = await list_held_leases(connection, project_id, [session_id])
            apply(before, rows, self._dispatcher.is_settling)
            if session is None:
                demand.replace()
                return True
            return follow(before, session)

    async def reconcile_session(self, session_id: UUID) -> None:
        """Bring the call of a session up to date, if this replica serves it."""
        for demand in self._dispatcher.demands:
            if demand.session_id == session_id:
                await self.reconcile(demand)

    async def reconcile_all(self) -> None:
        """Bring every call up to date: notifications may have been missed."""
        for demand in self._dispatcher.demands:
            await self.reconcile(demand)

    async def resubscribe(self, demands: Sequence[Demand]) -> None:
        """Let calls take jobs of the queues that their requests mean by now.

        A queue that was deleted and made again under its name is another one; a call that named it
        takes from the new one then, without having to reconnect.
        """
        by_project: dict[UUID, list[Demand]] = defaultdict(list)
        for demand in demands:
            if demand.queues:
                by_project[demand.project_id].append(demand)
        # One after the other: each reads what was committed when the last one was done.
        async with self._resubscribing:
            for project_id, naming in by_project.items():
                rows = await list_queue_names(self._database.hot, project_id)
                ids = {row["name"]: row["id"] for row in rows}
                ids |= {str(row["id"]): row["id"] for row in rows}
                for demand in naming:
                    named = {str(parse_queue_id(queue) or queue) for queue in demand.queues}
                    queue_ids = tuple(sorted(ids[queue] for queue in named & ids.keys()))
                    subscription = replace(demand.subscription, queue_ids=queue_ids)
                    if subscription != demand.subscription and not demand.is_closed:
                        self._dispatcher.move(demand, subscription)

    async def resubscribe_all(self, project_id: UUID | None = None) -> None:
        """All calls of a project, or of all projects."""
        await self.resubscribe(
            [each for each in self._dispatcher.demands if project_id in (None, each.project_id)]
        )
