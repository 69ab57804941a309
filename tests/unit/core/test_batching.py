"""Calls that ride together: when batches start, who is in them, and whose errors are whose."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.waiting import eventually

from taskforge_core.batching import (
    MAX_BATCH_BYTES,
    MAX_IN_FLIGHT,
    MAX_WAITING_BYTES,
    Batcher,
)
from taskforge_core.errors import InvalidArgument, NotFound, TaskForgeError, Unavailable

PROJECT, OTHER, THIRD = UUID(int=1), UUID(int=2), UUID(int=3)

Answer = str | TaskForgeError


@dataclass
class Batch:
    """A batch that was started, and waits to be told how its transaction ends."""

    project_id: UUID
    items: list[str]
    gate: "asyncio.Future[Sequence[Answer]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    async def commit(self) -> None:
        """Answer each item by its name in capitals, and let whoever waits go on."""
        self.gate.set_result([item.upper() for item in self.items])
        await settled()

    async def fail(self, error: BaseException) -> None:
        self.gate.set_exception(error)
        await settled()


class Transactions:
    """What the batcher runs: everything that was started, in order."""

    def __init__(self) -> None:
        self.started: list[Batch] = []

    async def run(self, project_id: UUID, items: list[str]) -> Sequence[Answer]:
        batch = Batch(project_id, list(items))
        self.started.append(batch)
        return await batch.gate

    @property
    def items(self) -> list[list[str]]:
        return [batch.items for batch in self.started]


async def settled() -> None:
    """Let every task go as far as it can: each suspends at most a few times in a row."""
    for _ in range(20):
        await asyncio.sleep(0)


async def calls(batcher: Batcher[str, str], project_id: UUID, *items: str) -> list[Any]:
    """Start a call for each item; the tasks."""
    tasks = [asyncio.create_task(batcher.submit(project_id, item)) for item in items]
    await settled()
    return tasks


async def test_nothing_waits_when_nothing_is_in_flight() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run)
    [first] = await calls(batcher, PROJECT, "a")
    assert transactions.items == [["a"]]
    await transactions.started[0].commit()
    assert await first == "A"
    [second] = await calls(batcher, PROJECT, "b")
    assert transactions.items == [["a"], ["b"]]
    await transactions.started[1].commit()
    assert await second == "B"


async def test_where_small_batches_do_not_overlap_large_ones_still_do() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run, overlap_items=3)
    tasks = await calls(batcher, PROJECT, "a", "b", "c")
    assert transactions.items == [["a"]]
    tasks += await calls(batcher, PROJECT, "d")
    assert transactions.items == [["a"], ["b", "c", "d"]]
    tasks += await calls(batcher, PROJECT, "e")
    await transactions.started[0].commit()
    assert len(transactions.items) == 2
    await transactions.started[1].commit()
    await transactions.started[2].commit()
    assert await asyncio.gather(*tasks) == list("ABCDE")


async def test_items_that_may_linger_wait_for_others_and_ride_together() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run, linger=0.01)
    tasks = await calls(batcher, PROJECT, "a", "b")
    assert transactions.items == []
    tasks += await calls(batcher, OTHER, "c")

    async def both_have_begun() -> bool:
        return transactions.items == [["a", "b"], ["c"]]

    await eventually(both_have_begun, "both projects' batches have begun")
    for batch in transactions.started:
        await batch.commit()
    assert await asyncio.gather(*tasks) == ["A", "B", "C"]


async def test_a_project_does_not_wait_for_the_batch_of_another() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run, overlap_items=3)
    await calls(batcher, PROJECT, "a", "b")
    await calls(batcher, OTHER, "c")
    assert transactions.items == [["a"], ["c"]]
    for place in range(3):
        await transactions.started[place].commit()
    assert transactions.items == [["a"], ["c"], ["b"]]


async def test_at_most_two_batches_are_in_flight_and_the_next_holds_all_that_waited() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run)
    tasks = []
    for item in "abcdef":
        tasks += await calls(batcher, PROJECT, item)
    assert transactions.items == [["a"], ["b"]]
    assert MAX_IN_FLIGHT == 2
    await transactions.started[1].commit()
    assert transactions.items == [["a"], ["b"], ["c", "d", "e", "f"]]
    await transactions.started[0].commit()
    await transactions.started[2].commit()
    assert await asyncio.gather(*tasks) == list("ABCDEF")


async def test_items_keep_their_order_and_calls_get_their_own_answers() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run)
    await calls(batcher, PROJECT, "x", "y")
    many = asyncio.create_task(batcher.submit_all(PROJECT, ["c", "a", "b"]))
    [one] = await calls(batcher, PROJECT, "d")
    await transactions.started[0].commit()
    assert transactions.items[-1] == ["c", "a", "b", "d"]
    await transactions.started[2].commit()
    assert (await many, await one) == (["C", "A", "B"], "D")
    await transactions.started[1].commit()


async def test_a_batch_has_at_most_max_items_or_one_larger_call() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run, max_items=3)
    await calls(batcher, PROJECT, "x", "y")
    large = asyncio.create_task(batcher.submit_all(PROJECT, ["1", "2", "3", "4"]))
    await calls(batcher, PROJECT, "a", "b")
    pair = asyncio.create_task(batcher.submit_all(PROJECT, ["c", "d"]))
    await calls(batcher, PROJECT, "e")
    for place in range(5):
        await transactions.started[place].commit()
    assert transactions.items == [["x"], ["y"], ["1", "2", "3", "4"], ["a", "b"], ["c", "d", "e"]]
    assert await large == ["1", "2", "3", "4"]
    assert await pair == ["C", "D"]


async def test_projects_take_turns_whatever_each_has_waiting() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run, max_items=2)
    await calls(batcher, PROJECT, *"abcdefgh")
    await calls(batcher, OTHER, "o")
    await calls(batcher, THIRD, *"uv")
    started = 0
    while started < len(transactions.started):
        await transactions.started[started].commit()
        started += 1
    order = [(batch.project_id, batch.items) for batch in transactions.started]
    assert order == [
        (PROJECT, ["a"]),
        (PROJECT, ["b"]),
        (PROJECT, ["c", "d"]),
        (OTHER, ["o"]),
        (THIRD, ["u", "v"]),
        (PROJECT, ["e", "f"]),
        (PROJECT, ["g", "h"]),
    ]


async def test_a_batch_is_of_one_project() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run)
    await calls(batcher, PROJECT, "a", "b")
    for place in range(10):
        await calls(batcher, OTHER if place % 2 else PROJECT, str(place))
    for place in range(4):
        await transactions.started[place].commit()
    assert [(batch.project_id, batch.items) for batch in transactions.started[2:]] == [
        (PROJECT, ["0", "2", "4", "6", "8"]),
        (OTHER, ["1", "3", "5", "7", "9"]),
    ]


def failing_on(
    bad: set[str], error: Callable[[], BaseException], runs: list[list[str]]
) -> Callable[[UUID, list[str]], Coroutine[Any, Any, Sequence[Answer]]]:
    """A transaction that fails as a whole when a bad item is in it, as Postgres' do."""

    async def run(_: UUID, items: list[str]) -> Sequence[Answer]:
        runs.append(list(items))
        await asyncio.sleep(0)
        if bad & set(items):
            raise error()
        return [item.upper() for item in items]

    return run


DATA_ERROR = asyncpg.InvalidTextRepresentationError
DEADLOCK = asyncpg.DeadlockDetectedError
LOCK_TIMEOUT = asyncpg.LockNotAvailableError


@pytest.mark.parametrize("bad", ["a", "d", "h"])
@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (DATA_ERROR, InvalidArgument),
        (asyncpg.CheckViolationError, TaskForgeError),
        (asyncpg.DataError, InvalidArgument),
        (DEADLOCK, Unavailable),
        (LOCK_TIMEOUT, Unavailable),
        (asyncpg.SerializationError, Unavailable),
    ],
)
async def test_one_bad_item_fails_alone(
    bad: str, error: type[Exception], refusal: type[TaskForgeError]
) -> None:
    runs: list[list[str]] = []
    batcher: Batcher[str, str] = Batcher(failing_on({bad}, lambda: error("no"), runs))
    answers = await batcher.submit_all(PROJECT, list("abcdefgh"))
    for item, answer in zip("abcdefgh", answers, strict=True):
        if item == bad:
            assert isinstance(answer, refusal)
        else:
            assert answer == item.upper()
    # Halved each time: of eight items a bad one costs two runs a level.
    assert len(runs) == 1 + 2 * 3


@given(st.integers(1, 40), st.data())
async def test_any_number_of_bad_items_fail_and_no_other(count: int, data: st.DataObject) -> None:
    items = [f"i{place}" for place in range(count)]
    bad = data.draw(st.sets(st.sampled_from(items)))
    runs: list[list[str]] = []
    batcher: Batcher[str, str] = Batcher(failing_on(bad, lambda: DATA_ERROR("no"), runs))
    answers = await batcher.submit_all(PROJECT, items)
    failed = {
        item for item, answer in zip(items, answers, strict=True) if not isinstance(answer, str)
    }
    assert failed == bad
    assert [answer for answer in answers if isinstance(answer, str)] == [
        item.upper() for item in items if item not in bad
    ]


async def test_a_single_call_raises_what_its_item_met() -> None:
    batcher: Batcher[str, str] = Batcher(failing_on({"a"}, lambda: DATA_ERROR("no"), []))
    with pytest.raises(InvalidArgument) as caught:
        await batcher.submit(PROJECT, "a")
    assert caught.value.reason == "INVALID_REQUEST"


async def test_an_answer_that_is_an_error_is_its_items_alone() -> None:
    async def run(_: UUID, items: list[str]) -> Sequence[Answer]:
        return [NotFound("JOB_NOT_FOUND", "no") if item == "b" else item for item in items]

    batcher: Batcher[str, str] = Batcher(run)
    with pytest.raises(NotFound):
        await batcher.submit(PROJECT, "b")
    answers = await batcher.submit_all(PROJECT, ["a", "b", "c"])
    assert [isinstance(answer, NotFound) for answer in answers] == [False, True, False]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("gone"),
        asyncpg.ConnectionDoesNotExistError("gone"),
        TimeoutError(),
        asyncpg.UndefinedColumnError("a defect"),
        ZeroDivisionError("a defect"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_any_other_error_reaches_all_callers_of_its_batch_and_no_other(
    error: Exception,
) -> None:
    """It is not run again: halving helps only where a part can succeed."""
    transactions = Transactions()
    batcher = Batcher(transactions.run)
    [first, second] = await calls(batcher, PROJECT, "a", "b")
    waiting = await calls(batcher, PROJECT, "c", "d")
    await transactions.started[0].fail(error)
    with pytest.raises(type(error)):
        await first
    assert not second.done()
    assert not waiting[0].done()
    await transactions.started[2].fail(error)
    for task in waiting:
        with pytest.raises(type(error)):
            await task
    await transactions.started[1].commit()
    assert await second == "B"
    assert transactions.items == [["a"], ["b"], ["c", "d"]]
    [later] = await calls(batcher, PROJECT, "e")
    await transactions.started[3].commit()
    assert await later == "E"


async def test_an_error_in_one_half_that_halving_does_not_cure_fails_the_batch() -> None:
    """The halves share what was done, so nobody can say of a half what became of it."""

    async def run(_: UUID, items: list[str]) -> Sequence[Answer]:
        if len(items) == 4:
            raise DATA_ERROR("no")
        if "c" in items:
            raise ConnectionResetError("gone")
        return items

    batcher: Batcher[str, str] = Batcher(run)
    with pytest.raises(ConnectionResetError):
        await batcher.submit_all(PROJECT, list("abcd"))


async def test_a_caller_that_left_is_served_only_if_its_batch_had_begun() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run)
    [running, _] = await calls(batcher, PROJECT, "a", "b")
    [waiting, neighbour] = await calls(batcher, PROJECT, "c", "d")
    running.cancel()
    waiting.cancel()
    await settled()
    assert running.cancelled()
    assert waiting.cancelled()
    await transactions.started[0].commit()
    assert transactions.items == [["a"], ["b"], ["d"]]
    await transactions.started[2].commit()
    assert await neighbour == "D"
    await transactions.started[1].commit()


async def test_a_project_all_of_whose_callers_left_costs_no_batch() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run)
    await calls(batcher, PROJECT, "a", "b")
    for task in await calls(batcher, OTHER, "c", "d"):
        task.cancel()
    await settled()
    for batch in list(transactions.started):
        await batch.commit()
    await batcher.idle()
    assert transactions.items == [["a"], ["b"]]
    [later] = await calls(batcher, OTHER, "e")
    await transactions.started[2].commit()
    assert await later == "E"


async def test_a_batch_is_bounded_by_its_bytes_but_takes_one_call_of_any_size() -> None:
    transactions = Transactions()
    sizes = {"x": 2 * MAX_BATCH_BYTES, "y": MAX_BATCH_BYTES // 2, "z": MAX_BATCH_BYTES // 3}
    batcher = Batcher(transactions.run, weigh=lambda item: sizes.get(item, 0))
    await calls(batcher, PROJECT, "a", "b")
    await calls(batcher, PROJECT, "x", "y", "z", "y")
    for place in range(5):
        await transactions.started[place].commit()
    assert transactions.items == [["a"], ["b"], ["x"], ["y", "z"], ["y"]]


async def test_what_a_project_has_waiting_is_bounded_and_others_do_not_feel_it() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run, weigh=lambda _: MAX_WAITING_BYTES // 3)
    await calls(batcher, PROJECT, "a", "b")
    waiting = await calls(batcher, PROJECT, "c", "d")
    with pytest.raises(Unavailable) as refused:
        await batcher.submit(PROJECT, "e")
    assert refused.value.retry_after is not None
    [other] = await calls(batcher, OTHER, "f")
    for place in range(5):
        await transactions.started[place].commit()
    assert await asyncio.gather(*waiting, other) == ["C", "D", "F"]
    # There is room again.
    [later] = await calls(batcher, PROJECT, "g")
    await transactions.started[5].commit()
    assert await later == "G"


async def test_a_cancelled_caller_does_not_hide_an_error_from_its_neighbours() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run)
    await calls(batcher, PROJECT, "a", "b")
    [cancelled, neighbour] = await calls(batcher, PROJECT, "c", "d")
    await transactions.started[0].commit()
    cancelled.cancel()
    await transactions.started[2].fail(ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError):
        await neighbour
    await transactions.started[1].commit()


async def test_idle_waits_for_what_runs_and_for_what_still_waits() -> None:
    transactions = Transactions()
    batcher = Batcher(transactions.run)
    await batcher.idle()
    tasks = await calls(batcher, PROJECT, "a", "b", "c")
    idle = asyncio.create_task(batcher.idle())
    await transactions.started[0].commit()
    await transactions.started[1].commit()
    assert not idle.done()
    await transactions.started[2].commit()
    await idle
    assert all(task.done() for task in tasks)
