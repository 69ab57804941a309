"""Settles leased jobs: each by its token, in batches over all calls that come together."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from uuid import UUID

from job_service.queries import find_settled
from job_service.waking import Waker
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.batching import Batcher
from taskforge_core.database import Database
from taskforge_core.ending import EndedLease, LeaseKey, end_leases
from taskforge_core.errors import Aborted, TaskForgeError, to_status
from taskforge_core.ids import parse_id
from taskforge_core.json_documents import check_json
from taskforge_core.projects import Projects
from taskforge_core.retrying import Ending, Failed, Released, Snoozed, Succeeded
from taskforge_core.statuses import STATUS_OF, JobStatus
from taskforge_core.tokens import NO_STREAM, LeaseToken, decode_token


@dataclass(slots=True)
class Settle:
    """One settlement: whose lease, and how it ended. Hot, and so not frozen."""

    token: LeaseToken
    ending: Ending
    size: int = 0
    """How many bytes of documents it brings."""
    key: LeaseKey = field(init=False)
    """What the lease is found by."""

    def __post_init__(self) -> None:
        """Make the key once."""
        self.key = (self.token.job_id, self.token.lease_seq)


Answer = JobStatus | TaskForgeError


class Settler:
    """CompleteJob, FailJob, ReleaseJob and BatchSettleJobs."""

    def __init__(self, database: Database, projects: Projects, waker: Waker) -> None:
        self._database = database
        self._projects = projects
        self._waker = waker
        self.batcher: Batcher[Settle, JobStatus] = Batcher(
            self._settle_batch, weigh=lambda item: item.size
        )

    async def settle(self, settlement: pb.Settlement) -> job_pb2.JobStatus.ValueType:
        """Settle one lease, in a batch with those of other calls.

        Raises:
            TaskForgeError: As the contract says of the single calls.
        """
        item = _settle(settlement)
        project_id = _project_id(item.token.project_id)
        if not await self._projects.sees(project_id):
            raise lease_lost(item.token)
        status = await self.batcher.submit(project_id, item)
        return job_pb2.JobStatus.ValueType(status)

    async def settle_batch(self, request: pb.BatchSettleJobsRequest) -> pb.BatchSettleJobsResponse:
        """Settle many leases, each with a status of its own."""
        answers: list[Answer | None] = [None] * len(request.settlements)
        places: dict[str, list[int]] = defaultdict(list)
        items: dict[str, list[Settle]] = defaultdict(list)
        for place, settlement in enumerate(request.settlements):
            try:
                item = _settle(settlement, place)
            except TaskForgeError as error:
                answers[place] = error
                continue
            places[item.token.project_id].append(place)
            items[item.token.project_id].append(item)
        batches = await asyncio.gather(
            *(self._settle_all(_project_id(project), batch) for project, batch in items.items())
        )
        for own_places, own_answers in zip(places.values(), batches, strict=True):
            for place, answer in zip(own_places, own_answers, strict=True):
                answers[place] = answer
        response = pb.BatchSettleJobsResponse()
        add = response.results.add
        for told in answers:
            if isinstance(told, TaskForgeError):
                add(error=to_status(told))
            else:
                add(status=job_pb2.JobStatus.ValueType(told or 0))
        return response

    async def _settle_all(self, project_id: UUID, items: list[Settle]) -> Sequence[Answer]:
        """Settle leases of one project, or find them lost where the caller cannot see it."""
        if not await self._projects.sees(project_id):
            return [lease_lost(item.token) for item in items]
        return await self.batcher.submit_all(project_id, items)

    async def _settle_batch(self, project_id: UUID, items: list[Settle]) -> Sequence[Answer]:
        # Of equal tokens the first wins; the others get the answer that a later repeat would.
        endings: dict[LeaseKey, Ending] = {}
        for item in items:
            endings.setdefault(item.key, item.ending)
        with self._waker.settling({lease_seq for _, lease_seq in endings}):
            statuses = await self._end(project_id, items, endings)
        return [
            statuses[item.key] if item.key in statuses else lease_lost(item.token) for item in items
        ]

    async def _end(
        self, project_id: UUID, items: list[Settle], endings: dict[LeaseKey, Ending]
    ) -> dict[LeaseKey, JobStatus]:
        """The answer for each lease that was settled, now or before, and tells who counts them."""
        async with self._database.hot.acquire() as connection:
            if all(isinstance(ending, Succeeded) for ending in endings.values()):
                # One statement: it needs no transaction around it.
                ended = await end_leases(connection, project_id, endings, answered=True)
            else:
                async with connection.transaction():
                    ended = await end_leases(connection, project_id, endings, answered=True)
            statuses = {lease.key: lease.status for lease in ended}
            missing = [key for key in endings if key not in statuses]
            if missing:
                # A statement of its own, so that it sees whatever ended these leases.
                rows = await find_settled(
                    connection, project_id, [key[0] for key in missing], [key[1] for key in missing]
                )
                for row in rows:
                    statuses[row["id"], row["lease_seq"]] = STATUS_OF[row["status"]]
        self._tell(project_id, items, ended)
        if missing:
            self._waker.leases_gone(project_id, missing)
        return statuses

    def _tell(self, project_id: UUID, items: Sequence[Settle], ended: Sequence[EndedLease]) -> None:
        streamed = {item.key for item in items if item.token.tag != NO_STREAM}
        self._waker.leases_ended(project_id, ended, counted=streamed)


def lease_lost(token: LeaseToken) -> Aborted:
    """The error for a token whose lease is no longer held."""
    return Aborted("LEASE_LOST", "the lease is no longer held", metadata={"job": token.job_id})


@lru_cache(maxsize=4096)
def _project_id(hexadecimal: str) -> UUID:
    return parse_id(hexadecimal)


def _settle(settlement: pb.Settlement, place: int | None = None) -> Settle:
    """What a settlement says, after checking it.

    Args:
        settlement: The settlement.
        place: Where it stands in its batch; None: it is a single call, whose fields errors name.

    Raises:
        InvalidArgument: `INVALID_LEASE_TOKEN` or `INVALID_JSON`.
    """
    token = decode_token(settlement.lease_token)
    match settlement.WhichOneof("outcome"):
        case "success":
            result = settlement.success.result
            if not result:
                return Settle(token, Succeeded())
            check_json(result, "result" if place is None else f"{_path(place)}success.result")
            return Settle(token, Succeeded(result), len(result))
        case "failure":
            failed = _failed(settlement.failure, _path(place))
            return Settle(token, failed, len(failed.message) + len(failed.detail))
        case "snooze":
            return Settle(token, Snoozed(settlement.snooze.delay.ToTimedelta()))
        case _:
            return Settle(token, Released())


def _path(place: int | None) -> str:
    return "" if place is None else f"settlements[{place}]."


def _failed(failure: pb.Failure, path: str) -> Failed:
    if failure.detail:
        check_json(failure.detail, f"{path}failure.detail")
    return Failed(
        message=failure.message,
        detail=failure.detail,
        retryable=failure.retryable if failure.HasField("retryable") else True,
        retry_after=failure.retry_after.ToTimedelta() if failure.HasField("retry_after") else None,
    )
