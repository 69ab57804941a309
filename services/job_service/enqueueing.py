"""Creates jobs: checks them, inserts them in batches, and answers repetitions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from job_service.browsing import JobBrowser
from job_service.conversion import created_job
from job_service.drafting import Draft, content_hash, draft
from job_service.queries import find_requests, insert_jobs, read_queue_rules, remember_request
from job_service.routing import Routes, queue_not_found
from job_service.waking import Waker
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.batching import Batcher
from taskforge_core.database import Database
from taskforge_core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    PreconditionViolation,
    TaskForgeError,
    invalid_field,
    to_status,
)
from taskforge_core.projects import Projects
from taskforge_core.queries import Executor
from taskforge_core.statuses import JobStatus

_TRIES = 3
"""How often an insert is tried whose queue changed between the insert and the look at its rules."""


@dataclass(frozen=True, slots=True)
class Created:
    """A job that was made by this call."""

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


class _RequestKnown(Exception):
    """Another creation has this request_id: undo and answer as it was answered."""


class _Refused(Exception):
    """An item of an all-or-nothing batch was refused: undo the others."""

    def __init__(self, index: int, error: TaskForgeError) -> None:
        super().__init__(str(error))
        self.index = index
        self.error = error


class Enqueuer:
    """CreateJob and BatchCreateJobs."""

    def __init__(
        self,
        database: Database,
        projects: Projects,
        routes: Routes,
        browser: JobBrowser,
        waker: Waker,
    ) -> None:
        self._database = database
        self._projects = projects
        self._routes = routes
        self._browser = browser
        self._waker = waker
        self.batcher: Batcher[Draft, Created | Repeated] = Batcher(
            self._insert_batch, weigh=lambda draft: draft.payload_bytes
        )

    async def create(self, request: pb.CreateJobRequest) -> job_pb2.Job:
        """Create one job, in a batch with those of other calls.

        Raises:
            TaskForgeError: As the contract says of CreateJob.
        """
        project_id = await self._projects.resolve(request.project_id)
        made = draft(request.job, await self._routes.find(project_id, request.job.queue), "job")
        outcome = await self.batcher.submit(project_id, made)
        match outcome:
            case Created():
                return created_job(
                    project_id,
                    outcome.draft,
                    outcome.status,
                    outcome.max_attempts,
                    outcome.created_at,
                    outcome.scheduled_for,
                )
            case Repeated(job_id):
                found = await self._browser.find(project_id, job_id)
                return found or job_pb2.Job(id=str(job_id), project_id=str(project_id))

    async def create_batch(self, request: pb.BatchCreateJobsRequest) -> pb.BatchCreateJobsResponse:
        """Create many jobs in one transaction.

        Raises:
            TaskForgeError: As the contract says of BatchCreateJobs.
        """
        project_id = await self._projects.resolve(request.project_id)
        _check_request_ids(request)
        sent = content_hash(request) if request.request_id else b""
        if request.request_id:
            answer = await self._answer_again(project_id, request, sent)
            if answer is not None:
                return answer
        drafts = await self._draft_all(project_id, request)
        try:
            return await self._create_in_transaction(project_id, request, drafts, sent)
        except _RequestKnown:
            answer = await self._answer_again(project_id, request, sent)
            # Only its expiry in this very moment can have removed it: then nothing is repeated.
            return answer or await self._create_in_transaction(project_id, request, drafts, sent)
        except _Refused as refused:
            refused.error.metadata["index"] = str(refused.index)
            raise refused.error from None

    async def _draft_all(
        self, project_id: UUID, request: pb.BatchCreateJobsRequest
    ) -> list[Draft | TaskForgeError]:
        queue_ids = {
            queue: await self._routes.find(project_id, queue)
            for queue in {spec.queue for spec in request.jobs}
        }
        drafts: list[Draft | TaskForgeError] = []
        for index, spec in enumerate(request.jobs):
            try:
                drafts.append(draft(spec, queue_ids[spec.queue], f"jobs[{index}]"))
            except TaskForgeError as error:
                drafts.append(error)
        return drafts

    async def _create_in_transaction(
        self,
        project_id: UUID,
        request: pb.BatchCreateJobsRequest,
        drafts: Sequence[Draft | TaskForgeError],
        sent: bytes,
    ) -> pb.BatchCreateJobsResponse:
        async with self._database.hot.acquire() as connection, connection.transaction():
            good = [item for item in drafts if isinstance(item, Draft)]
            inserted = iter(await self._insert(connection, project_id, good))
            outcomes: list[Outcome] = [
                next(inserted) if isinstance(item, Draft) else item for item in drafts
            ]
            if request.all_or_nothing:
                for index, outcome in enumerate(outcomes):
                    if isinstance(outcome, TaskForgeError):
                        raise _Refused(index, outcome)
            response = _response(outcomes)
            if request.request_id:
                failed = any(isinstance(outcome, TaskForgeError) for outcome in outcomes)
                remembered = await remember_request(
                    connection,
                    project_id,
                    request.request_id,
                    sent,
                    [_job_id(outcome) for outcome in outcomes],
                    response.SerializeToString() if failed else None,
                )
                if not remembered:
                    raise _RequestKnown
        self._wake(project_id, outcomes)
        return response

    async def _answer_again(
        self, project_id: UUID, request: pb.BatchCreateJobsRequest, sent: bytes
    ) -> pb.BatchCreateJobsResponse | None:
        rows = await find_requests(self._database.hot, project_id, [request.request_id])
        if not rows:
            return None
        row = rows[0]
        if row["content_hash"] != sent:
            raise _request_id_reused(request.request_id)
        if row["errors"] is not None:
            return pb.BatchCreateJobsResponse.FromString(row["errors"])
        return pb.BatchCreateJobsResponse(
            results=[pb.CreatedJob(job_id=str(job_id)) for job_id in row["job_ids"]]
        )

    async def _insert_batch(self, project_id: UUID, drafts: list[Draft]) -> list[Outcome]:
        """Insert the jobs of several calls; one statement unless something is not as usual."""
        async with self._database.hot.acquire() as connection:
            outcomes = await self._insert(connection, project_id, drafts)
        self._wake(project_id, outcomes)
        return outcomes

    async def _insert(
        self, executor: Executor, project_id: UUID, drafts: Sequence[Draft]
    ) -> list[Outcome]:
        outcomes: dict[UUID, Outcome] = {}
        left = list(drafts)
        for _ in range(_TRIES):
            if not left:
                break
            rows = {
                row["id"]: row for row in await insert_jobs(executor, project_id, _columns(left))
            }
            for item in left:
                row = rows.get(item.id)
                if row is not None:
                    outcomes[item.id] = Created(
                        item,
                        row["status"],
                        row["max_attempts"],
                        row["created_at"],
                        row["scheduled_for"],
                    )
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
                    else _request_id_reused(str(item.request_id))
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

    def _wake(self, project_id: UUID, outcomes: Iterable[Outcome]) -> None:
        ready = {
            outcome.draft.queue_id
            for outcome in outcomes
            if isinstance(outcome, Created)
            and outcome.status == JobStatus.PENDING
            and outcome.draft.queue_id is not None
        }
        self._waker.jobs_ready(project_id, ready)


def _columns(drafts: Sequence[Draft]) -> list[list[object]]:
    """The insert's arrays, in the order of its parameters."""
    rows = (
        (
            item.id,
            item.queue_id,
            item.job_type,
            item.payload,
            item.payload_bytes,
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
    return [list(column) for column in zip(*rows, strict=True)]


def _job_id(outcome: Outcome) -> UUID | None:
    match outcome:
        case Created(made):
            return made.id
        case Repeated(job_id):
            return job_id
        case _:
            return None


def _check_request_ids(request: pb.BatchCreateJobsRequest) -> None:
    """No item may bear the call's own id, which would then name two things."""
    if request.request_id:
        for index, spec in enumerate(request.jobs):
            if spec.request_id == request.request_id:
                raise invalid_field(
                    f"jobs[{index}].request_id", "must differ from the call's request_id"
                )


def _response(outcomes: Iterable[Outcome]) -> pb.BatchCreateJobsResponse:
    return pb.BatchCreateJobsResponse(
        results=[
            pb.CreatedJob(error=to_status(outcome))
            if isinstance(outcome, TaskForgeError)
            else pb.CreatedJob(job_id=str(_job_id(outcome)))
            for outcome in outcomes
        ]
    )


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


def _request_id_reused(request_id: str) -> AlreadyExists:
    return AlreadyExists(
        "REQUEST_ID_REUSED",
        f"the request_id {request_id} was used for a request with another content",
        metadata={"request_id": request_id},
    )
