"""pick_jobs: the order of leasing over queues and types, against a plain sort."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from asyncpg import Record
from tests.support.rows import insert_jobs, insert_project, insert_queue

from job_service.dealing import certain
from job_service.demanding import Subscription
from job_service.leasing import Claimer
from job_service.queries import pick_jobs
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.statuses import JobStatus

ALL = 10_000
ANY_SIZE = 16 * 1024 * 1024
START = datetime(2026, 1, 1, tzinfo=UTC)
TYPES = ("send", "print", "shred")


@dataclass(frozen=True)
class Ready:
    """A ready job of an open queue, with all that ranks it."""

    id: UUID
    queue_id: UUID
    queue_priority: int
    priority: int
    created_at: datetime
    job_type: str

    @property
    def rank(self) -> tuple[int, int, datetime, UUID]:
        return (-self.queue_priority, -self.priority, self.created_at, self.id)


async def picked(
    database: Database,
    *,
    queue_ids: Sequence[UUID] | None = None,
    per_source: int = ALL,
    limit: int = ALL,
    tried: Sequence[UUID] = (),
    job_types: Sequence[str] = (),
    project_id: UUID = DEFAULT_PROJECT_ID,
) -> list[Record]:
    return await pick_jobs(
        database.hot, project_id, queue_ids, per_source, limit, tried, job_types, (), ANY_SIZE
    )


def ids(rows: Sequence[Record]) -> list[UUID]:
    return [row["id"] for row in rows]


async def fill(database: Database, seed: int) -> list[Ready]:
    """Queues and jobs at random, with many that rank alike; those that can be leased, best first.

    Around them: paused and deleted queues, another project, and jobs that are not ready.
    """
    chance = random.Random(seed)
    ready = []
    other_project = await insert_project(database.hot, f"project {seed}")
    for place in range(8):
        kind = ["open", "open", "open", "open", "open", "paused", "deleted", "foreign"][place]
        project_id = other_project if kind == "foreign" else DEFAULT_PROJECT_ID
        priority = chance.randint(0, 2)
        queue_id = await insert_queue(
            database.hot,
            f"{seed} {place}",
            project_id=project_id,
            priority=priority,
            is_active=kind != "paused",
            deleted_at=START if kind == "deleted" else None,
        )
        for _ in range(chance.randint(0, 12)):
            status = chance.choice([JobStatus.PENDING] * 4 + [JobStatus.SCHEDULED])
            priorities = [chance.randint(0, 2) for _ in range(chance.randint(1, 6))]
            created_at = START + timedelta(seconds=chance.randint(0, 3))
            job_type = chance.choice(TYPES)
            made = await insert_jobs(
                database.hot,
                queue_id,
                status,
                priorities=priorities,
                created_at=created_at,
                project_id=project_id,
                job_type=job_type,
            )
            if kind == "open" and status is JobStatus.PENDING:
                ready += [
                    Ready(job_id, queue_id, priority, own, created_at, job_type)
                    for job_id, own in zip(made, priorities, strict=True)
                ]
    return sorted(ready, key=lambda job: job.rank)


@pytest.mark.parametrize("seed", range(4))
async def test_a_pick_is_the_head_of_a_plain_sort(database: Database, seed: int) -> None:
    ready = await fill(database, seed)
    everything = [job.id for job in ready]
    assert len(everything) > 30
    assert ids(await picked(database)) == everything
    for limit in (1, 2, 7, 40):
        assert ids(await picked(database, limit=limit, per_source=limit)) == everything[:limit]
    queue_ids = sorted({job.queue_id for job in ready})[:2]
    of_queues = [job.id for job in ready if job.queue_id in queue_ids]
    assert ids(await picked(database, queue_ids=queue_ids)) == of_queues
    for job_types in (["print"], ["print", "send"], list(TYPES), ["unknown"]):
        of_types = [job.id for job in ready if job.job_type in job_types]
        assert ids(await picked(database, job_types=job_types)) == of_types
    both = [job.id for job in ready if job.queue_id in queue_ids and job.job_type == "send"]
    assert ids(await picked(database, queue_ids=queue_ids, job_types=["send"])) == both


@pytest.mark.parametrize("typed", [False, True])
async def test_of_each_source_at_most_so_many_are_picked_and_the_best(
    database: Database, typed: bool
) -> None:
    ready = await fill(database, 4)
    job_types = ("print", "send") if typed else ()
    for per_source in (1, 3, 8):
        taken: Counter[tuple[UUID, str]] = Counter()
        expected = []
        for job in ready:
            source = (job.queue_id, job.job_type if typed else "")
            if (not typed or job.job_type in job_types) and taken[source] < per_source:
                taken[source] += 1
                expected.append(job.id)
        rows = await picked(database, per_source=per_source, job_types=job_types)
        assert ids(rows) == expected
        assert (
            ids(await picked(database, per_source=per_source, job_types=job_types, limit=5))
            == (expected[:5])
        )


@pytest.mark.parametrize("job_types", [(), ("print",), ("send", "shred")])
async def test_what_the_claimer_takes_for_certain_is_the_head_of_a_plain_sort(
    database: Database, job_types: tuple[str, ...]
) -> None:
    """The merge of sources that were read only so far."""
    ready = [job for job in await fill(database, 5) if not job_types or job.job_type in job_types]
    claimer = Claimer(database)
    subscription = Subscription(DEFAULT_PROJECT_ID, None, job_types)
    for per_source in (1, 2, 4):
        for limit in (1, 5, 20):
            candidates = await claimer.pick(subscription, per_source, limit, [], [], ANY_SIZE)
            sure, was_cut = certain(candidates, per_source)
            assert [each.id for each in sure] == [job.id for job in ready[: len(sure)]]
            assert was_cut >= (len(sure) < len(candidates))


@pytest.mark.parametrize("typed", [False, True])
async def test_what_was_tried_is_left_out_and_others_move_up(
    database: Database, typed: bool
) -> None:
    ready = await fill(database, 6)
    everything = [job.id for job in ready]
    tried = everything[:5] + everything[8:9]
    rest = [job_id for job_id in everything if job_id not in tried]
    job_types = TYPES if typed else ()
    assert ids(await picked(database, tried=tried, job_types=job_types)) == rest
    rows = await picked(database, tried=tried, job_types=job_types, limit=3, per_source=3)
    assert ids(rows) == rest[:3]


async def test_a_queue_or_type_named_twice_is_picked_once(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q")
    [job_id] = await insert_jobs(database.hot, queue_id)
    assert ids(await picked(database, queue_ids=[queue_id, queue_id])) == [job_id]


async def test_a_candidate_says_its_source_and_size(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q")
    [job_id] = await insert_jobs(database.hot, queue_id, job_type="send", payload_bytes=77)
    claimer = Claimer(database)
    [untyped] = await claimer.pick(
        Subscription(DEFAULT_PROJECT_ID, None, ()), 1, 1, [], [], ANY_SIZE
    )
    [typed] = await claimer.pick(
        Subscription(DEFAULT_PROJECT_ID, None, ("send",)), 1, 1, [], [], ANY_SIZE
    )
    assert (untyped.id, untyped.source, untyped.payload_bytes) == (job_id, queue_id, 77)
    assert (typed.id, typed.source, typed.payload_bytes) == (job_id, (queue_id, "send"), 77)


@pytest.mark.parametrize("typed", [False, True])
async def test_a_pick_neither_locks_nor_waits_and_leaves_out_what_is_locked(
    database: Database, typed: bool
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    made = await insert_jobs(database.hot, queue_id, priorities=[0] * 3, job_type="send")
    job_types = ("send",) if typed else ()
    async with database.hot.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM taskforge.jobs WHERE id = $1 FOR UPDATE", made[0])
        assert ids(await picked(database, job_types=job_types)) == made[1:]
        async with database.hot.acquire() as other, other.transaction():
            await pick_jobs(other, DEFAULT_PROJECT_ID, None, ALL, ALL, (), job_types, (), ANY_SIZE)
            await connection.execute("DELETE FROM taskforge.jobs WHERE id = $1", made[2])


async def test_what_was_locked_or_claimed_in_vain_is_picked_again(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q")
    made = await insert_jobs(database.hot, queue_id, priorities=[0] * 3)
    async with database.hot.acquire() as connection:
        await connection.execute("SELECT FROM taskforge.jobs WHERE id = $1 FOR UPDATE", made[0])
        undone = connection.transaction()
        await undone.start()
        await connection.execute("UPDATE taskforge.jobs SET priority = 9 WHERE id = $1", made[1])
        assert ids(await picked(database)) == [made[0], made[2]]
        await undone.rollback()
    assert ids(await picked(database)) == made
