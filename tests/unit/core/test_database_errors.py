"""The border of the database: which foreign error becomes which of ours."""

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from taskforge_core.database_errors import (
    DATABASE_EXCEPTIONS,
    database_sqlstate,
    is_conflict,
    is_data_error,
    translate_database_error,
)
from taskforge_core.errors import Internal, InvalidArgument, NotFound, TaskForgeError, Unavailable

SECRET = "SELECT secret FROM passwords"

CASES: list[tuple[BaseException, type[TaskForgeError], bool, bool]] = [
    # error, what it becomes, is_conflict, is_data_error
    (asyncpg.DeadlockDetectedError(SECRET), Unavailable, True, False),
    (asyncpg.LockNotAvailableError(SECRET), Unavailable, True, False),
    (asyncpg.SerializationError(SECRET), Unavailable, True, False),
    (asyncpg.QueryCanceledError(SECRET), Unavailable, False, False),
    (asyncpg.AdminShutdownError(SECRET), Unavailable, False, False),
    (asyncpg.CannotConnectNowError(SECRET), Unavailable, False, False),
    (asyncpg.TooManyConnectionsError(SECRET), Unavailable, False, False),
    (asyncpg.DiskFullError(SECRET), Unavailable, False, False),
    (asyncpg.ConnectionDoesNotExistError(SECRET), Unavailable, False, False),
    (asyncpg.ReadOnlySQLTransactionError(SECRET), Unavailable, False, False),
    (asyncpg.IdleInTransactionSessionTimeoutError(SECRET), Unavailable, False, False),
    (asyncpg.InvalidPasswordError(SECRET), Unavailable, False, False),
    (asyncpg.InvalidCatalogNameError(SECRET), Unavailable, False, False),
    (asyncpg.UndefinedTableError(SECRET), Unavailable, False, False),
    (asyncpg.NumericValueOutOfRangeError(SECRET), InvalidArgument, False, True),
    (asyncpg.UntranslatableCharacterError(SECRET), InvalidArgument, False, True),
    (asyncpg.DataError(SECRET), InvalidArgument, False, True),
    (asyncpg.UniqueViolationError(SECRET), Internal, False, True),
    (asyncpg.CheckViolationError(SECRET), Internal, False, True),
    (asyncpg.PostgresSyntaxError(SECRET), Internal, False, False),
    (asyncpg.InterfaceError("connection is closed"), Unavailable, False, False),
    (
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
        Internal,
        False,
        False,
    ),
    (
        asyncpg.InternalClientError(
            "cannot switch to state 11; another operation (2) is in progress"
        ),
        Unavailable,
        False,
        False,
    ),
    (asyncpg.InternalClientError("not connected"), Unavailable, False, False),
    (asyncpg.InternalClientError(SECRET), Internal, False, False),
    (ConnectionRefusedError(SECRET), Unavailable, False, False),
    (FileNotFoundError(SECRET), Unavailable, False, False),
    (TimeoutError(SECRET), Unavailable, False, False),
    (PoolTimeout(SECRET), Unavailable, False, False),
    (ValueError(SECRET), Internal, False, False),
]


def wrapped(error: BaseException) -> DBAPIError:
    """As SQLAlchemy's asyncpg dialect passes it on."""
    translated = Exception("translated by the dialect")
    translated.__cause__ = error
    return DBAPIError(SECRET, None, translated)


@pytest.mark.parametrize(("error", "becomes", "conflict", "data"), CASES, ids=repr)
def test_each_foreign_error_becomes_one_of_ours_without_its_words(
    error: BaseException, becomes: type[TaskForgeError], conflict: bool, data: bool
) -> None:
    for raised in (error, wrapped(error)):
        ours = translate_database_error(raised)
        assert type(ours) is becomes
        assert "secret" not in ours.message
        assert is_conflict(raised) is conflict
        assert is_data_error(raised) is data
        assert (ours.retry_after is not None) is (becomes is Unavailable)


def test_an_own_error_stays_itself() -> None:
    error = NotFound("QUEUE_NOT_FOUND", "there is none")
    assert translate_database_error(error) is error


def test_the_state_is_read_through_the_wrapping() -> None:
    assert database_sqlstate(wrapped(asyncpg.DeadlockDetectedError("x"))) == "40P01"
    assert database_sqlstate(ValueError("x")) is None


@pytest.mark.parametrize(("error", "_b", "_c", "_d"), CASES[:-1], ids=repr)
def test_what_a_database_call_raises_is_caught_by_the_tuple(
    error: BaseException, _b: object, _c: object, _d: object
) -> None:
    assert isinstance(error, DATABASE_EXCEPTIONS)
    assert isinstance(wrapped(error), DATABASE_EXCEPTIONS)
