"""CancelJob and RetryJob: what people do to single jobs."""

from uuid import UUID

from job_service.browsing import JobBrowser, job_not_found
from job_service.dispatching import Dispatcher
from job_service.queries import lock_job, request_cancel, revive_job
from job_service.reconciling import Reconciler
from job_service.routing import queue_not_found
from job_service.waking import Waker
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.errors import (
    FailedPrecondition,
    PreconditionViolation,
    TaskForgeError,
)
from taskforge_core.projects import Projects
from taskforge_core.queries import cancel_waiting_jobs
from taskforge_core.retrying import MAX_ATTEMPTS
from taskforge_core.statuses import WAITING, JobStatus


class JobChanger:
    """Changes a job's course from outside its attempts."""

    def __init__(
        self,
        database: Database,
        projects: Projects,
        browser: JobBrowser,
        dispatcher: Dispatcher,
        reconciler: Reconciler,
        waker: Waker,
    ) -> None:
        self._database = database
        self._projects = projects
        self._browser = browser
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._waker = waker

    async def cancel(self, request: pb.CancelJobRequest) -> job_pb2.Job:
        """Cancel a waiting job; ask for the cancellation of a running one.

        Raises:
            TaskForgeError: As the contract says of CancelJob.
        """
        project_id = await self._projects.resolve(request.project_id)
        job_id = UUID(request.job_id)
        running_in: UUID | None = None
        is_unfinished = True
        async with self._database.hot.acquire() as connection, connection.transaction():
            row = await lock_job(connection, project_id, job_id)
            if row is None:
                is_unfinished = False
            elif row["status"] in WAITING:
                await cancel_waiting_jobs(connection, project_id, [request.job_id])
            elif not request.interrupt_running:
                raise _job_running(request.job_id)
            else:
                await request_cancel(connection, project_id, job_id)
                running_in = row["session_id"]
        if running_in is not None:
            await self._tell(project_id, running_in)
        job = await self._job(project_id, job_id)
        if not is_unfinished and job.status != job_pb2.JOB_STATUS_CANCELLED:
            raise _job_finished(job)
        return job

    async def retry(self, request: pb.RetryJobRequest) -> job_pb2.Job:
        """Make a failed job ready again.

        Raises:
            TaskForgeError: As the contract says of RetryJob.
        """
        project_id = await self._projects.resolve(request.project_id)
        job_id = UUID(request.job_id)
        queue_id = await revive_job(
            self._database.hot, project_id, job_id, request.additional_attempts
        )
        if queue_id is not None:
            # First, as the job is ready now whether or not it can be shown.
            self._waker.jobs_ready(project_id, [queue_id])
        job = await self._job(project_id, job_id)
        if queue_id is None:
            raise _not_retried(job, request.additional_attempts)
        return job

    async def _job(self, project_id: UUID, job_id: UUID) -> job_pb2.Job:
        job = await self._browser.find(project_id, job_id)
        if job is None:
            raise job_not_found(str(job_id))
        return job

    async def _tell(self, project_id: UUID, session_id: UUID) -> None:
        demand = self._dispatcher.of_session(project_id, session_id)
        if demand is None:
            self._waker.session_changed(session_id)
        else:
            await self._reconciler.reconcile(demand)


def _job_running(job_id: str) -> FailedPrecondition:
    return _forbidden("JOB_RUNNING", job_id, "is running; interrupt_running asks it to stop")


def _job_finished(job: job_pb2.Job) -> FailedPrecondition:
    status = JobStatus(job.status).name
    return _forbidden("JOB_FINISHED", job.id, f"has ended as {status}", status=status)


def _not_retried(job: job_pb2.Job, additional_attempts: int) -> TaskForgeError:
    """Why `revive_job` did not find the job as it must be."""
    status = JobStatus(job.status)
    if status is not JobStatus.FAILED:
        return _forbidden("JOB_NOT_FAILED", job.id, f"is {status.name}", status=status.name)
    if job.dead_letter_job_id:
        return _forbidden(
            "JOB_DEAD_LETTERED",
            job.id,
            f"lives on as {job.dead_letter_job_id} in a dead-letter queue",
            dead_letter_job=job.dead_letter_job_id,
        )
    allowed = job.max_attempts + additional_attempts
    if job.attempt_count >= allowed or allowed > MAX_ATTEMPTS:
        return _forbidden(
            "NO_ATTEMPTS_LEFT",
            job.id,
            f"has used {job.attempt_count} of {job.max_attempts} attempts; additional_attempts"
            f" gives it more, up to {MAX_ATTEMPTS} in all",
            attempt_count=str(job.attempt_count),
            max_attempts=str(job.max_attempts),
        )
    return queue_not_found(job.queue_id)


def _forbidden(reason: str, job_id: str, what: str, **metadata: str) -> FailedPrecondition:
    return FailedPrecondition(
        reason,
        f"the job {job_id} {what}",
        metadata={"job": job_id, **metadata},
        precondition=PreconditionViolation("JOB_STATE", f"jobs/{job_id}", f"the job {what}"),
    )
