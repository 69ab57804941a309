"""What the builders of requests share: the border for wrong arguments, and absent ones."""

import enum
from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from taskforge_sdk.errors import InvalidRequest, invalid

P = ParamSpec("P")
Asked = TypeVar("Asked")


class Unset(enum.Enum):
    """Stands for an argument that is not given, where None has a meaning of its own."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


def request(build: Callable[P, Asked]) -> Callable[P, Asked]:
    """Marks what builds a request: what no message can hold is an InvalidRequest."""

    @wraps(build)
    def building(*args: P.args, **kwargs: P.kwargs) -> Asked:
        try:
            return build(*args, **kwargs)
        except InvalidRequest:
            raise
        except ValueError as error:
            raise invalid("request", str(error)) from error

    return building


def narrowed(text: str | None, field: str) -> str:
    """A filter of a call that changes things: an empty one would mean everything."""
    if text == "":
        raise invalid(field, "must not be empty")
    return text or ""


def bounded(number: int | None, field: str) -> int:
    """A bound of a call that changes things: zero would mean none."""
    if number is not None and number < 1:
        raise invalid(field, "must be at least 1")
    return number or 0
