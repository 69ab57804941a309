"""What a caller of AdminService may see and change: nothing of others, or all of them.

Whether a thing is there and whether the caller may see it is asked in one condition, so that the
answers for a foreign thing and for one that does not exist cannot differ.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, Select, Table, and_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from taskforge_core.callers import ADMIN, PERMISSION_NAMES, Caller, Permission, current_caller
from taskforge_core.errors import NotFound, PermissionDenied
from taskforge_core.ids import DEFAULT_ORGANISATION_ID
from taskforge_core.projects import project_disabled
from taskforge_core.tables import api_keys, organisations, projects

OPERATOR = "operator"
"""What `PERMISSION_MISSING` names where only the operator's credentials will do."""

SET_QUOTAS = "set quotas, since they protect the other tenants"
"""What only an operator may do."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a caller's permission `admin` goes."""

    organisation_id: UUID
    """Its own, which a request means that names none."""
    project_id: UUID | None
    """The one project that it is bound to."""
    is_operator: bool
    """Whether it rules every organisation."""
    is_own: bool
    """Whether `organisation_id` is that of a credential, which must not lock itself out."""
    permissions: frozenset[Permission]

    @classmethod
    def of_caller(cls) -> "Reach":
        """That of whoever makes the call that runs now."""
        caller: Caller = current_caller()
        return cls(
            caller.organisation_id or DEFAULT_ORGANISATION_ID,
            caller.project_id,
            # A key for one project is for that project's keys, whoever's it is.
            caller.is_operator and caller.project_id is None,
            caller.organisation_id is not None,
            caller.permissions,
        )

    def require_operator(self, what: str) -> None:
        """Let only operators do `what`.

        Raises:
            PermissionDenied: `PERMISSION_MISSING`, of the permission `operator`.
        """
        if not self.is_operator:
            raise _missing(OPERATOR, f"only an operator may {what}")

    def require_organisation(self, what: str) -> None:
        """Let only credentials of a whole organisation do `what`.

        Raises:
            PermissionDenied: `PERMISSION_MISSING`, of the permission `admin`.
        """
        if self.project_id is not None:
            raise _missing(PERMISSION_NAMES[ADMIN], f"a credential of one project may not {what}")

    def require_givable(self, permissions: Iterable[Permission]) -> None:
        """Let a key have only what its maker has.

        Raises:
            PermissionDenied: `PERMISSION_MISSING`, of the first that the caller lacks.
        """
        lacking = sorted(set(permissions) - self.permissions)
        if lacking and not self.is_operator:
            name = PERMISSION_NAMES[lacking[0]]
            raise _missing(
                name, f"the credential lacks the permission {name}, so it cannot give it"
            )

    async def require_enabled(self, connection: AsyncConnection) -> None:
        """Let a credential of one project do nothing while that is disabled.

        Whatever is looked up here asks by itself.

        Raises:
            FailedPrecondition: `PROJECT_DISABLED`.
        """
        if self.project_id is None:
            return
        # A token may name another organisation's project: that one's state is not for its bearer.
        own = select(projects.c.disabled_at).where(self.projects())
        if (await connection.execute(own)).scalar_one_or_none() is not None:
            raise project_disabled(self.project_id)

    async def organisation(
        self, connection: AsyncConnection, named: str, *, lock: bool = False
    ) -> RowMapping:
        """The organisation that a request is about: the named one, else the caller's own.

        Raises:
            NotFound: There is none that the caller may see (`ORGANISATION_NOT_FOUND`).
            FailedPrecondition: As `require_enabled`.
        """
        sought = UUID(named) if named else self.organisation_id
        row = await self._find(connection, organisations, sought, self.organisations(), lock)
        if row is None:
            raise _not_found("ORGANISATION_NOT_FOUND", "organisation", named or str(sought))
        return row

    async def project(
        self,
        connection: AsyncConnection,
        named: str,
        organisation_id: UUID | None = None,
        *,
        lock: bool = False,
    ) -> RowMapping:
        """The named project, if need be only where it belongs to this organisation.

        Raises:
            NotFound: There is none that the caller may see (`PROJECT_NOT_FOUND`).
            FailedPrecondition: As `require_enabled`.
        """
        visible = self.projects()
        if organisation_id is not None:
            visible = and_(visible, projects.c.organisation_id == organisation_id)
        row = await self._find(connection, projects, UUID(named), visible, lock)
        if row is None:
            raise _not_found("PROJECT_NOT_FOUND", "project", named)
        return row

    async def api_key(
        self, connection: AsyncConnection, named: str, *, lock: bool = False
    ) -> RowMapping:
        """The named key.

        Raises:
            NotFound: There is none that the caller may see (`API_KEY_NOT_FOUND`).
            FailedPrecondition: As `require_enabled`.
        """
        row = await self._find(connection, api_keys, UUID(named), self.owned(api_keys), lock)
        if row is None:
            raise _not_found("API_KEY_NOT_FOUND", "api_key", named)
        return row

    def organisations(self) -> ColumnElement[bool]:
        """Which rows of `organisations` the caller may see."""
        return true() if self.is_operator else organisations.c.id == self.organisation_id

    def projects(self) -> ColumnElement[bool]:
        """Which rows of `projects` the caller may see."""
        if self.is_operator:
            return true()
        own = projects.c.organisation_id == self.organisation_id
        return own if self.project_id is None else and_(own, projects.c.id == self.project_id)

    def owned(self, table: Table) -> ColumnElement[bool]:
        """Which rows of `api_keys` or `audit_log` the caller may see."""
        if self.is_operator:
            return true()
        own = table.c.organisation_id == self.organisation_id
        return own if self.project_id is None else and_(own, table.c.project_id == self.project_id)

    async def belongings(
        self, connection: AsyncConnection, table: Table, organisation: str, project: str
    ) -> Select[tuple[object, ...]]:
        """The rows of `api_keys` or `audit_log` that a list is about.

        Raises:
            NotFound: `ORGANISATION_NOT_FOUND`, `PROJECT_NOT_FOUND`.
            FailedPrecondition: As `require_enabled`.
        """
        organisation_id: UUID = (await self.organisation(connection, organisation))["id"]
        statement = select(table).where(
            self.owned(table), table.c.organisation_id == organisation_id
        )
        if project:
            row = await self.project(connection, project, organisation_id)
            statement = statement.where(table.c.project_id == row["id"])
        return statement

    async def _find(
        self,
        connection: AsyncConnection,
        table: Table,
        sought: UUID,
        visible: ColumnElement[bool],
        lock: bool,
    ) -> RowMapping | None:
        await self.require_enabled(connection)
        statement = select(table).where(table.c.id == sought, visible)
        if lock:
            # Rows that refer to it may come meanwhile.
            statement = statement.with_for_update(key_share=True)
        return (await connection.execute(statement)).mappings().one_or_none()


def _missing(permission: str, message: str) -> PermissionDenied:
    return PermissionDenied("PERMISSION_MISSING", message, metadata={"permission": permission})


def _not_found(reason: str, kind: str, named: str) -> NotFound:
    return NotFound(reason, f"there is no {kind.replace('_', ' ')} {named}", metadata={kind: named})
