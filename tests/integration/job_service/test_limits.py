"""Limits of queues: exact over replicas, calls, changes and crashes."""

import asyncio
import random
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases
from tests.support.leases import miscounts
from tests.support.rows import insert_jobs, insert_queue
from tests.support.session_rows import claim
from tests.support.start_log import Rules, install

from job_service.demanding import Demand
from job_service.grouping import Group
from job_service.queries import lock_limited_queues, read_room
from scheduler_service.folding import Folder
from scheduler_service.rescuing import Rescuer
from taskforge_core.database import Database
from taskforge_core.ending import end_leases
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.notifications import Notifier
from taskforge_core.retrying import Ending, Failed, Released, Succeeded

MINUTE = timedelta(seconds=61)


async def calls(
    replicas: Sequence[JobUseCases], *, each: int = 1, max_in_flight: int = 100, **fields: Any
) -> list[Group]:
    """Groups of one call each, over these replicas in turn."""
    groups = []
    for place in range(each * len(replicas)):
        replica = replicas[place % len(replicas)]
        call = demand(max_in_flight=max_in_flight, **fields)
        await replica.open(call)
        groups.append(replica.group(call))
    return groups


async def run(*groups: Group) -> None:
    """Passes of all groups at once, until none says that it has more to do."""

    async def until_done(group: Group) -> None:
        while await group.run_once():
            pass

    await asyncio.gather(*map(until_done, groups))


def taken(*groups: Group) -> int:
    return sum(len(call.outbox) for group in groups for call in group.demands)


async def settle(database: Database, group: Group, count: int, ending: Ending | None = None) -> int:
    """End the first leases of a group's calls; how many there were."""
    ended = 0
    for call in group.demands:
        leases, call.outbox = call.outbox[:count], call.outbox[count:]
        endings = {(str(each.id), each.lease_seq): ending or Succeeded() for each in leases}
        async with database.hot.acquire() as connection, connection.transaction():
            await end_leases(connection, DEFAULT_PROJECT_ID, endings, answered=True)
        for each in leases:
            call.drop(each.lease_seq)
        ended += len(leases)
    return ended


async def set_limits(database: Database, queue_id: UUID, **columns: int | None) -> None:
    for column, value in columns.items():
        await database.hot.execute(
            f"UPDATE taskforge.queues SET {column} = $2 WHERE id = $1", queue_id, value
        )


async def processing(database: Database) -> int:
    count: int = await database.hot.fetchval("SELECT count(*) FROM taskforge.jobs WHERE status = 3")
    return count


async def test_no_more_run_than_the_limit_over_replicas_and_calls(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q", max_concurrent_jobs=5)
    await insert_jobs(database.hot, queue_id, priorities=[0] * 50)
    groups = await calls([replica, second_replica], each=3)
    await run(*groups)
    # Those that found another one counting look again.
    await run(*groups)
    assert taken(*groups) == await processing(database) == 5
    # What was settled makes room for exactly as many.
    assert await settle(database, max(groups, key=taken), 1) == 1
    await run(*groups)
    await run(groups[0])
    assert await processing(database) == 5
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("ending", [Succeeded(), Failed(retryable=False), Failed(), Released()])
async def test_every_end_of_an_attempt_makes_room(
    replica: JobUseCases, database: Database, ending: Ending
) -> None:
    queue_id = await insert_queue(database.hot, "q", max_concurrent_jobs=2)
    await insert_jobs(database.hot, queue_id, priorities=[0] * 6)
    [group] = await calls([replica])
    await run(group)
    assert await settle(database, group, 2, ending) == 2
    await run(group)
    assert taken(group) == await processing(database) == 2


async def test_the_count_is_right_whatever_was_folded(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q", max_concurrent_jobs=7)
    await insert_jobs(database.hot, queue_id, priorities=[0] * 20)
    [group] = await calls([replica], max_in_flight=3)
    await run(group)
    for folded in (False, True):
        if folded:
            await Folder(database.hot).run_once()
        async with database.hot.acquire() as connection, connection.transaction():
            assert await lock_limited_queues(connection, [queue_id]) == [queue_id]
            [row] = await read_room(connection, DEFAULT_PROJECT_ID, [queue_id])
            assert (row["room"], row["is_rated"]) == (4, False)


async def test_a_lower_limit_binds_the_next_claim_and_ends_nothing(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q", max_concurrent_jobs=6)
    await insert_jobs(database.hot, queue_id, priorities=[0] * 20)
    [group] = await calls([replica])
    await run(group)
    await set_limits(database, queue_id, max_concurrent_jobs=3)
    for left in (5, 4, 3):
        await settle(database, group, 1)
        await run(group)
        assert await processing(database) == left
    await settle(database, group, 1)
    await run(group)
    assert await processing(database) == 3
    await set_limits(database, queue_id, max_concurrent_jobs=8)
    await run(group)
    assert await processing(database) == 8
    await set_limits(database, queue_id, max_concurrent_jobs=None)
    await run(group)
    assert await processing(database) == 16


async def test_the_first_claim_under_a_new_limit_waits_for_those_that_run_under_none(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    ids = await insert_jobs(database.hot, queue_id, priorities=[0] * 6)
    [group] = await calls([replica])
    async with database.hot.acquire() as claiming, claiming.transaction():
        rows = await claim(claiming, ids[:2], [queue_id] * 2, [uuid4()] * 2)
        assert len(rows) == 2
        await set_limits(database, queue_id, max_concurrent_jobs=3)
        await run(group)
        # Nobody knows yet how many run.
        assert taken(group) == 0
    await run(group)
    assert taken(group) == 1


async def test_a_claim_that_picked_before_the_limit_came_takes_nothing_past_it(
    replica: JobUseCases, database: Database
) -> None:
    """The pick saw a queue without limits; the claim reads the rule again."""
    queue_id = await insert_queue(database.hot, "q")
    await insert_jobs(database.hot, queue_id, priorities=[0] * 6)
    call = demand()
    await replica.open(call)
    picked = await replica.claimer.pick(call.subscription, 6, 6, (), (), call.max_message_bytes)
    await set_limits(database, queue_id, max_concurrent_jobs=1)
    claimed = await replica.claimer.claim(DEFAULT_PROJECT_ID, [(each, call) for each in picked])
    assert claimed.leases == []
    await run(replica.group(call))
    assert len(call.outbox) == 1


async def test_a_full_queue_does_not_keep_others_back_however_high_it_ranks(
    replica: JobUseCases, database: Database
) -> None:
    full = await insert_queue(database.hot, "full", priority=9, max_concurrent_jobs=1)
    low = await insert_queue(database.hot, "low", priority=0)
    await insert_jobs(database.hot, full, priorities=[9] * 300)
    await insert_jobs(database.hot, low, priorities=[0] * 4)
    [group] = await calls([replica], max_in_flight=5)
    await run(group)
    leased = [each.message.job.queue_id for call in group.demands for each in call.outbox]
    assert leased == [str(full)] + [str(low)] * 4


async def test_a_queue_that_another_claim_counts_does_not_keep_others_back(
    replica: JobUseCases, database: Database
) -> None:
    busy = await insert_queue(database.hot, "busy", priority=9, max_concurrent_jobs=10)
    free = await insert_queue(database.hot, "free")
    await insert_jobs(database.hot, busy, priorities=[0] * 3)
    await insert_jobs(database.hot, free, priorities=[0] * 3)
    [group] = await calls([replica])
    async with database.hot.acquire() as other, other.transaction():
        assert await lock_limited_queues(other, [busy]) == [busy]
        await run(group)
        assert taken(group) == 3
    await run(group)
    assert taken(group) == 6


async def test_a_replica_that_dies_while_it_claims_leaves_no_count_behind(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q", max_concurrent_jobs=4, rate_limit_per_minute=4)
    ids = await insert_jobs(database.hot, queue_id, priorities=[0] * 9)
    async with database.hot.acquire() as dying:
        transaction = dying.transaction()
        await transaction.start()
        assert await lock_limited_queues(dying, [queue_id]) == [queue_id]
        assert await claim(dying, ids[:3], [queue_id] * 3, [uuid4()] * 3, limited=[queue_id])
        await database.hot.execute("SELECT pg_terminate_backend($1, 10000)", dying.get_server_pid())
    [group] = await calls([replica])
    await run(group)
    assert taken(group) == await processing(database) == 4
    assert await miscounts(database.hot) == []


async def test_a_session_that_is_rescued_frees_its_slots(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q", max_concurrent_jobs=3)
    await insert_jobs(database.hot, queue_id, priorities=[0] * 9)
    dead, alive = await calls([replica, second_replica])
    await run(dead)
    await run(alive)
    assert (taken(dead), taken(alive)) == (3, 0)
    await database.hot.execute(
        "UPDATE taskforge.sessions SET expires_at = clock_timestamp() WHERE expires_at IS NOT NULL"
    )
    await Rescuer(database.hot, Notifier(database.hot, "scheduler")).run_once()
    await run(alive)
    assert taken(alive) == await processing(database) == 3


async def test_no_more_start_within_a_minute_than_the_rate_allows(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    await install(database.hot)
    queue_id = await insert_queue(database.hot, "q")
    rules = Rules(database.hot, queue_id)
    await rules.set(None, 5)
    await insert_jobs(database.hot, queue_id, priorities=[0] * 40)
    groups = await calls([replica, second_replica], each=2)
    for minute in range(1, 4):
        await run(*groups)
        await run(groups[0])
        # Returned leases have started as well.
        for group in groups:
            await settle(database, group, 9, Released())
        await run(*groups)
        assert await rules.check() == 5 * minute
        # Within the window nothing starts, and just behind it everything may again.
        await rules.pass_time(timedelta(seconds=58))
        await run(*groups)
        assert await rules.check() == 5 * minute
        await rules.pass_time(timedelta(seconds=3))


async def test_a_changed_rate_counts_what_has_started_before(
    replica: JobUseCases, database: Database
) -> None:
    await install(database.hot)
    queue_id = await insert_queue(database.hot, "q")
    rules = Rules(database.hot, queue_id)
    await rules.set(2, 6)
    await insert_jobs(database.hot, queue_id, priorities=[0] * 40)
    [group] = await calls([replica])
    started = 0
    for per_minute, expected in ((6, 6), (4, 6), (9, 9)):
        await rules.set(2, per_minute)
        for _ in range(6):
            await run(group)
            assert taken(group) <= 2
            await settle(database, group, 2)
        started = await rules.check()
        assert started == expected
    await rules.pass_time(MINUTE)
    await run(group)
    assert await rules.check() == started + 2


async def test_only_the_starts_of_the_last_minute_are_kept(
    replica: JobUseCases, database: Database
) -> None:
    await install(database.hot)
    queue_id = await insert_queue(database.hot, "q", rate_limit_per_minute=1000)
    rules = Rules(database.hot, queue_id)
    await rules.set(None, 1000)
    [group] = await calls([replica])
    for _ in range(3):
        await insert_jobs(database.hot, queue_id, priorities=[0] * 3)
        await run(group)
        await rules.pass_time(timedelta(seconds=40))
    row = await database.hot.fetchrow("SELECT seconds, starts FROM taskforge.queue_starts")
    assert row is not None
    assert sum(row["starts"]) <= 6
    assert row["seconds"] == sorted(row["seconds"])


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_no_limit_is_broken(
    replica: JobUseCases, second_replica: JobUseCases, database: Database, seed: int
) -> None:
    """Claims at once, settles, rescues and changes of limits, checked on the log of a trigger."""
    chance = random.Random(seed)
    await install(database.hot)
    queues = [await insert_queue(database.hot, f"q{n}", priority=n) for n in range(2)]
    rules = [Rules(database.hot, queue_id) for queue_id in queues]
    for each in rules:
        await each.set(3, None)
    for queue_id in queues:
        await insert_jobs(database.hot, queue_id, priorities=[n % 10 for n in range(400)])
    groups = await calls([replica, second_replica], each=2, max_in_flight=8)
    rescuer = Rescuer(database.hot, Notifier(database.hot, "scheduler"))

    async def change() -> None:
        rule = chance.choice(rules)
        await rule.set(
            chance.choice([None, 1, 2, 5, 9]), chance.choice([None, None, 5, 20, 60, 200])
        )

    async def end_some() -> None:
        group = chance.choice(groups)
        endings: list[Ending] = [Succeeded(), Released(), Failed(retry_after=timedelta(0))]
        ending = chance.choice(endings)
        await settle(database, group, chance.randint(1, 4), ending)

    async def rescue() -> None:
        [call] = chance.choice(groups).demands
        await database.hot.execute(
            "UPDATE taskforge.sessions SET expires_at = clock_timestamp() WHERE session_id = $1",
            call.session_id,
        )
        await rescuer.run_once()
        await heal(database, call)

    for _ in range(60):
        steps: list[Coroutine[Any, Any, object]] = [group.run_once() for group in groups]
        steps += [chance.choices([end_some, rescue, change], [6, 1, 2])[0](), end_some()]
        await asyncio.gather(*steps)
        if chance.random() < 0.05:
            # For both: they share the log.
            for each in rules:
                assert await each.check() >= 0
            await rules[0].pass_time(MINUTE)
            shift(rules[1])
    checked = [await each.check() for each in rules]
    assert sum(checked) > 60, checked
    assert await miscounts(database.hot) == []


def shift(rules: Rules) -> None:
    """What `pass_time` of another queue's rules has done to the log that both are checked on."""
    for rule in rules.history:
        rule.since -= MINUTE
        if rule.until is not None:
            rule.until -= MINUTE
    if rules._rated_since is not None:
        rules._rated_since -= MINUTE


async def heal(database: Database, call: Demand) -> None:
    """What the session's next heartbeat would do."""
    await database.hot.execute(
        "UPDATE taskforge.sessions SET must_heartbeat = false,"
        " expires_at = clock_timestamp() + lease_duration WHERE session_id = $1",
        call.session_id,
    )
    for lease_seq in list(call.held):
        call.drop(lease_seq)
    call.outbox.clear()
    rows = await database.hot.fetch(
        "SELECT lease_seq FROM taskforge.jobs WHERE session_id = $1", call.session_id
    )
    for row in rows:
        call.hold(row["lease_seq"], "token", 2)
    call.resume()
