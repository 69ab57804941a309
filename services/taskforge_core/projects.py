"""Which project a call is about.

There are no credentials yet: callers see every project that they name, and the project `default`
when they name none.
"""

from uuid import UUID

from sqlalchemy import select

from taskforge_core.database import Database
from taskforge_core.errors import NotFound
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.tables import projects


class Projects:
    """Resolves `project_id` of requests; one instance a process, since it remembers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Only projects that exist are remembered, so that invented ids cannot fill the memory.
        self._known = {"": DEFAULT_PROJECT_ID, str(DEFAULT_PROJECT_ID): DEFAULT_PROJECT_ID}

    async def resolve(self, project_id: str) -> UUID:
        """The project that a call is about; empty means the project `default`.

        Only the first call that names a project asks the database.

        Raises:
            NotFound: There is no such project (`PROJECT_NOT_FOUND`).
        """
        known = self._known.get(project_id.lower())
        return await self._look_up(project_id) if known is None else known

    async def visible(self, project_id: str) -> list[UUID]:
        """The projects that a list covers: the named one; empty means all the caller may see.

        Raises:
            NotFound: There is no such project (`PROJECT_NOT_FOUND`).
        """
        return [await self.resolve(project_id)]

    async def _look_up(self, project_id: str) -> UUID:
        try:
            sought = UUID(project_id)
        except ValueError:
            raise _not_found(project_id) from None
        async with self._database.engine.connect() as connection:
            found = await connection.scalar(select(projects.c.id).where(projects.c.id == sought))
        if found is None:
            raise _not_found(project_id)
        self._known[str(sought)] = sought
        return sought


def _not_found(project_id: str) -> NotFound:
    return NotFound(
        "PROJECT_NOT_FOUND",
        f"there is no project {project_id}",
        metadata={"project": project_id},
    )
