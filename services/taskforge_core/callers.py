"""Who calls, and what the call that runs now is."""

import asyncio
import uuid
from collections.abc import Hashable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from taskforge.v1 import permission_pb2
from taskforge_core.errors import PermissionDenied

Permission = int
"""A value of the contract's enum `Permission`."""

ADMIN: Permission = permission_pb2.PERMISSION_ADMIN

PERMISSION_NAMES: dict[Permission, str] = {
    value.number: value.name.removeprefix("PERMISSION_").replace("_", ":").lower()
    for value in permission_pb2.Permission.DESCRIPTOR.values
    if value.number
}
"""How people write permissions: `queue:read`, `admin`."""

ALL_PERMISSIONS = frozenset(PERMISSION_NAMES)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is behind a credential, and what it allows."""

    name: str
    """For logs and the audit log: `key <id>`, `jwt <subject>`."""
    organisation_id: UUID | None
    """None where authentication is off: the things of every organisation may be named."""
    project_id: UUID | None = None
    """The one project that the credential is for; None: all of its organisation."""
    permissions: frozenset[Permission] = frozenset()
    is_operator: bool = False
    """Whether it belongs to the organisation that manages the others."""
    expires_at: datetime | None = None
    """When a token ends by itself, by the clock of its issuer; None for what the database knows."""
    proof: Hashable = None
    """What its authenticator looks it up by, to see whether it is still good."""

    @property
    def has_expired(self) -> bool:
        """Whether the credential's time is over."""
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)

    def require(self, permission: Permission) -> None:
        """Check a permission.

        Raises:
            PermissionDenied: The caller lacks it (`PERMISSION_MISSING`).
        """
        if permission not in self.permissions:
            name = PERMISSION_NAMES.get(permission, "none that exists")
            raise PermissionDenied(
                "PERMISSION_MISSING",
                f"the credential lacks the permission {name}",
                metadata={"permission": name},
            )


EVERYONE = Caller("everyone", None, permissions=ALL_PERMISSIONS, is_operator=True)
"""Whoever calls a server whose authentication is switched off."""

NOBODY = Caller("nobody", UUID(int=0))
"""What runs outside of any call: it may do nothing and sees nothing."""


ProjectKey = tuple[UUID | None, UUID | None]
"""An organisation (None: whichever) and a project (None: the organisation's `default`)."""


@dataclass(slots=True, eq=False)
class Call:
    """A call that is being served."""

    method: str
    caller: Caller
    request_id: str = ""
    request_bytes: int = 0
    project_id: UUID | None = None
    """The project that it is about, once that was found; it stays so whatever its name becomes."""
    task: "asyncio.Task[object] | None" = field(default=None, repr=False)
    refusal: Exception | None = None
    """Set where the call is ended from outside, because its credential is no longer good."""


_call: ContextVar[Call] = ContextVar("call")


def enter(call: Call) -> None:
    """Make this the call that runs in the present task."""
    _call.set(call)


def current_call() -> Call:
    """The call that runs now; outside of any call one by NOBODY."""
    call = _call.get(None)
    return Call("", NOBODY) if call is None else call


def current_caller() -> Caller:
    """Who makes the call that runs now."""
    return current_call().caller


def new_request_id() -> str:
    """A request id for a call that brought none."""
    return uuid.uuid4().hex
