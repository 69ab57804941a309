"""Whether its quotas let a project create jobs, asked before anything is made of a request."""

from collections.abc import Sequence
from uuid import UUID

from asyncpg import Record

from job_service.budgeting import JobBudgets
from job_service.crowding import Crowds
from job_service.queries import find_requests
from taskforge_core.batching import Batcher
from taskforge_core.database import Database
from taskforge_core.errors import ResourceExhausted, TaskForgeError
from taskforge_core.projects import Project


class Admission:
    """The quotas of new jobs of all projects; those without quotas pay nothing.

    A creation that is repeated costs nothing, and is answered however full the project is. One that
    is refused for another reason has cost as much as one that was not.
    """

    def __init__(self, database: Database) -> None:
        """One instance a process, since it remembers."""
        self._database = database
        self._budgets = JobBudgets(database)
        self.crowds = Crowds()
        self._requests: Batcher[str, Record | None] = Batcher(self._find_requests)

    async def admit(self, project: Project, request_ids: Sequence[str]) -> int:
        """Let the project create jobs, all or none; returns for how many it paid.

        Args:
            project: The project.
            request_ids: One a job; empty for a job that has none.

        Raises:
            ResourceExhausted: A quota does not allow it (`JOB_RATE_EXCEEDED`,
                `TOO_MANY_UNFINISHED_JOBS`).
        """
        if not project.limits_new_jobs:
            self.crowds.forget(project.id)
            return 0
        jobs = len(request_ids)
        try:
            await self._charge(project, jobs)
            return jobs
        except ResourceExhausted:
            repeated = await self._count_repeated(project.id, request_ids)
            if not repeated:
                raise
        if repeated < jobs:
            await self._charge(project, jobs - repeated)
        return jobs - repeated

    def repeated(self, project: Project, paid: int, repeated: int) -> None:
        """Give back what was paid for jobs that turned out to be repetitions."""
        back = min(paid, repeated)
        if back and project.max_jobs_per_second is not None:
            self._budgets.refund(project.id, back)

    async def find_request(self, project_id: UUID, request_id: str) -> Record | None:
        """What an earlier creation with this request id made; asked together with other calls."""
        return await self._requests.submit(project_id, request_id)

    async def _charge(self, project: Project, jobs: int) -> None:
        if project.max_unfinished_jobs is None:
            self.crowds.forget(project.id)
        else:
            self.crowds.look(project.id, project.max_unfinished_jobs, jobs)
        if project.max_jobs_per_second is not None:
            await self._budgets.charge(project.id, project.max_jobs_per_second, jobs)

    async def _count_repeated(self, project_id: UUID, request_ids: Sequence[str]) -> int:
        named = [request_id for request_id in request_ids if request_id]
        if not named:
            return 0
        found = await self._requests.submit_all(project_id, named)
        return sum(isinstance(row, Record) for row in found)

    async def _find_requests(
        self, project_id: UUID, request_ids: list[str]
    ) -> Sequence[Record | TaskForgeError | None]:
        rows = await find_requests(self._database.hot, project_id, list(set(request_ids)))
        by_id = {row["request_id"]: row for row in rows}
        return [by_id.get(request_id) for request_id in request_ids]
