"""Counts stay exact whatever happens, and folding changes no sum."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import pytest
from tests.integration.scheduler_service.conftest import RecordingNotifier
from tests.support.leases import LeaseKey, insert_session, lease, miscounts
from tests.support.rows import insert_jobs, insert_project, insert_queue

from scheduler_service.folding import Folder
from scheduler_service.promoting import Promoter
from taskforge_core.database import Database
from taskforge_core.ending import end_leases
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import cancel_waiting_jobs
from taskforge_core.retrying import (
    Ending,
    Failed,
    LeaseExpired,
    Released,
    Snoozed,
    Succeeded,
    TimedOut,
    Undelivered,
)
from taskforge_core.statuses import JobStatus

ENDINGS: tuple[Ending, ...] = (
    Succeeded(),
    Failed(),
    Failed(retryable=False),
    Failed(retry_after=timedelta(0)),
    Released(),
    Snoozed(timedelta(milliseconds=1)),
    TimedOut(),
    LeaseExpired(),
    Undelivered(),
)


async def deltas(database: Database) -> int:
    number: int = await database.hot.fetchval("SELECT count(*) FROM queue_deltas")
    return number


async def folded(database: Database) -> dict[tuple[UUID, int], int]:
    rows = await database.hot.fetch("SELECT queue_id, status, n FROM queue_counts")
    return {(row["queue_id"], row["status"]): row["n"] for row in rows}


async def test_folding_moves_every_delta_into_its_count(database: Database) -> None:
    first = await insert_queue(database.hot, "first")
    second = await insert_queue(database.hot, "second")
    for _ in range(2):
        await insert_jobs(database.hot, first, priorities=[0] * 3)
        await insert_jobs(database.hot, second, JobStatus.FAILED)
    folder = Folder(database.hot)
    assert await folder.run_once() is False
    assert await deltas(database) == 0
    expected = {(first, JobStatus.PENDING): 6, (second, JobStatus.FAILED): 2}
    assert await folded(database) == expected
    await insert_jobs(database.hot, first)
    await folder.run_once()
    expected[first, JobStatus.PENDING] = 7
    assert await folded(database) == expected


async def test_the_same_queue_id_in_two_projects_is_two_queues(database: Database) -> None:
    other = await insert_project(database.hot)
    queue_id = await insert_queue(database.hot, "emails")
    for project_id in (DEFAULT_PROJECT_ID, other):
        await insert_jobs(database.hot, queue_id, project_id=project_id)
    await Folder(database.hot).run_once()
    rows = await database.hot.fetch("SELECT project_id, n FROM queue_counts")
    assert {tuple(row) for row in rows} == {(DEFAULT_PROJECT_ID, 1), (other, 1)}


async def test_a_pass_folds_one_batch_and_says_that_more_may_wait(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    for _ in range(5):
        await insert_jobs(database.hot, queue_id)
    folder = Folder(database.hot, batch_size=2)
    assert [await folder.run_once() for _ in range(3)] == [True, True, False]
    assert await folded(database) == {(queue_id, JobStatus.PENDING): 5}


async def test_a_delta_that_is_not_committed_is_not_folded(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    async with database.hot.acquire() as writer, writer.transaction():
        await insert_jobs(writer, queue_id)
        await Folder(database.hot).run_once()
        assert await folded(database) == {}
    assert await deltas(database) == 1


class Life:
    """Does to jobs, by chance, everything that can be done to them."""

    def __init__(self, database: Database, notifier: RecordingNotifier, seed: int) -> None:
        self.database = database
        self.promoter = Promoter(database.hot, notifier, batch_size=3)
        self.folder = Folder(database.hot, batch_size=4)
        self.random = random.Random(seed)
        self.queues: list[UUID] = []
        self.session_id = UUID(int=0)
        self.jobs: list[UUID] = []
        self.leases: list[LeaseKey] = []

    async def begin(self) -> None:
        """Make the queues and the one who takes jobs from them."""
        self.queues = [await insert_queue(self.database.hot, f"q{number}") for number in range(2)]
        self.session_id = await insert_session(self.database.hot)

    async def create(self) -> None:
        status = self.random.choice([JobStatus.PENDING, JobStatus.PENDING, JobStatus.SCHEDULED])
        async with self.database.hot.acquire() as connection, connection.transaction():
            self.jobs += await insert_jobs(
                connection,
                self.random.choice(self.queues),
                status,
                priorities=[0] * self.random.randint(1, 4),
            )

    async def take(self) -> None:
        some = self.random.sample(self.jobs, min(3, len(self.jobs)))
        self.leases += await lease(self.database.hot, some, self.session_id)

    async def end(self) -> None:
        """Ends leases, stale ones among them."""
        some = self.random.sample(self.leases, min(3, len(self.leases)))
        endings = {key: self.random.choice(ENDINGS) for key in some}
        async with self.database.hot.acquire() as connection, connection.transaction():
            await end_leases(connection, DEFAULT_PROJECT_ID, endings, answered=True)

    async def end_in_vain(self) -> None:
        some = self.random.sample(self.leases, min(3, len(self.leases)))
        async with self.database.hot.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            endings = {key: self.random.choice(ENDINGS) for key in some}
            await end_leases(connection, DEFAULT_PROJECT_ID, endings, answered=True)
            await transaction.rollback()

    async def cancel(self) -> None:
        some = self.random.sample(self.jobs, min(2, len(self.jobs)))
        ids = sorted(str(job_id) for job_id in some)
        await cancel_waiting_jobs(self.database.hot, DEFAULT_PROJECT_ID, ids)

    async def make_due(self) -> None:
        await self.database.hot.execute(
            "UPDATE jobs SET scheduled_for = clock_timestamp() WHERE status = 2"
        )

    async def promote(self) -> None:
        await self.promoter.run_once()

    async def fold(self) -> None:
        await self.folder.run_once()

    async def step(self) -> None:
        """One of all these."""
        steps: list[Callable[[], Awaitable[None]]] = [
            self.create,
            self.take,
            self.take,
            self.end,
            self.end,
            self.end_in_vain,
            self.cancel,
            self.make_due,
            self.promote,
            self.fold,
            self.fold,
        ]
        await self.random.choice(steps)()


@pytest.mark.parametrize("seed", range(5))
async def test_the_counts_are_right_after_every_step_of_any_life(
    database: Database, notifier: RecordingNotifier, seed: int
) -> None:
    life = Life(database, notifier, seed)
    await life.begin()
    for number in range(150):
        await life.step()
        assert await miscounts(database.hot) == [], f"after step {number}"
    while await life.folder.run_once():
        pass
    assert await deltas(database) == 0
    assert await miscounts(database.hot) == []


async def test_a_reader_sees_right_counts_at_every_moment_while_two_fold_and_others_write(
    database: Database, notifier: RecordingNotifier
) -> None:
    lives = [Life(database, notifier, seed) for seed in (10, 11)]
    await lives[0].begin()
    lives[1].queues, lives[1].session_id = lives[0].queues, lives[0].session_id
    running = True

    async def fold() -> None:
        folder = Folder(database.hot, batch_size=3)
        while running:
            await folder.run_once()

    async def read() -> int:
        reads = 0
        while running:
            assert await miscounts(database.hot) == []
            reads += 1
        return reads

    async def live(life: Life) -> None:
        for _ in range(200):
            await life.step()

    folders = [asyncio.create_task(fold()) for _ in range(2)]
    reader = asyncio.create_task(read())
    try:
        await asyncio.gather(*(live(life) for life in lives))
    finally:
        running = False
        await asyncio.gather(*folders)
    assert await reader > 10
    assert await miscounts(database.hot) == []
