"""Puts drafts into the database as jobs, and finds out why one was not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from asyncpg import Record

from job_service.drafting import Draft
from job_service.expediting import Expediter
from job_service.queries import find_requests, insert_jobs, read_queue_rules
from job_service.routing import Routes, queue_not_found
from taskforge_core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    PreconditionViolation,
    TaskForgeError,
)
from taskforge_core.queries import Executor

_TRIES = 3
"""How often an insert is tried whose queue changed between the insert and the look at its rules."""


@dataclass(slots=True)
class Created:
    """A job that was made by this call. Hot, as `Draft` is."""

    draft: Draft
    status: int
    max_attempts: int
    created_at: int
    scheduled_for: int | None


@dataclass(frozen=True, slots=True)
class Repeated:
    """A job that an earlier call with the same request_id had made."""

    job_id: UUID


Outcome = Created | Repeated | TaskForgeError


class Inserter:
    """Inserts drafts; one statement unless something is not as usual."""

    def __init__(self, routes: Routes, expediter: Expediter) -> None:
        self._routes = routes
        self._expediter = expediter

    async def insert(
        self,
        executor: Executor,
        project_id: UUID,
        drafts: Sequence[Draft],
        *,
        may_lease: bool = False,
    ) -> list[Outcome]:
        """Insert what can be inserted; one outcome a draft.

        With `may_lease`, which is not for transactions, workers that wait get the jobs at once.
        """
        outcomes: dict[UUID, Outcome] = {}
        left = list(drafts)
        for _ in range(_TRIES):
            if not left:
                break
            for made in await self._create(executor, project_id, left, may_lease=may_lease):
                outcomes[made.draft.id] = made
            refused = [item for item in left if item.id not in outcomes]
            left = []
            if refused:
                for explained in await self._explain(executor, project_id, refused):
                    match explained:
                        case Draft():
                            left.append(explained)
                        case (job_id, outcome):
                            outcomes[job_id] = outcome
        for item in left:
            # Its queue was closed at each insert and open at each look.
            outcomes[item.id] = _queue_paused(item.spec.queue)
        return [outcomes[item.id] for item in drafts]

    async def _create(
        self, executor: Executor, project_id: UUID, drafts: Sequence[Draft], *, may_lease: bool
    ) -> list[Created]:
        by_id = {item.id: item for item in drafts}
        columns = _columns(drafts)
        if may_lease:
            rows = await self._expediter.insert(executor, project_id, drafts, columns)
            if rows is not None:
                return [
                    Created(
                        by_id[row["id"]],
                        row["status"],
                        row["max_attempts"],
                        row["created_at"],
                        row["scheduled_for"],
                    )
                    for row in rows
                ]
        return [
            Created(by_id[job_id], *told)
            for ids, *told in map(Record.values, await insert_jobs(executor, project_id, columns))
            for job_id in ids
        ]

    async def _explain(
        self, executor: Executor, project_id: UUID, drafts: Sequence[Draft]
    ) -> list[tuple[UUID, Outcome] | Draft]:
        """Why these were not inserted, as outcomes by the drafts' ids.

        Repetitions come first, whatever the queue says by now. A draft comes back where trying
        again makes sense: its queue is open by now, or its name belongs to another queue.
        """
        request_ids = [item.request_id for item in drafts if item.request_id is not None]
        requests = {}
        if request_ids:
            rows = await find_requests(executor, project_id, request_ids)
            requests = {row["request_id"]: row for row in rows}
        queue_ids = list({item.queue_id for item in drafts if item.queue_id is not None})
        rules = {row["id"]: row for row in await read_queue_rules(executor, project_id, queue_ids)}
        if len(rules) < len(queue_ids):
            self._routes.forget(project_id)
        explained: list[tuple[UUID, Outcome] | Draft] = []
        for item in drafts:
            request = requests.get(item.request_id)
            rule = rules.get(item.queue_id)
            if request is not None:
                outcome: Outcome = (
                    Repeated(request["job_ids"][0])
                    if request["content_hash"] == item.content_hash
                    else request_id_reused(str(item.request_id))
                )
            elif rule is None:
                queue_id = await self._routes.find(project_id, item.spec.queue, executor)
                if queue_id is not None and queue_id != item.queue_id:
                    explained.append(replace(item, queue_id=queue_id))
                    continue
                outcome = queue_not_found(item.spec.queue)
            elif not rule["accepts_jobs"]:
                outcome = _queue_paused(item.spec.queue)
            elif item.payload_bytes > rule["max_payload_bytes"]:
                outcome = _payload_too_large(item, rule["max_payload_bytes"])
            else:
                explained.append(item)
                continue
            explained.append((item.id, outcome))
        return explained


def _columns(drafts: Sequence[Draft]) -> list[list[object]]:
    """The insert's arrays, in the order of its parameters.

    Most jobs have most columns empty, and a value costs the driver more than the database: an array
    without values is sent as an empty one, which reads as NULL for every job.
    """
    rows = (
        (
            item.id,
            item.queue_id,
            item.job_type,
            item.payload,
            item.priority,
            item.max_attempts,
            item.scheduled_for,
            item.timeout,
            item.labels,
            item.traceparent,
            item.tracestate,
            item.request_id,
            item.content_hash,
        )
        for item in drafts
    )
    return [
        [] if column.count(None) == len(column) else list(column)
        for column in zip(*rows, strict=True)
    ]


def _queue_paused(queue: str) -> FailedPrecondition:
    return FailedPrecondition(
        "QUEUE_PAUSED",
        f"the queue {queue} is paused and takes no new jobs",
        metadata={"queue": queue},
        precondition=PreconditionViolation("QUEUE_STATE", f"queues/{queue}", "the queue is paused"),
    )


def _payload_too_large(item: Draft, limit: int) -> InvalidArgument:
    return InvalidArgument(
        "PAYLOAD_TOO_LARGE",
        f"the payload has {item.payload_bytes} bytes; the queue takes at most {limit}",
        metadata={"payload_bytes": str(item.payload_bytes), "max_payload_bytes": str(limit)},
    )


def request_id_reused(request_id: str) -> AlreadyExists:
    """The error for a request id that names a creation of another content."""
    return AlreadyExists(
        "REQUEST_ID_REUSED",
        f"the request_id {request_id} was used for a request with another content",
        metadata={"request_id": request_id},
    )
