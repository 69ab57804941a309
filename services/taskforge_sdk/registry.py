"""Which handler runs which type of job."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from taskforge_sdk.context import JobContext

Handler: TypeAlias = Callable[[JobContext], Awaitable[Any]] | Callable[[JobContext], Any]
Function = TypeVar("Function", bound=Callable[[JobContext], Any])


@dataclass(frozen=True, slots=True)
class Registered:
    """A handler, and whether it is a coroutine function or runs in a thread."""

    function: Callable[[JobContext], Any]
    is_async: bool


class Registry:
    """The handlers by type of job."""

    def __init__(self) -> None:
        self._handlers: dict[str, Registered] = {}

    @property
    def job_types(self) -> tuple[str, ...]:
        """The registered types, in the order of their registration."""
        return tuple(self._handlers)

    def register(self, job_type: str, function: Function) -> Function:
        """Make the function the handler of a type; each type has one."""
        if job_type in self._handlers:
            raise ValueError(f"there is a handler for {job_type!r} already")
        self._handlers[job_type] = Registered(function, _is_async(function))
        return function

    def find(self, job_type: str) -> Registered | None:
        """The handler of a type, if there is one."""
        return self._handlers.get(job_type)


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    # An object whose class defines `async def __call__`.
    return inspect.iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004
