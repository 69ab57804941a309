"""Who may do what: the gate that every call passes, put together for one server process."""

from collections.abc import Iterable, Sequence

from taskforge_core.authentication import (
    Authenticator,
    Credential,
    CredentialAuthenticator,
    NoAuthenticator,
)
from taskforge_core.callers import Call, Caller
from taskforge_core.database import Database
from taskforge_core.errors import TaskForgeError
from taskforge_core.projects import Projects


class Access:
    """Authentication and the projects of one process, and the calls that are open by them."""

    def __init__(self, authenticator: Authenticator, projects: Projects | None = None) -> None:
        """`projects` are those of the use cases; None for a server whose calls name none."""
        self._authenticator = authenticator
        self._projects = projects
        self._open: set[Call] = set()

    @classmethod
    def of(cls, database: Database, projects: Projects) -> "Access":
        """As the settings say."""
        if database.settings.authentication == "off":
            return cls(NoAuthenticator(), projects)
        return cls(CredentialAuthenticator(database), projects)

    async def authenticate(self, credential: Credential, certificate: Sequence[str]) -> Caller:
        """See `Authenticator`."""
        return await self._authenticator.authenticate(credential, certificate)

    def opened(self, call: Call) -> None:
        """This call runs now; if its credential goes bad, its task is cancelled with a refusal."""
        self._open.add(call)

    def closed(self, call: Call) -> None:
        """This call has ended."""
        self._open.discard(call)

    async def refresh(self) -> None:
        """Read rules and credentials anew, and end the calls that may not go on; a loop's pass."""
        try:
            await self._authenticator.refresh([call.caller for call in self._open])
            if self._projects is not None:
                await self._projects.refresh(self._open)
        finally:
            # Times run out while the database is away, too.
            self._end_bad(list(self._open))

    def _end_bad(self, calls: Iterable[Call]) -> None:
        for call in calls:
            refusal = self._objection(call)
            if refusal is not None and call.refusal is None and call.task is not None:
                call.refusal = refusal
                call.task.cancel()

    def _objection(self, call: Call) -> TaskForgeError | None:
        objection = self._authenticator.objection(call.caller)
        if objection is None and self._projects is not None:
            objection = self._projects.objection(call)
        return objection
