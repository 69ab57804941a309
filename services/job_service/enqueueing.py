"""Creates jobs: checks them, inserts them in batches, and answers repetitions."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from job_service.admitting import Admission
from job_service.browsing import JobBrowser
from job_service.conversion import created_job
from job_service.drafting import Draft, content_hash, draft
from job_service.expediting import Expediter
from job_service.inserting import Created, Inserter, Outcome, Repeated, request_id_reused
from job_service.queries import remember_request
from job_service.routing import Routes
from job_service.waking import Waker
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.batching import Batcher
from taskforge_core.database import Database
from taskforge_core.errors import TaskForgeError, invalid_field, to_status
from taskforge_core.projects import Projects
from taskforge_core.statuses import JobStatus

OVERLAP_DRAFTS = 100
"""A batch costs as much as some dozens of its jobs: of 50 callers that create one job each, two
small batches at a time take a third more time in the server, and twice the time in the database."""


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
        expediter: Expediter,
    ) -> None:
        self._database = database
        self._projects = projects
        self._routes = routes
        self._browser = browser
        self._waker = waker
        self._inserter = Inserter(routes, expediter)
        self._admission = Admission(database)
        self.batcher: Batcher[Draft, Created | Repeated] = Batcher(
            self._insert_batch,
            overlap_items=OVERLAP_DRAFTS,
            weigh=lambda draft: draft.payload_bytes,
        )

    async def create(self, request: pb.CreateJobRequest) -> job_pb2.Job:
        """Create one job, in a batch with those of other calls.

        Raises:
            TaskForgeError: As the contract says of CreateJob.
        """
        project = await self._projects.resolve_project(request.project_id)
        project_id = project.id
        paid = await self._admission.admit(project, (request.job.request_id,))
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
                self._admission.repeated(project, paid, 1)
                found = await self._browser.find(project_id, job_id)
                return found or job_pb2.Job(id=str(job_id), project_id=str(project_id))

    async def create_batch(self, request: pb.BatchCreateJobsRequest) -> pb.BatchCreateJobsResponse:
        """Create many jobs in one transaction.

        Raises:
            TaskForgeError: As the contract says of BatchCreateJobs.
        """
        project = await self._projects.resolve_project(request.project_id)
        project_id = project.id
        _check_request_ids(request)
        paid = await self._admission.admit(
            project, [spec.request_id for spec in request.jobs], request.request_id
        )
        sent = content_hash(request) if request.request_id else b""
        if request.request_id:
            answer = await self._answer_again(project_id, request, sent)
            if answer is not None:
                self._admission.repeated(project, paid, paid)
                return answer
        drafts = await self._draft_all(project_id, request)
        try:
            outcomes = await self._create_in_transaction(project_id, request, drafts, sent)
        except _RequestKnown:
            answer = await self._answer_again(project_id, request, sent)
            if answer is not None:
                self._admission.repeated(project, paid, paid)
                return answer
            # Only its expiry in this very moment can have removed it: then nothing is repeated.
            outcomes = await self._create_in_transaction(project_id, request, drafts, sent)
        except _Refused as refused:
            refused.error.metadata["index"] = str(refused.index)
            raise refused.error from None
        repeated = sum(isinstance(outcome, Repeated) for outcome in outcomes)
        self._admission.repeated(project, paid, repeated)
        return _response(outcomes)

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
    ) -> list[Outcome]:
        good = [item for item in drafts if isinstance(item, Draft)]
        async with (
            self._admission.crowds.entry(self._database.hot, project_id, good) as (
                connection,
                beyond,
            ),
            connection.transaction(),
        ):
            for error in beyond.values():
                raise error
            inserted = iter(await self._inserter.insert(connection, project_id, good))
            outcomes: list[Outcome] = [
                next(inserted) if isinstance(item, Draft) else item for item in drafts
            ]
            if request.all_or_nothing:
                for index, outcome in enumerate(outcomes):
                    if isinstance(outcome, TaskForgeError):
                        raise _Refused(index, outcome)
            if request.request_id:
                failed = any(isinstance(outcome, TaskForgeError) for outcome in outcomes)
                remembered = await remember_request(
                    connection,
                    project_id,
                    request.request_id,
                    sent,
                    [_job_id(outcome) for outcome in outcomes],
                    _response(outcomes).SerializeToString() if failed else None,
                )
                if not remembered:
                    raise _RequestKnown
        self._wake(project_id, outcomes)
        return outcomes

    async def _answer_again(
        self, project_id: UUID, request: pb.BatchCreateJobsRequest, sent: bytes
    ) -> pb.BatchCreateJobsResponse | None:
        row = await self._admission.find_request(project_id, request.request_id)
        if row is None:
            return None
        if row["content_hash"] != sent:
            raise request_id_reused(request.request_id)
        if row["errors"] is not None:
            return pb.BatchCreateJobsResponse.FromString(row["errors"])
        return pb.BatchCreateJobsResponse(
            results=[pb.CreatedJob(job_id=str(job_id)) for job_id in row["job_ids"]]
        )

    async def _insert_batch(self, project_id: UUID, drafts: list[Draft]) -> list[Outcome]:
        """Insert the jobs of several calls; one statement unless something is not as usual."""
        async with self._admission.crowds.entry(self._database.hot, project_id, drafts) as (
            connection,
            beyond,
        ):
            fitting = [item for item in drafts if item.id not in beyond]
            inserted = iter(
                await self._inserter.insert(
                    connection,
                    project_id,
                    fitting,
                    may_lease=not connection.is_in_transaction(),
                )
            )
        outcomes = [beyond.get(item.id) or next(inserted) for item in drafts]
        self._wake(project_id, outcomes)
        return outcomes

    def _wake(self, project_id: UUID, outcomes: Iterable[Outcome]) -> None:
        ready = {
            outcome.draft.queue_id
            for outcome in outcomes
            if isinstance(outcome, Created)
            and outcome.status == JobStatus.PENDING
            and outcome.draft.queue_id is not None
        }
        self._waker.jobs_ready(project_id, ready)


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
    response = pb.BatchCreateJobsResponse()
    add = response.results.add
    for outcome in outcomes:
        if isinstance(outcome, TaskForgeError):
            add(error=to_status(outcome))
        else:
            add(job_id=str(_job_id(outcome)))
    return response
