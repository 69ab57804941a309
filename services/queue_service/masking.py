"""What an update mask asks for: from a request that has one to values. No I/O."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask

from queue_service.conversion import SETTINGS, settings_columns
from queue_service.naming import check_name
from queue_service.pausing import OPEN, paused
from taskforge.v1 import queue_service_pb2
from taskforge_core.errors import InvalidArgument, invalid_field

MAX_PATHS = 20
"""Most paths in a mask: the contract's number."""


class Masked(Protocol):
    """A request that names what it is to change."""

    @property
    def update_mask(self) -> FieldMask: ...

    @property
    def name(self) -> str: ...


Request = TypeVar("Request", bound=Masked)
Reader = Callable[[Request], dict[str, Any]]
"""Reads, from a request, the values that a path of its mask stands for."""


def masked_values(request: Request, readers: Mapping[str, Reader[Request]]) -> dict[str, Any]:
    """The values that the mask names; at least one. A path may be named twice, or with its parts.

    Args:
        request: Where the mask stands.
        readers: One for each path that a mask may name.

    Raises:
        InvalidArgument: The mask is empty or names what cannot be updated (`INVALID_UPDATE_MASK`);
            it is too long, or the new name is none (`INVALID_REQUEST`).
    """
    paths: Sequence[str] = request.update_mask.paths
    if not paths:
        raise _invalid_mask("", "update_mask names no field")
    if len(paths) > MAX_PATHS:
        raise invalid_field("update_mask", f"must name at most {MAX_PATHS} fields")
    values: dict[str, Any] = {}
    for path in paths:
        reader = readers.get(path)
        if reader is None:
            raise _invalid_mask(path, f"update_mask names {path!r}, which cannot be updated")
        values |= reader(request)
    return values


def masked_name(request: Masked) -> dict[str, Any]:
    """The new name.

    Raises:
        InvalidArgument: It is empty, or looks like a UUID (`INVALID_REQUEST`).
    """
    if not request.name:
        raise invalid_field("name", "must not be empty when update_mask names it")
    return {"name": check_name(request.name)}


def _invalid_mask(path: str, message: str) -> InvalidArgument:
    return InvalidArgument("INVALID_UPDATE_MASK", message, metadata={"path": path})


# -- Queues --------------------------------------------------------------------------------------

_Request = queue_service_pb2.UpdateQueueRequest


def _setting(name: str) -> Reader[_Request]:
    return lambda request: settings_columns(request.settings, [name])


_READERS: dict[str, Reader[_Request]] = {
    "name": masked_name,
    "description": lambda request: {"description": request.description},
    "priority": lambda request: {"priority": request.priority},
    "is_active": lambda request: dict(OPEN) if request.is_active else paused(),
    "settings": lambda request: settings_columns(request.settings),
    **{f"settings.{name}": _setting(name) for name in SETTINGS},
}

UPDATABLE_PATHS = tuple(_READERS)
"""Every path that the mask of UpdateQueue may name."""


def masked_columns(request: queue_service_pb2.UpdateQueueRequest) -> dict[str, Any]:
    """The columns of a queue that the mask names, with their new values: see `masked_values`."""
    return masked_values(request, _READERS)
