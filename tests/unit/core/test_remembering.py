"""What is remembered for a moment: when the database is asked, and for what."""

import asyncio
import time
from collections.abc import Mapping

import pytest

from taskforge_core.remembering import Remembered


class Source:
    """Stands for the database: it has some things, and notes what it is asked for."""

    def __init__(self, **things: int) -> None:
        self.things = things
        self.asked: list[list[str]] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.was_asked = asyncio.Event()
        self.gate.set()

    async def load(self, keys: list[str]) -> Mapping[str, int]:
        self.asked.append(sorted(keys))
        self.was_asked.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return {key: self.things[key] for key in keys if key in self.things}


async def test_what_was_read_is_not_read_again() -> None:
    source = Source(a=1)
    remembered = Remembered(source.load)
    assert remembered.peek("a") is None
    assert [await remembered.get("a") for _ in range(3)] == [1, 1, 1]
    assert remembered.peek("a") == 1
    assert source.asked == [["a"]]


async def test_what_does_not_exist_is_asked_for_each_time_and_never_kept() -> None:
    source = Source()
    remembered = Remembered(source.load)
    assert await remembered.get("x") is None
    source.things["x"] = 1
    assert await remembered.get("x") == 1
    assert source.asked == [["x"], ["x"]]


async def test_what_is_needed_is_read_though_nobody_asks_for_it() -> None:
    source = Source(a=1, b=2)
    remembered = Remembered(source.load)
    await remembered.get("a")
    source.things["a"] = 3
    for _ in range(3):
        await remembered.refresh(["a", "b", "none"])
    assert source.asked[1:] == [["a", "b", "none"]] * 3
    assert [remembered.peek(key) for key in ("a", "b", "none")] == [3, 2, None]


async def test_those_who_ask_together_share_one_statement_and_one_runs_at_a_time() -> None:
    source = Source(a=1, b=2)
    remembered = Remembered(source.load)
    source.gate.clear()
    first = asyncio.create_task(remembered.get("a"))
    await source.was_asked.wait()
    rest = [asyncio.create_task(remembered.get(key)) for key in ("b", "c", "b", "a")]
    await asyncio.sleep(0)
    source.gate.set()
    assert await asyncio.gather(first, *rest) == [1, 2, None, 2, 1]
    assert source.asked == [["a"], ["a", "b", "c"]]


async def test_one_who_stops_waiting_takes_the_answer_from_nobody() -> None:
    source = Source(a=1)
    remembered = Remembered(source.load)
    source.gate.clear()
    leaving, staying = (asyncio.create_task(remembered.get("a")) for _ in range(2))
    await source.was_asked.wait()
    leaving.cancel()
    source.gate.set()
    assert await staying == 1


async def test_an_error_reaches_those_who_wait_and_the_next_asks_anew() -> None:
    source = Source(a=1)
    remembered = Remembered(source.load)
    source.error = ConnectionResetError("gone")
    with pytest.raises(ConnectionResetError):
        await remembered.get("a")
    source.error = None
    assert await remembered.get("a") == 1


async def test_a_refresh_reads_what_is_used_and_forgets_the_rest() -> None:
    source = Source(a=1, b=2)
    remembered = Remembered(source.load)
    await asyncio.gather(remembered.get("a"), remembered.get("b"))
    await remembered.refresh()
    remembered.peek("a")
    source.things = {"a": 3, "b": 4}
    await remembered.refresh()
    assert (remembered.peek("a"), remembered.peek("b")) == (3, None)
    assert source.asked == [["a", "b"], ["a", "b"], ["a"]]


async def test_what_is_gone_is_forgotten_by_the_next_refresh() -> None:
    source = Source(a=1)
    remembered = Remembered(source.load)
    await remembered.get("a")
    del source.things["a"]
    await remembered.refresh()
    assert remembered.peek("a") is None


async def test_a_value_that_could_not_be_refreshed_is_not_used_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    source = Source(a=1)
    remembered = Remembered(source.load)
    await remembered.get("a")
    now += 4.1
    assert remembered.peek("a") is None
    # It counts as used nevertheless, so that the refresh after an outage reads it.
    await remembered.refresh()
    assert remembered.peek("a") == 1
