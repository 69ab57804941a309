"""The passes of a group: they end when nobody wants more, or nothing more is to be had."""

import asyncio
import itertools
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import pytest
from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases, run
from tests.support.leases import lease, miscounts
from tests.support.rows import insert_jobs, insert_queue

from job_service.demanding import Demand
from job_service.grouping import IN_A_ROW, MAX_CLAIM, MAX_CLAIM_BYTES
from job_service.leasing import Claimed, Claimer, Hand
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID


def got(*calls: Demand) -> list[list[int]]:
    """The priorities of the jobs that wait to be sent to each call, as they were dealt."""
    return [[leased.message.job.priority for leased in call.outbox] for call in calls]


async def change_session(database: Database, call: Demand, assignment: str) -> None:
    await database.hot.execute(
        f"UPDATE taskforge.sessions SET {assignment} WHERE session_id = $1", call.session_id
    )


async def test_a_queue_with_many_jobs_is_emptied_though_many_queues_were_seen_before(
    replica: JobUseCases, database: Database
) -> None:
    """The share of one queue among fifty must not end the pass that finds one queue alone."""
    queues = [await insert_queue(database.hot, f"q{n}") for n in range(50)]
    for queue_id in queues:
        await insert_jobs(database.hot, queue_id)
    call = demand(max_in_flight=1000)
    await replica.open(call)
    group = replica.group(call)
    await run(group)
    assert len(call.outbox) == 50
    await insert_jobs(database.hot, queues[0], priorities=[0] * 900)
    await run(group)
    assert len(call.outbox) == 950
    assert await miscounts(database.hot) == []


async def test_every_job_is_taken_whatever_the_spread_over_the_queues(
    replica: JobUseCases, database: Database
) -> None:
    for place, count in enumerate([1, 7, 8, 9, 64, 300]):
        queue_id = await insert_queue(database.hot, f"q{place}")
        await insert_jobs(database.hot, queue_id, priorities=[n % 10 for n in range(count)])
    calls = [demand(max_in_flight=credit) for credit in (10, 400, 1000)]
    await replica.open(*calls)
    await run(replica.group(*calls))
    assert sum(len(call.outbox) for call in calls) == 389
    assert len(calls[0].outbox) == 10
    for priorities in got(*calls):
        assert len(priorities) >= 10


async def test_a_session_that_must_speak_first_does_not_let_others_be_overtaken(
    replica: JobUseCases, database: Database
) -> None:
    """What was dealt to it is still the best for the others."""
    queue_id = await insert_queue(database.hot, "q")
    dead, live = demand(max_in_flight=5), demand(max_in_flight=100)
    await replica.open(dead, live)
    await change_session(database, dead, "must_heartbeat = true")
    group = replica.group(dead, live)
    await insert_jobs(database.hot, queue_id, priorities=[6, 9, 7, 8])
    await run(group)
    assert got(dead, live) == [[], [9, 8, 7, 6]]
    await insert_jobs(database.hot, queue_id, priorities=[1, 3, 2])
    await run(group)
    assert got(dead, live) == [[], [9, 8, 7, 6, 3, 2, 1]]


async def test_a_session_that_drains_or_was_replaced_does_not_either(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    draining, replaced, live = (demand(max_in_flight=9) for _ in range(3))
    await replica.open(draining, replaced, live)
    await change_session(database, draining, "draining = true")
    await change_session(database, replaced, "call_id = gen_random_uuid()")
    await insert_jobs(database.hot, queue_id, priorities=[4, 9, 5, 8, 7, 6])
    await run(replica.group(draining, replaced, live))
    assert got(draining, replaced, live) == [[], [], [9, 8, 7, 6, 5, 4]]
    assert replaced.is_replaced


async def test_a_locked_session_is_left_out_for_a_moment_only(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    locked, live = demand(max_in_flight=2), demand(max_in_flight=2)
    await replica.open(locked, live)
    group = replica.group(locked, live)
    await insert_jobs(database.hot, queue_id, priorities=[9, 8, 7, 6])
    async with database.hot.acquire() as other, other.transaction():
        await other.execute(
            "SELECT FROM taskforge.sessions WHERE session_id = $1 FOR UPDATE", locked.session_id
        )
        await run(group)
        assert got(locked, live) == [[], [9, 8]]
        assert locked.is_paused_briefly
    locked.resume()
    await run(group)
    assert got(locked, live) == [[7, 6], [9, 8]]


async def test_a_small_job_behind_many_too_large_ones_is_found(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    large = await insert_jobs(database.hot, queue_id, priorities=[5] * 100, payload_bytes=100_000)
    [small] = await insert_jobs(database.hot, queue_id)
    narrow = demand(max_in_flight=1, max_message_bytes=65_536)
    wide = demand(max_in_flight=3)
    await replica.open(narrow, wide)
    await run(replica.group(narrow, wide))
    assert [leased.id for leased in narrow.outbox] == [small]
    assert {leased.id for leased in wide.outbox} < set(large)
    assert len(wide.outbox) == 3


async def test_jobs_that_another_claim_has_locked_do_not_end_the_pass(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    locked = await insert_jobs(database.hot, queue_id, priorities=[9] * 30)
    free = await insert_jobs(database.hot, queue_id, priorities=[1] * 3)
    call = demand(max_in_flight=10)
    await replica.open(call)
    async with database.hot.acquire() as other, other.transaction():
        await other.execute(
            "SELECT FROM taskforge.jobs WHERE id = ANY($1::uuid[]) FOR UPDATE", locked
        )
        await run(replica.group(call))
        assert [leased.id for leased in call.outbox] == sorted(free)


async def test_two_groups_at_once_share_the_jobs_and_take_them_all(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    calls = [demand(max_in_flight=1000) for _ in range(2)]
    groups = []
    for each, call in zip((replica, second_replica), calls, strict=True):
        await each.open(call)
        groups.append(each.group(call))
    ids: Sequence[UUID] = await insert_jobs(database.hot, queue_id, priorities=[0] * 1000)
    await asyncio.gather(*map(run, groups))
    # One that stepped aside for the other looks again a moment later.
    await asyncio.gather(*map(run, groups))
    taken = [leased.id for call in calls for leased in call.outbox]
    assert sorted(taken) == sorted(ids)
    assert await miscounts(database.hot) == []


async def test_what_a_session_holds_already_counts_from_the_first_pass_on(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    call = demand(max_in_flight=4)
    held = await insert_jobs(database.hot, queue_id, priorities=[0] * 3)
    await replica.open(call)
    await lease(database.hot, held, call.session_id, project_id=DEFAULT_PROJECT_ID)
    await change_session(database, call, "expires_at = clock_timestamp() + interval '30 s'")
    await replica.reconciler.reconcile(call)
    await insert_jobs(database.hot, queue_id, priorities=[0] * 5)
    await run(replica.group(call))
    assert len(call.outbox) == 1


# -- Bytes, time limits and terms ----------------------------------------------------------------

MIB = 1024 * 1024


class Claims:
    """Sees what is dealt to each claim."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[list[int]] = []
        """The bytes of the messages of each claim."""
        self.at_most: int | None = None
        """A claim of more jobs takes longer than a statement may."""
        claim = Claimer.claim

        async def observed(claimer: Claimer, project_id: UUID, hands: Sequence[Hand]) -> Claimed:
            self.sizes.append([picked.message_bytes for picked, _ in hands])
            if self.at_most is not None and len(hands) > self.at_most:
                raise asyncpg.QueryCanceledError
            return await claim(claimer, project_id, hands)

        monkeypatch.setattr(Claimer, "claim", observed)


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> Claims:
    return Claims(monkeypatch)


async def test_a_claim_has_so_many_bytes_as_it_can_read_in_time_and_the_pass_goes_on(
    replica: JobUseCases, database: Database, claims: Claims
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    await insert_jobs(database.hot, queue_id, priorities=[0] * 60, payload_bytes=MIB)
    calls = [demand(max_in_flight=3) for _ in range(20)]
    await replica.open(*calls)
    await replica.group(*calls).run_once()
    assert [len(call.outbox) for call in calls] == [3] * 20
    assert len(claims.sizes) == 4
    assert all(sum(sizes) <= MAX_CLAIM_BYTES for sizes in claims.sizes)


async def test_a_claim_that_takes_too_long_is_tried_with_half_as_many_jobs(
    replica: JobUseCases, database: Database, claims: Claims
) -> None:
    """As often as it takes; then they are more again."""
    queue_id = await insert_queue(database.hot, "q")
    await insert_jobs(database.hot, queue_id, priorities=[0] * 100)
    call = demand(max_in_flight=100)
    await replica.open(call)
    group = replica.group(call)
    claims.at_most = 30
    for _ in range(2):
        with pytest.raises(asyncpg.QueryCanceledError):
            await group.run_once()
    claims.at_most = None
    await run(group)
    assert len(call.outbox) == 100
    assert [len(sizes) for sizes in claims.sizes] == [100, 50, 25, 50, 25]


async def test_a_call_is_claimed_for_no_more_than_it_has_room_to_send(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    await insert_jobs(database.hot, queue_id, priorities=[0] * 20)
    await database.hot.execute(
        "UPDATE taskforge.jobs SET payload = to_json(repeat('x', 1000000)), payload_bytes = 1000002"
    )
    call = demand(max_in_flight=20)
    await replica.open(call)
    group = replica.group(call)
    await run(group)
    assert len(call.outbox) == 4
    call.sent(call.take(2))
    await run(group)
    assert len(call.outbox) == 4
    assert await miscounts(database.hot) == []


async def test_others_are_told_of_jobs_that_a_call_has_no_room_to_send(
    replica: JobUseCases, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(replica.notifier, "notify", lambda topic, *keys: told.extend(keys))
    queue_id = await insert_queue(database.hot, "q")
    call = demand(max_in_flight=20)
    await replica.open(call)
    group = replica.group(call)
    await insert_jobs(database.hot, queue_id, priorities=[0] * 5)
    group.wake([queue_id])
    await run(group)
    assert told == []
    await insert_jobs(database.hot, queue_id, priorities=[0] * 5)
    await database.hot.execute(
        "UPDATE taskforge.jobs SET payload = to_json(repeat('x', 1000000)), payload_bytes = 1000002"
    )
    group.wake([queue_id])
    await run(group)
    assert told == [str(queue_id)]


async def test_who_can_never_receive_large_jobs_passes_those_for_whom_others_have_no_bytes(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    [held] = await insert_jobs(database.hot, queue_id, priorities=[9])
    await insert_jobs(database.hot, queue_id, priorities=[5] * 100, payload_bytes=100_000)
    [small] = await insert_jobs(database.hot, queue_id)
    full = demand(max_in_flight=9, max_in_flight_bytes=1000)
    narrow = demand(max_in_flight=1, max_message_bytes=65_536)
    await replica.open(full)
    group = replica.group(full)
    await run(group)
    assert [leased.id for leased in full.outbox] == [held]
    await replica.open(narrow)
    group.demands.append(narrow)
    await run(group)
    assert [leased.id for leased in full.outbox] == [held]
    assert [leased.id for leased in narrow.outbox] == [small]


async def test_a_claim_is_for_no_more_than_the_session_may_hold_when_it_begins(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    call = demand(max_in_flight=3)
    await replica.open(call)
    await change_session(database, call, "max_in_flight = 1")
    await insert_jobs(database.hot, queue_id, priorities=[0] * 3)
    await run(replica.group(call))
    assert len(call.outbox) == 1
    assert await miscounts(database.hot) == []


async def test_what_a_session_may_not_hold_any_more_goes_to_others(
    replica: JobUseCases, database: Database
) -> None:
    """Also where nobody told this replica."""
    queue_id = await insert_queue(database.hot, "q")
    less, more, draining = (demand(max_in_flight=3) for _ in range(3))
    await replica.open(less, more, draining)
    await change_session(database, less, "max_in_flight = 1")
    await change_session(database, draining, "draining = true")
    await insert_jobs(database.hot, queue_id, priorities=[9, 8, 7, 6, 5])
    await run(replica.group(less, more, draining))
    assert [len(each) for each in got(less, more, draining)] == [1, 3, 0]
    assert sorted(itertools.chain(*got(less, more))) == [6, 7, 8, 9]
    assert (less.max_in_flight, draining.takes_jobs) == (1, False)
    await change_session(database, less, "max_in_flight = 2")
    await replica.reconciler.reconcile(less)
    assert less.credit == 1


@pytest.mark.parametrize(
    ("jobs", "sizes"), [(MAX_CLAIM, [0] * 30 + [IN_A_ROW] * 10), (80, [2] * 40)]
)
async def test_a_full_claim_is_dealt_in_runs_and_a_small_one_in_turns(
    replica: JobUseCases, database: Database, jobs: int, sizes: list[int]
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    calls = [demand(max_in_flight=100) for _ in range(40)]
    await replica.open(*calls)
    group = replica.group(*calls)
    await insert_jobs(database.hot, queue_id, priorities=[0] * jobs)
    await run(group)
    assert sorted(len(call.outbox) for call in calls) == sizes
