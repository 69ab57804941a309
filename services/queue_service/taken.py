"""Names that somebody else has.

A unique index decides who gets a name: two calls at once cannot both see it free.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import IntegrityError

from taskforge_core.errors import AlreadyExists


@contextmanager
def refusing_taken(constraint: str, reason: str, message: str, **metadata: str) -> Iterator[None]:
    """Around a transaction that sets a name: what to say should it break this constraint.

    Raises:
        AlreadyExists: With the given reason, where it does.
    """
    try:
        yield
    except IntegrityError as error:
        cause = error.orig.__cause__ if error.orig is not None else None
        if getattr(cause, "constraint_name", None) != constraint:
            raise
        raise AlreadyExists(reason, message, metadata=metadata) from None
