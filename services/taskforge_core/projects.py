"""Which project a call is about, whether its caller may see it, and what it may use."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from taskforge_core.callers import EVERYONE, Call, Caller, ProjectKey, current_call
from taskforge_core.database import Database
from taskforge_core.errors import (
    FailedPrecondition,
    NotFound,
    PreconditionViolation,
    ResourceExhausted,
    TaskForgeError,
    invalid_field,
)
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import find_projects
from taskforge_core.remembering import Remembered
from taskforge_core.tables import projects


@dataclass(frozen=True, slots=True)
class Project:
    """A project's rules; a quota that is None is no limit."""

    id: UUID
    is_disabled: bool
    max_jobs_per_second: int | None
    max_unfinished_jobs: int | None
    max_lease_streams: int | None
    max_request_bytes: int | None

    @property
    def limits_new_jobs(self) -> bool:
        """Whether a quota says how many jobs may be created."""
        return self.max_jobs_per_second is not None or self.max_unfinished_jobs is not None


class Projects:
    """Resolves `project_id` of requests; one instance a process, since it remembers.

    A project is looked up together with the caller's organisation, by one statement: another
    organisation's project is not found in the same way, and as fast, as one that does not exist.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._remembered: Remembered[ProjectKey, Project] = Remembered(self._load)
        self._authenticates = database.settings.authentication == "on"

    async def resolve(self, project_id: str) -> UUID:
        """The project that a call is about.

        Empty means the credential's project or, for a credential of a whole organisation, the
        organisation's project `default`.

        Raises:
            NotFound: The caller can see no such project (`PROJECT_NOT_FOUND`).
            FailedPrecondition: It is disabled (`PROJECT_DISABLED`).
            InvalidArgument: Empty, and the organisation has no project `default`.
            ResourceExhausted: The request is larger than it allows (`REQUEST_TOO_LARGE`).
        """
        return (await self.resolve_project(project_id)).id

    async def resolve_project(self, project_id: str) -> Project:
        """As `resolve`, with the project's rules.

        Raises:
            TaskForgeError: As `resolve`.
        """
        call = current_call()
        project = await self._find(call, project_id)
        if project is not None:
            return project
        if not project_id and call.caller.project_id is not None:
            # A token may name whatever its issuer wrote.
            raise _not_found(str(call.caller.project_id))
        if not project_id:
            raise invalid_field(
                "project_id", "name a project: the organisation has none named default"
            )
        raise _not_found(project_id)

    async def visible(self, project_id: str) -> list[UUID]:
        """The projects that a list covers: the named one; empty means all the caller may see.

        Raises:
            NotFound, FailedPrecondition: As `resolve`.
        """
        caller = current_call().caller
        if project_id or not self._authenticates or caller.project_id is not None:
            return [await self.resolve(project_id)]
        async with self._database.engine.connect() as connection:
            found = await connection.scalars(
                select(projects.c.id)
                .where(projects.c.organisation_id == caller.organisation_id)
                .where(projects.c.disabled_at.is_(None))
                .order_by(projects.c.id)
            )
            return list(found)

    async def sees(self, project_id: UUID) -> bool:
        """Whether the caller may touch the things of a project, which its lease tokens name.

        Raises:
            FailedPrecondition, ResourceExhausted: As `resolve`.
        """
        return await self._find(current_call(), str(project_id)) is not None

    def objection(self, call: Call) -> TaskForgeError | None:
        """Why a call that is open now must end, if it must for the project that it is about."""
        if call.project_id is None:
            return None
        known = self._remembered.peek(self._found_by_id(call, call.project_id))
        return project_disabled(known.id) if known is not None and known.is_disabled else None

    async def refresh(self, calls: Iterable[Call] = ()) -> None:
        """Read anew what calls use, and what those that are open are about; the pass of a loop."""
        await self._remembered.refresh(
            [
                self._found_by_id(call, call.project_id)
                for call in calls
                if call.project_id is not None
            ]
        )

    def _found_by_id(self, call: Call, project_id: UUID) -> ProjectKey:
        """A call's project by its id: it may have been found as `default`, and renamed since."""
        return self._caller(call).organisation_id, project_id

    def _caller(self, call: Call) -> Caller:
        return call.caller if self._authenticates else EVERYONE

    async def _find(self, call: Call, project_id: str) -> Project | None:
        key = _key(self._caller(call), project_id)
        if key is None:
            return None
        project = self._remembered.peek(key) or await self._remembered.get(key)
        if project is not None:
            call.project_id = project.id
            _check(project, call.request_bytes)
        return project

    async def _load(self, keys: list[ProjectKey]) -> Mapping[ProjectKey, Project]:
        rows = await find_projects(
            self._database.hot, [key[0] for key in keys], [key[1] for key in keys]
        )
        return {
            keys[row["place"] - 1]: Project(
                row["id"],
                row["is_disabled"],
                row["max_jobs_per_second"],
                row["max_unfinished_jobs"],
                row["max_lease_streams"],
                row["max_request_bytes"],
            )
            for row in rows
        }


def _key(caller: Caller, project_id: str) -> ProjectKey | None:
    """What to look for; None: the id is not even written as one."""
    if not project_id:
        default = DEFAULT_PROJECT_ID if caller.organisation_id is None else None
        return caller.organisation_id, caller.project_id or default
    try:
        sought = UUID(project_id)
    except ValueError:
        return None
    if caller.project_id not in {None, sought}:
        # In nobody's organisation: looked for nevertheless, as one that does not exist is.
        return UUID(int=0), sought
    return caller.organisation_id, sought


def _check(project: Project, request_bytes: int) -> None:
    if project.is_disabled:
        raise project_disabled(project.id)
    limit = project.max_request_bytes
    if limit is not None and request_bytes > limit:
        raise ResourceExhausted(
            "REQUEST_TOO_LARGE",
            f"the request has {request_bytes} bytes; the project allows {limit}",
            metadata={"limit": str(limit), "request_bytes": str(request_bytes)},
        )


def project_disabled(project_id: UUID) -> FailedPrecondition:
    """The error for a call about a project that is disabled, or by a credential of such a one."""
    return FailedPrecondition(
        "PROJECT_DISABLED",
        "the project is disabled",
        metadata={"project": str(project_id)},
        precondition=PreconditionViolation(
            "PROJECT_STATE", f"projects/{project_id}", "it is disabled"
        ),
    )


def _not_found(project_id: str) -> NotFound:
    return NotFound(
        "PROJECT_NOT_FOUND",
        f"there is no project {project_id}",
        metadata={"project": project_id},
    )
