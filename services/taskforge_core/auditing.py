"""The audit log: who made which administrative change, written in the transaction of the change."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from taskforge_core.callers import current_call, new_request_id
from taskforge_core.queries import Executor, Statements

_APPEND = Statements("taskforge_core.queries")["append_audit_entry"]


async def append_audit_entry(
    connection: AsyncConnection | Executor,
    action: str,
    target: str,
    *,
    organisation_id: UUID | None = None,
    project_id: UUID | None = None,
    detail: Mapping[str, Any] | None = None,
    actor: str | None = None,
) -> None:
    """Record a change by the caller of the call that runs now; there is no way to take it back.

    Args:
        connection: One in the transaction of the change, of either driver.
        action: What was done: the RPC's name.
        target: What it was done to, such as `queues/<id>`.
        organisation_id: Whose thing that is. None: that of the project.
        project_id: Whose thing that is. None: the whole organisation's.
        detail: Names of fields and their new values, or numbers; never a secret or a payload. A
            duration becomes a number of seconds.
        actor: Who did it, where that is not the caller of a call.
    """
    call = current_call()
    # The line of the server's log has it from the call, and so the two can be joined.
    call.request_id = call.request_id or new_request_id()
    values = (
        organisation_id,
        project_id,
        call.caller.name if actor is None else actor,
        action,
        target,
        orjson.dumps(dict(detail or {}), default=_plain).decode(),
        call.request_id,
    )
    if isinstance(connection, AsyncConnection):
        await connection.exec_driver_sql(_APPEND, values)
    else:
        await connection.fetch(_APPEND, *values)


def _plain(value: object) -> object:
    """What stands in the place of a value that JSON does not know."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID):  # the driver's own kind
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in the audit log")
