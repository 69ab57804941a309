"""Loop: it runs, is woken, backs off, and stops."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from taskforge_core import loops
from taskforge_core.loops import Loop

HOUR = timedelta(hours=1)


class Passes:
    """Counts passes and lets a test wait for the next one."""

    def __init__(self, behave: Callable[[int], Awaitable[object]] | None = None) -> None:
        self.count = 0
        self._behave = behave
        self._done: asyncio.Queue[int] = asyncio.Queue()

    async def run_once(self) -> object:
        self.count += 1
        self._done.put_nowait(self.count)
        return await self._behave(self.count) if self._behave else None

    async def next(self) -> int:
        async with asyncio.timeout(10):
            return await self._done.get()


async def test_it_begins_with_a_pass_and_another_follows_when_woken() -> None:
    passes = Passes()
    loop = Loop("test", passes.run_once, HOUR)
    loop.start()
    assert await passes.next() == 1
    loop.wake()
    assert await passes.next() == 2
    await loop.stop()
    assert passes.count == 2


async def test_it_runs_again_after_its_time() -> None:
    passes = Passes()
    loop = Loop("test", passes.run_once, timedelta(milliseconds=1))
    loop.start()
    assert [await passes.next() for _ in range(3)] == [1, 2, 3]
    await loop.stop()


async def test_a_wake_up_during_a_pass_is_not_lost() -> None:
    async def behave(number: int) -> None:
        if number == 1:
            loop.wake()

    passes = Passes(behave)
    loop = Loop("test", passes.run_once, HOUR)
    loop.start()
    assert [await passes.next() for _ in range(2)] == [1, 2]
    await loop.stop()


async def test_a_pass_that_found_more_work_is_followed_at_once() -> None:
    async def behave(number: int) -> bool:
        return number < 5

    passes = Passes(behave)
    loop = Loop("test", passes.run_once, HOUR)
    loop.start()
    assert [await passes.next() for _ in range(5)] == [1, 2, 3, 4, 5]
    await loop.stop()
    assert passes.count == 5


async def test_an_error_is_logged_and_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "_FIRST_BACKOFF", 0.001)

    async def behave(number: int) -> None:
        if number < 4:
            raise ValueError("broken")

    passes = Passes(behave)
    loop = Loop("test", passes.run_once, HOUR)
    with capture_logs() as logs:
        loop.start()
        assert [await passes.next() for _ in range(4)] == [1, 2, 3, 4]
        await loop.stop()
    assert [line["event"] for line in logs] == ["loop_pass_failed"] * 3


async def test_a_database_that_is_away_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "_FIRST_BACKOFF", 0.001)

    async def behave(number: int) -> None:
        if number == 1:
            raise ConnectionRefusedError("no server")

    passes = Passes(behave)
    loop = Loop("test", passes.run_once, HOUR)
    with capture_logs() as logs:
        loop.start()
        assert [await passes.next() for _ in range(2)] == [1, 2]
        await loop.stop()
    [line] = logs
    assert line["event"] == "loop_pass_failed"
    assert "no server" in line["error"]
    assert "exc_info" not in line


async def test_wake_ups_do_not_shorten_the_pause_after_an_error() -> None:
    async def behave(number: int) -> None:
        raise ValueError("broken")

    passes = Passes(behave)
    loop = Loop("test", passes.run_once, HOUR)
    loop.start()
    await passes.next()
    for _ in range(10):
        loop.wake()
        await asyncio.sleep(0)
    assert passes.count == 1
    async with asyncio.timeout(5):
        await loop.stop()


def test_the_pause_doubles_up_to_a_limit() -> None:
    loop = Loop("test", Passes().run_once, timedelta(seconds=1))
    pauses = []
    for failures in range(1, 100):
        loop._failures = failures
        pauses.append(loop._backoff())
    for nth, pause in enumerate(pauses):
        expected = min(5.0, 0.2 * 2**nth)
        assert 0.8 * expected <= pause <= 1.2 * expected
    rare = Loop("test", Passes().run_once, timedelta(minutes=1))
    rare._failures = 50
    assert 48 <= rare._backoff() <= 72


async def test_stopping_lets_the_pass_finish() -> None:
    begun, may_end, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run_once() -> None:
        begun.set()
        await may_end.wait()
        finished.set()

    loop = Loop("test", run_once, HOUR)
    loop.start()
    await begun.wait()
    stopping = asyncio.create_task(loop.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    may_end.set()
    await stopping
    assert finished.is_set()


async def test_a_pass_that_does_not_end_is_cancelled_after_the_grace() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def run_once() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    loop = Loop("test", run_once, HOUR)
    loop.start()
    await begun.wait()
    await loop.stop(timedelta(milliseconds=1))
    assert cancelled.is_set()


async def test_a_loop_that_never_began_can_be_stopped_and_none_begins_twice() -> None:
    await Loop("test", Passes().run_once, HOUR).stop()
    loop = Loop("test", Passes().run_once, HOUR)
    loop.start()
    with pytest.raises(RuntimeError, match="started before"):
        loop.start()
    await loop.stop()
