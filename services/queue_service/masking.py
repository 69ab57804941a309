"""What an update mask asks for: from the request of UpdateQueue to columns. No I/O."""

from collections.abc import Callable, Sequence
from typing import Any

from queue_service.conversion import SETTINGS, settings_columns
from queue_service.naming import check_name
from queue_service.pausing import OPEN, paused
from taskforge.v1 import queue_service_pb2
from taskforge_core.errors import InvalidArgument, invalid_field

MAX_PATHS = 20
"""Most paths in a mask: the contract's number."""

_Request = queue_service_pb2.UpdateQueueRequest
_Reader = Callable[[_Request], dict[str, Any]]


def _name(request: _Request) -> dict[str, Any]:
    if not request.name:
        raise invalid_field("name", "must not be empty when update_mask names it")
    return {"name": check_name(request.name)}


def _setting(name: str) -> _Reader:
    return lambda request: settings_columns(request.settings, [name])


_READERS: dict[str, _Reader] = {
    "name": _name,
    "description": lambda request: {"description": request.description},
    "priority": lambda request: {"priority": request.priority},
    "is_active": lambda request: dict(OPEN) if request.is_active else paused(),
    "settings": lambda request: settings_columns(request.settings),
    **{f"settings.{name}": _setting(name) for name in SETTINGS},
}

UPDATABLE_PATHS = tuple(_READERS)
"""Every path that a mask may name."""


def masked_columns(request: queue_service_pb2.UpdateQueueRequest) -> dict[str, Any]:
    """The columns that the mask names, with their new values; at least one.

    A path may be named twice, and a setting beside all of them.

    Raises:
        InvalidArgument: The mask is empty or names what cannot be updated (`INVALID_UPDATE_MASK`);
            it is too long, or the new name is none (`INVALID_REQUEST`).
    """
    paths: Sequence[str] = request.update_mask.paths
    if not paths:
        raise _invalid_mask("", "update_mask names no field")
    if len(paths) > MAX_PATHS:
        raise invalid_field("update_mask", f"must name at most {MAX_PATHS} fields")
    columns: dict[str, Any] = {}
    for path in paths:
        reader = _READERS.get(path)
        if reader is None:
            raise _invalid_mask(path, f"update_mask names {path!r}, which cannot be updated")
        columns |= reader(request)
    return columns


def _invalid_mask(path: str, message: str) -> InvalidArgument:
    return InvalidArgument("INVALID_UPDATE_MASK", message, metadata={"path": path})
