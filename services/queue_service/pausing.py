"""The columns that say whether a queue is open, or how it is paused. No I/O.

Three columns are one state, which a CHECK of the table guards too: an open queue takes jobs and
has no time at which it opens.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

OPEN: Mapping[str, Any] = MappingProxyType(
    {"is_active": True, "accepts_jobs": True, "resume_at": None}
)
"""Hands out jobs and takes new ones."""


def paused(*, keep_accepting: bool = False, resume_at: datetime | None = None) -> dict[str, Any]:
    """Hands out nothing.

    Args:
        keep_accepting: Whether it takes new jobs all the same.
        resume_at: When it opens by itself. None: when somebody opens it.
    """
    return {"is_active": False, "accepts_jobs": keep_accepting, "resume_at": resume_at}


def paused_until(now: datetime, resume_at: datetime, *, keep_accepting: bool) -> dict[str, Any]:
    """A pause that ends by itself: where its end has passed, an open queue.

    Args:
        now: By the database's clock.
        resume_at: When it is to end.
        keep_accepting: Whether the queue takes new jobs all the same.
    """
    if resume_at <= now:
        return dict(OPEN)
    return paused(keep_accepting=keep_accepting, resume_at=resume_at)
