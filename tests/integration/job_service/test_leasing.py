"""Claims for many calls at once: the best jobs, to each no more than it wants, each job once."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest
from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases, is_woken
from tests.support.leases import miscounts
from tests.support.rows import insert_jobs, insert_queue
from tests.support.waiting import eventually

from job_service.demanding import Demand, Leased
from job_service.grouping import Group
from job_service.leasing import Claimer, Picked
from taskforge_core.database import Database
from taskforge_core.ending import end_leases
from taskforge_core.notifications import Notifier
from taskforge_core.retrying import Succeeded

START = datetime(2026, 1, 1, tzinfo=UTC)


def got(call: Demand) -> list[UUID]:
    """The jobs that wait to be sent, in their order."""
    return [leased.id for leased in call.outbox]


async def held(database: Database, call: Demand) -> set[UUID]:
    """The jobs that the session holds by the rows."""
    rows = await database.hot.fetch(
        "SELECT id FROM taskforge.jobs WHERE session_id = $1", call.session_id
    )
    return {row["id"] for row in rows}


async def settle(use: JobUseCases, call: Demand, leases: Sequence[Leased]) -> None:
    """As when the worker is done: the leases end, and the call may take others."""
    endings = {(str(leased.id), leased.lease_seq): Succeeded() for leased in leases}
    ended = await end_leases(use.database.hot, call.project_id, endings, answered=True)
    assert len(ended) == len(leases)
    for leased in leases:
        use.dispatcher.leases_ended(call.project_id, call.session_id, [leased.lease_seq])


async def test_each_call_gets_as_many_as_it_wants_and_no_more(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    job_ids = await insert_jobs(database.hot, queue_id, priorities=[0] * 30)
    calls = [demand(max_in_flight=size) for size in (3, 5, 7)]
    await replica.open(*calls)
    group = replica.group(*calls)
    await group.run_once()
    for call, size in zip(calls, (3, 5, 7), strict=True):
        assert len(got(call)) == size
        assert call.credit == 0
        assert await held(database, call) == set(got(call))
    # Together the best fifteen, each once.
    assert sorted(job_id for call in calls for job_id in got(call)) == job_ids[:15]
    assert await group.run_once() is False
    assert await miscounts(database.hot) == []


async def test_a_slot_that_is_freed_is_filled_with_the_next_job(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    job_ids = await insert_jobs(database.hot, queue_id, priorities=[0] * 20)
    call = demand(max_in_flight=4)
    await replica.open(call)
    group = replica.group(call)
    taken: list[UUID] = []
    while True:
        await group.run_once()
        if not call.outbox:
            break
        assert len(await held(database, call)) <= 4
        leases, call.outbox = call.outbox, []
        taken += [leased.id for leased in leases]
        await settle(replica, call, leases[: random.Random(len(taken)).randint(1, len(leases))])
        for kept in leases:
            if kept.lease_seq in call.held:
                await settle(replica, call, [kept])
    assert taken == job_ids


async def test_calls_get_the_best_jobs_of_many_queues_in_their_order(
    replica: JobUseCases, database: Database
) -> None:
    """With so many queues none is read far at first; yet nothing is overtaken."""
    chance = random.Random(3)
    ranked: list[tuple[int, int, datetime, UUID]] = []
    for place in range(60):
        queue_priority = chance.choice([0, 0, 0, 1])
        queue_id = await insert_queue(database.hot, f"q{place}", priority=queue_priority)
        # A few queues have nearly all the good jobs, so that they must be read again, further.
        count = 40 if place % 20 == 0 else 5
        priorities = [chance.choice([0, 9] if count > 5 else [0]) for _ in range(count)]
        created_at = START + timedelta(seconds=chance.randint(0, 5))
        made = await insert_jobs(
            database.hot, queue_id, priorities=priorities, created_at=created_at
        )
        ranked += [
            (-queue_priority, -priority, created_at, job_id)
            for job_id, priority in zip(made, priorities, strict=True)
        ]
    best = [job_id for *_, job_id in sorted(ranked)]
    call = demand(max_in_flight=100)
    await replica.open(call)
    await replica.group(call).run_once()
    assert got(call) == best[:100]
    alone = demand(max_in_flight=1)
    await replica.open(alone)
    await replica.group(alone).run_once()
    assert got(alone) == best[100:101]


async def test_jobs_locked_by_another_transaction_are_left_and_those_behind_are_taken(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    job_ids = await insert_jobs(database.hot, queue_id, priorities=[0] * 200)
    ten, one = demand(max_in_flight=10), demand(max_in_flight=1)
    await replica.open(one, ten)
    async with database.hot.acquire() as connection, connection.transaction():
        await lock_first(connection, 105)
        await replica.group(ten).run_once()
        assert got(ten) == job_ids[105:115]
    async with database.hot.acquire() as connection, connection.transaction():
        await lock_first(connection, 15)
        await replica.group(one).run_once()
        assert got(one) == job_ids[15:16]
    two = demand(max_in_flight=2)
    await replica.open(two)
    await replica.group(two).run_once()
    assert got(two) == job_ids[:2]


async def lock_first(connection: Any, count: int) -> None:
    await connection.execute(
        "SELECT FROM taskforge.jobs WHERE id IN ("
        "SELECT id FROM taskforge.jobs ORDER BY created_at, id LIMIT $1) FOR UPDATE",
        count,
    )


async def test_where_others_came_first_it_is_looked_again_soon(
    replica: JobUseCases, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They tell nobody when they are done, and the poll comes once a second only."""
    queue_id = await insert_queue(database.hot, "q")
    job_ids = await insert_jobs(database.hot, queue_id, priorities=[0] * 5)
    call = demand(max_in_flight=5)
    await replica.open(call)
    group = replica.group(call)
    pick = Claimer.pick
    async with database.hot.acquire() as connection, connection.transaction():

        async def pick_and_be_overtaken(claimer: Claimer, *arguments: Any) -> list[Picked]:
            picked = await pick(claimer, *arguments)
            await lock_first(connection, 5)
            return picked

        with monkeypatch.context() as patch:
            patch.setattr(Claimer, "pick", pick_and_be_overtaken)
            assert await group.run_once() is False
        assert got(call) == []

        async def woken() -> bool:
            return is_woken(group)

        await eventually(woken, "the pass is to be repeated")
        group._loop._woken.clear()
        # Now that it sees them locked it waits for news.
        assert await group.run_once() is False
        assert not is_woken(group)
    await group.run_once()
    assert got(call) == job_ids


async def test_jobs_too_large_for_a_call_are_left_to_others_and_those_behind_are_taken(
    replica: JobUseCases, database: Database
) -> None:
    """However many, and however few the call wants."""
    queue_id = await insert_queue(database.hot, "q")
    large = await insert_jobs(database.hot, queue_id, priorities=[0] * 3000, payload_bytes=100_000)
    [small] = await insert_jobs(database.hot, queue_id)
    narrow = demand(max_in_flight=1, max_message_bytes=65_536)
    wide = demand(max_in_flight=1)
    await replica.open(narrow, wide)
    await replica.group(narrow, wide).run_once()
    assert got(narrow) == [small]
    assert got(wide) == large[:1]


async def test_a_job_for_which_nobody_has_bytes_is_not_overtaken_by_a_smaller_one(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    [first] = await insert_jobs(database.hot, queue_id, payload_bytes=60)
    [second] = await insert_jobs(database.hot, queue_id, payload_bytes=60)
    [third] = await insert_jobs(database.hot, queue_id, payload_bytes=2)
    call = demand(max_in_flight=10, max_in_flight_bytes=100)
    await replica.open(call)
    group = replica.group(call)
    await group.run_once()
    assert got(call) == [first]
    leases, call.outbox = call.outbox, []
    await settle(replica, call, leases)
    await group.run_once()
    assert got(call) == [second, third]


async def test_a_session_that_holds_nothing_may_take_one_larger_job(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    [large] = await insert_jobs(database.hot, queue_id, payload_bytes=500)
    await insert_jobs(database.hot, queue_id, payload_bytes=2)
    call = demand(max_in_flight=10, max_in_flight_bytes=100)
    await replica.open(call)
    await replica.group(call).run_once()
    assert got(call) == [large]


async def test_equal_calls_get_equal_shares_claim_after_claim(
    replica: JobUseCases, database: Database
) -> None:
    """Also where each claim brings one job only: then they take turns."""
    queue_id = await insert_queue(database.hot, "q")
    calls = [demand(max_in_flight=100) for _ in range(3)]
    await replica.open(*calls)
    group = replica.group(*calls)
    for _ in range(9):
        await insert_jobs(database.hot, queue_id)
        await group.run_once()
    assert [len(got(call)) for call in calls] == [3, 3, 3]
    await insert_jobs(database.hot, queue_id, priorities=[0] * 30)
    await group.run_once()
    assert [len(got(call)) for call in calls] == [13, 13, 13]


async def test_a_call_that_was_replaced_elsewhere_gets_nothing_and_learns_it(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    job_ids = await insert_jobs(database.hot, queue_id, priorities=[0] * 4)
    older = demand(max_in_flight=10)
    neighbour = demand(max_in_flight=3)
    await replica.open(older, neighbour)
    newer = demand(session_id=older.session_id, max_in_flight=10)
    await second_replica.open(newer)
    group = replica.group(older, neighbour)
    await group.run_once()
    assert older.is_replaced
    assert older.changed.is_set()
    assert (older.held, older.outbox) == ({}, [])
    # What it was to get is dealt anew, in the same pass.
    assert len(got(neighbour)) == 3
    await second_replica.group(newer).run_once()
    assert sorted(got(neighbour) + got(newer)) == job_ids


async def test_a_session_whose_leases_expired_gets_nothing_until_it_speaks(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    first, second, third = await insert_jobs(database.hot, queue_id, priorities=[0] * 3)
    call = demand(max_in_flight=1)
    await replica.open(call)
    group = replica.group(call)
    await group.run_once()
    assert got(call) == [first]
    await replica.allow(call, 2)
    await database.hot.execute(
        "UPDATE taskforge.sessions SET expires_at = clock_timestamp() - interval '1 ms'"
    )
    neighbour = demand(max_in_flight=1)
    await replica.open(neighbour)
    group.demands.append(neighbour)
    await group.run_once()
    assert got(call) == [first]
    assert call.credit == 0
    # It holds nobody else up.
    assert got(neighbour) == [second]
    await replica.beat(call, 1, [call.tokens[call.outbox[0].lease_seq]])
    await group.run_once()
    assert got(call) == [first, third]


async def test_leases_are_counted_before_the_claim_returns(
    replica: JobUseCases, database: Database
) -> None:
    """So that nobody who asks for the credit then can find it too large."""
    queue_id = await insert_queue(database.hot, "q")
    await insert_jobs(database.hot, queue_id, priorities=[0] * 5)
    call = demand(max_in_flight=3)
    await replica.open(call)
    picked = await replica.claimer.pick(call.subscription, 3, 3, [], [], 1_000_000)
    claimed = await replica.claimer.claim(call.project_id, [(each, call) for each in picked])
    leases = claimed.leases
    assert len(leases) == 3
    assert call.held.keys() == {leased.lease_seq for _, leased in leases}
    assert call.credit == 0


async def test_two_replicas_and_many_passes_at_once_lease_each_job_once_within_the_limits(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    queues = [await insert_queue(database.hot, f"q{place}", priority=place) for place in range(3)]
    job_ids = [
        job_id
        for queue_id in queues
        for job_type in ("send", "print")
        for job_id in await insert_jobs(
            database.hot, queue_id, priorities=[1, 2, 3] * 20, job_type=job_type
        )
    ]
    groups: list[tuple[JobUseCases, Group, list[Demand]]] = []
    for use in (replica, second_replica):
        for job_types in ((), ("send",)):
            calls = [demand(max_in_flight=size, job_types=job_types) for size in (4, 9)]
            await use.open(*calls)
            groups.append((use, use.group(*calls), calls))
    taken: list[UUID] = []

    async def work(use: JobUseCases, group: Group, calls: list[Demand]) -> None:
        idle = 0
        while idle < 3:
            await asyncio.gather(group.run_once(), group.run_once())
            idle += 1
            for call in calls:
                leases, call.outbox = call.outbox, []
                assert len(await held(database, call)) <= call.max_in_flight
                if leases:
                    idle = 0
                    taken.extend(leased.id for leased in leases)
                    await settle(use, call, leases)

    await asyncio.gather(*(work(*each) for each in groups))
    assert len(taken) == len(job_ids)
    assert set(taken) == set(job_ids)
    assert await miscounts(database.hot) == []


async def test_jobs_beyond_the_credit_here_are_told_to_the_other_replicas(
    replica: JobUseCases, database: Database
) -> None:
    """Whoever made them ready told this group alone, since it had room then."""
    told: list[tuple[str, ...]] = []

    class Recorder:
        def notify(self, topic: str, *keys: str) -> None:
            told.append((topic, *keys))

    queue_id = await insert_queue(database.hot, "q")
    call = demand(max_in_flight=2)
    await replica.open(call)
    group = Group(call.subscription, replica.claimer, cast("Notifier", Recorder()))
    group.demands.append(call)
    await insert_jobs(database.hot, queue_id)
    group.wake([queue_id])
    await group.run_once()
    assert told == []
    await insert_jobs(database.hot, queue_id, priorities=[0] * 5)
    group.wake([queue_id])
    await group.run_once()
    assert told == [("ready", str(queue_id))]
    await group.run_once()
    assert len(told) == 1


async def test_a_claim_that_fails_leaves_nothing_counted(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    [job_id] = await insert_jobs(database.hot, queue_id)
    call = demand(max_in_flight=2)
    await replica.open(call)
    group = replica.group(call)
    await database.hot.execute("ALTER SEQUENCE taskforge.lease_seq RENAME TO moved")
    with pytest.raises(asyncpg.UndefinedTableError):
        await group.run_once()
    assert (call.credit, call.held, call.outbox) == (2, {}, [])
    await database.hot.execute("ALTER SEQUENCE taskforge.moved RENAME TO lease_seq")
    await group.run_once()
    assert got(call) == [job_id]
