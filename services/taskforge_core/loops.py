"""Background loops: one class runs every periodic pass of every process."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from taskforge_core.database_errors import translate_database_error
from taskforge_core.errors import Unavailable

log = structlog.get_logger(__name__)

_FIRST_BACKOFF = 0.2
_LONGEST_BACKOFF = 5.0
"""With its jitter well below 10 s: so soon after its database everything must work again."""


class Loop:
    """Runs a pass again and again until it is stopped; an error never ends it.

    Between two passes it waits `every` ± `jitter`, or less when woken. A pass that returns True
    says that more work waits and is followed by another at once. A pass that raises is logged (in
    one line where the database is away, which is no defect) and tried again after a pause that
    doubles from 0.2 s up to 5 s (or `every`, where that is longer), and that `wake` does not
    shorten, so that a broken database is not hammered.

    Tests call the pass itself instead of starting a loop.
    """

    def __init__(
        self,
        name: str,
        run_once: Callable[[], Awaitable[object]],
        every: timedelta,
        jitter: float = 0.2,
    ) -> None:
        """Describe the loop; `jitter` is the share by which each wait varies, 0 to 1."""
        self.name = name
        self.run_once = run_once
        self._every = every.total_seconds()
        self._jitter = jitter
        self._woken = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._failures = 0

    def start(self) -> None:
        """Begin with a pass now; the loop runs in a task of the current event loop."""
        if self._task is not None:
            raise RuntimeError(f"the loop {self.name} was started before")
        self._task = asyncio.create_task(self._run(), name=f"loop {self.name}")

    def wake(self) -> None:
        """Ask for a pass as soon as possible; one that runs now is followed by another."""
        self._woken.set()

    async def stop(self, grace: timedelta = timedelta(seconds=5)) -> None:
        """End the loop: the pass that runs may finish within `grace`, then it is cancelled."""
        self._stopping = True
        self._woken.set()
        if self._task is None:
            return
        done, _ = await asyncio.wait([self._task], timeout=grace.total_seconds())
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while not self._stopping:
            # Cleared before the pass: a wake-up that comes while it runs leads to another pass.
            self._woken.clear()
            try:
                more = await self.run_once() is True
            except Exception as error:
                self._failures += 1
                pause = self._backoff()
                told = {"loop": self.name, "retry_in_seconds": round(pause, 2)}
                if isinstance(translate_database_error(error), Unavailable):
                    log.warning("loop_pass_failed", **told, error=repr(error))
                else:
                    log.exception("loop_pass_failed", **told)
                await self._pause_after_failure(pause)
                continue
            self._failures = 0
            if more:
                # Gives others their turn even when no pass ever suspends.
                await asyncio.sleep(0)
                continue
            await self._wait(self._every * (1 + self._jitter * random.uniform(-1, 1)))

    def _backoff(self) -> float:
        longest = max(_LONGEST_BACKOFF, self._every)
        doubled = _FIRST_BACKOFF * 2.0 ** min(self._failures - 1, 30)
        return min(longest, doubled) * random.uniform(0.8, 1.2)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _pause_after_failure(self, seconds: float) -> None:
        """Wait the whole pause whoever wakes, but end it at once when the loop stops."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not self._stopping and (left := deadline - asyncio.get_running_loop().time()) > 0:
            self._woken.clear()
            await self._wait(left)
