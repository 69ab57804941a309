"""The one border where errors of the database drivers become errors of TaskForge."""

from datetime import timedelta

import asyncpg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from taskforge_core.errors import Internal, InvalidArgument, TaskForgeError, Unavailable

DATABASE_EXCEPTIONS: tuple[type[BaseException], ...] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    SQLAlchemyError,
    OSError,
    TimeoutError,
)
"""What a database call may raise: pass these to `translate_database_error`."""

# Postgres' SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
_CONFLICTS = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock timeout: the same statement may succeed next time."""

_UNAVAILABLE_CLASSES = frozenset({"08", "53", "57", "58"})
"""Connection lost, out of resources (connections, disk, memory), stopped by the operator or by a
timeout, failure of the system."""

_UNAVAILABLE_STATES = frozenset(
    {"25006", "25P03", "25P04", "28000", "28P01", "3D000", "42P01", "3F000"}
)
"""Read-only after a failover, idle or transaction timeouts, and a database that is not set up for
us yet (role, password, database, schema or table missing): the operator's matter, not the
caller's."""

_RETRY_CONFLICT = timedelta(milliseconds=100)
_RETRY_UNAVAILABLE = timedelta(seconds=1)


def database_sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of a driver's error, also below SQLAlchemy's wrapping; None if it has none."""
    error = _driver_error(error)
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def is_data_error(error: BaseException) -> bool:
    """Whether the values caused it: the statement would fail again with them, others may pass."""
    state = database_sqlstate(error)
    if state is not None:
        return state[:2] in {"22", "23"}
    return isinstance(_driver_error(error), asyncpg.DataError)


def is_conflict(error: BaseException) -> bool:
    """Whether it was a deadlock, a lock timeout or a serialization failure."""
    return database_sqlstate(error) in _CONFLICTS


def translate_database_error(error: BaseException) -> TaskForgeError:
    """The TaskForge error for what a database call raised; an own error comes back as it is.

    - deadlock, lock timeout, serialization failure: `Unavailable/DATABASE_UNAVAILABLE`, retry in
      100 ms
    - connection lost or refused, timeout, out of resources: the same, retry in 1 s
    - a value Postgres refuses: `InvalidArgument/INVALID_REQUEST`
    - anything else is our defect: `Internal/INTERNAL`
    """
    if isinstance(error, TaskForgeError):
        return error
    driver_error = _driver_error(error)
    state = database_sqlstate(error)
    if state is not None:
        return _from_sqlstate(state)
    if isinstance(driver_error, asyncpg.DataError):
        return _refused_value()
    if isinstance(driver_error, asyncpg.InterfaceError):
        # The driver has one class for a closed connection and for its own misuse.
        misused = "another operation" in str(driver_error)
        return _defect() if misused else _unavailable()
    if isinstance(driver_error, asyncpg.InternalClientError):
        # Misuse is noticed before this one is raised: then the server has just told an idle
        # connection that it ends, and the statement met it before it was closed.
        text = str(driver_error)
        died = text.startswith("cannot switch to state") or text == "not connected"
        return _unavailable() if died else _defect()
    if isinstance(driver_error, OSError | TimeoutError | PoolTimeout):
        return _unavailable()
    return _defect()


def _driver_error(error: BaseException) -> BaseException:
    """asyncpg's own exception, which SQLAlchemy wraps twice."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def _from_sqlstate(state: str) -> TaskForgeError:
    if state in _CONFLICTS:
        return Unavailable(
            "DATABASE_UNAVAILABLE",
            "another transaction holds what this call needs; try again",
            retry_after=_RETRY_CONFLICT,
        )
    if state[:2] in _UNAVAILABLE_CLASSES or state in _UNAVAILABLE_STATES:
        return _unavailable()
    if state[:2] == "22":
        return _refused_value()
    return _defect()


def _unavailable() -> Unavailable:
    return Unavailable(
        "DATABASE_UNAVAILABLE",
        "the database is not available; try again",
        retry_after=_RETRY_UNAVAILABLE,
    )


def _refused_value() -> InvalidArgument:
    return InvalidArgument("INVALID_REQUEST", "the database cannot store a value of this request")


def _defect() -> Internal:
    return Internal("INTERNAL", "the server failed")
