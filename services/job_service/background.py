"""Work that goes on after the call that caused it was answered or cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from taskforge_core.database_errors import DATABASE_EXCEPTIONS

log = structlog.get_logger(__name__)


class Background:
    """Keeps such tasks alive, logs their failures, and lets a shutdown wait for them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run `work` to its end, whatever becomes of the caller. The task never fails."""
        task = asyncio.create_task(self._run(name, work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def idle(self) -> None:
        """Wait until nothing is left to do."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except DATABASE_EXCEPTIONS as error:
            # What is left undone here is made good by a sweep: an expiry, a heartbeat, a poll.
            log.warning("background_work_failed", work=name, error=repr(error))
        except Exception:
            log.exception("background_work_failed", work=name)
