"""Redriving while others work in the same queues: each job moves once, and no running one."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from tests.support.dead_letters import insert_dead_letters
from tests.support.leases import insert_session, lease, miscounts, statuses
from tests.support.queue_replicas import Replica
from tests.support.races import at_once, reasons
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.snapshots import unchanged
from tests.support.waiting import until_blocked

from queue_service.queries import redrive_jobs
from queue_service.redriving import Redriver
from taskforge.v1 import job_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.errors import FailedPrecondition
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.notifications import Notifier
from taskforge_core.projects import Projects
from taskforge_core.queries import cancel_waiting_jobs
from taskforge_core.statuses import JobStatus

PENDING, SCHEDULED, PROCESSING = JobStatus.PENDING, JobStatus.SCHEDULED, JobStatus.PROCESSING


async def redrive(replica: Replica, **fields: Any) -> int:
    answer = await replica.redriver.redrive(pb.RedriveJobsRequest(queue="dead", **fields))
    return answer.redriven_jobs


async def two_queues(database: Database) -> tuple[UUID, UUID]:
    """The dead-letter queue, and the queue its jobs come from."""
    dead = await insert_queue(database.hot, "dead")
    return dead, await insert_queue(database.hot, "emails", dead_letter_queue_id=dead)


async def queue_ids(database: Database, ids: list[UUID]) -> list[UUID]:
    rows = await database.hot.fetch("SELECT id, queue_id FROM jobs WHERE id = ANY($1)", ids)
    of_job = {row["id"]: row["queue_id"] for row in rows}
    return [of_job[job_id] for job_id in ids]


# -- Steps ---------------------------------------------------------------------------------------


async def test_every_job_of_many_pages_and_batches_goes_back(
    replica: Replica, database: Database
) -> None:
    """The replica's pages have seven jobs, its batches three."""
    chance = random.Random(20261124)
    dead, emails = await two_queues(database)
    letters = await insert_queue(database.hot, "letters")
    gone = await insert_queue(database.hot, "gone", deleted_at=datetime.now(UTC))
    going: dict[UUID, UUID] = {}
    staying: list[UUID] = []
    for _ in range(60):
        status = chance.choice([PENDING, SCHEDULED, PROCESSING])
        origin = chance.choice([emails, letters, gone, dead])
        ids = await insert_dead_letters(
            database,
            dead,
            origin,
            status,
            priorities=[0] * chance.randint(1, 4),
            created_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=chance.randint(0, 5)),
        )
        if status is PROCESSING or origin in {gone, dead}:
            staying += ids
        else:
            going |= dict.fromkeys(ids, origin)
    staying += await insert_jobs(database.hot, dead, priorities=[0] * 5)
    before = await statuses(database.hot, staying)
    async with unchanged(database.hot):
        assert await redrive(replica, dry_run=True) == len(going)
    assert await redrive(replica) == len(going)
    assert await queue_ids(database, [*going]) == [*going.values()]
    assert set(await statuses(database.hot, [*going])) == {PENDING}
    assert await queue_ids(database, staying) == [dead] * len(staying)
    assert await statuses(database.hot, staying) == before
    assert await miscounts(database.hot) == []
    assert await redrive(replica) == 0


async def test_the_oldest_go_back_first_over_pages_and_batches(
    replica: Replica, database: Database
) -> None:
    dead, emails = await two_queues(database)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    by_age: dict[int, UUID] = {}
    for age in random.Random(1).sample(range(30), 30):
        created_at = start - timedelta(hours=age)
        [by_age[age]] = await insert_dead_letters(database, dead, emails, created_at=created_at)
    oldest_first = [by_age[age] for age in reversed(range(30))]
    assert await redrive(replica, max_jobs=10) == 10
    assert await queue_ids(database, oldest_first) == [emails] * 10 + [dead] * 20
    assert await redrive(replica, max_jobs=100, jobs_per_second=2) == 20
    rows = await database.hot.fetch(
        "SELECT id, status, scheduled_for FROM jobs WHERE id = ANY($1) ORDER BY created_at",
        oldest_first[10:],
    )
    assert [row["id"] for row in rows] == oldest_first[10:]
    assert [row["status"] for row in rows] == [PENDING] + [SCHEDULED] * 19
    gaps = {
        later["scheduled_for"] - earlier["scheduled_for"] for earlier, later in pairwise(rows[1:])
    }
    # Also from batch to batch.
    assert gaps == {timedelta(milliseconds=500)}
    assert await miscounts(database.hot) == []


async def test_a_turn_that_has_passed_when_it_is_given_is_now(database: Database) -> None:
    dead, emails = await two_queues(database)
    ids = await insert_dead_letters(database, dead, emails, priorities=[0] * 4)
    begins_at = datetime.now(UTC) - timedelta(seconds=2.5)
    await redrive_jobs(database.hot, DEFAULT_PROJECT_ID, dead, ids, 0, begins_at, 1)
    assert await statuses(database.hot, ids) == [PENDING, PENDING, PENDING, SCHEDULED]
    assert await miscounts(database.hot) == []


async def test_a_redriven_job_has_used_no_attempt_and_keeps_all_else(
    replica: Replica, database: Database
) -> None:
    dead, emails = await two_queues(database)
    await insert_dead_letters(database, dead, emails, SCHEDULED)
    await database.hot.execute(
        "UPDATE jobs SET attempt_count = 2, undelivered_count = 5, last_seq = 7, last_status = 2,"
        """ attempts = '[{"number": 1}]', max_attempts = 100, priority = 7"""
    )
    before = await database.hot.fetchrow("SELECT * FROM jobs")
    await database.hot.execute("UPDATE queues SET max_retries = 99 WHERE id = $1", emails)
    assert await redrive(replica) == 1
    after = await database.hot.fetchrow("SELECT * FROM jobs")
    assert before is not None
    assert after is not None
    changed = {name: after[name] for name in before.keys() if after[name] != before[name]}  # noqa: SIM118
    assert changed.pop("updated_at") > before["updated_at"]
    assert changed == {
        "queue_id": emails,
        "status": PENDING,
        "scheduled_for": None,
        "attempt_count": 0,
        "undelivered_count": 0,
    }


async def test_jobs_that_come_after_the_call_began_stay(
    replica: Replica, database: Database
) -> None:
    """Else a job that fails again at once would keep the call busy for ever."""
    dead, emails = await two_queues(database)
    later = datetime.now(UTC) + timedelta(minutes=5)
    await insert_dead_letters(database, dead, emails, created_at=later)
    assert await redrive(replica) == 0


async def test_projects_are_apart(replica: Replica, database: Database) -> None:
    other = await insert_project(database.hot)
    dead = await insert_queue(database.hot, "dead", project_id=other)
    theirs = await insert_queue(database.hot, "theirs", project_id=other)
    ours, _ = await two_queues(database)
    # Named by a queue of ours, which is no origin of theirs.
    await insert_dead_letters(database, dead, ours, project_id=other)
    await insert_dead_letters(database, dead, theirs, project_id=other)
    async with unchanged(database.hot):
        assert await redrive(replica) == 0
    assert await redrive(replica, project_id=str(other)) == 1


# -- Wake-ups ------------------------------------------------------------------------------------


class Told(Notifier):
    """Keeps what it is told instead of sending it."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.hot, "test")
        self.told: list[tuple[str, set[str]]] = []

    def notify(self, topic: str, *keys: str) -> None:
        self.told.append((topic, set(keys)))


async def test_the_queues_that_got_ready_jobs_are_told(database: Database) -> None:
    dead, emails = await two_queues(database)
    letters = await insert_queue(database.hot, "letters")
    await insert_dead_letters(database, dead, emails)
    await insert_dead_letters(database, dead, letters)
    notifier = Told(database)
    redriver = Redriver(database, Projects(database), notifier)
    await redriver.redrive(pb.RedriveJobsRequest(queue="dead", dry_run=True))
    assert notifier.told == []
    # The first is ready at once, the second in its turn: the scheduler will tell.
    await redriver.redrive(pb.RedriveJobsRequest(queue="dead", jobs_per_second=1))
    assert notifier.told == [("ready", {str(emails)})]
    await insert_dead_letters(database, dead, emails)
    await insert_dead_letters(database, dead, letters)
    await redriver.redrive(pb.RedriveJobsRequest(queue="dead"))
    assert notifier.told[1:] == [("ready", {str(emails), str(letters)})]


# -- Races ---------------------------------------------------------------------------------------


async def test_a_job_that_is_being_leased_is_passed_over(
    replica: Replica, database: Database
) -> None:
    dead, emails = await two_queues(database)
    taken, other = await insert_dead_letters(database, dead, emails, priorities=[0, 0])
    session_id = await insert_session(database.hot)
    async with database.hot.acquire() as connection, connection.transaction():
        assert await lease(connection, [taken], session_id)
        async with asyncio.timeout(10):
            assert await redrive(replica) == 1
    assert await queue_ids(database, [taken, other]) == [dead, emails]
    assert await statuses(database.hot, [taken, other]) == [PROCESSING, PENDING]
    assert await miscounts(database.hot) == []


async def test_what_changed_since_it_was_looked_at_is_judged_as_it_is_now(
    database: Database,
) -> None:
    dead, emails = await two_queues(database)
    other = await insert_queue(database.hot, "other")
    running, moved, ended, waiting = await insert_dead_letters(
        database, dead, emails, priorities=[0] * 4
    )
    await lease(database.hot, [running], await insert_session(database.hot))
    # Back and dead again elsewhere: it is no longer this queue's to give away.
    await database.hot.execute("UPDATE jobs SET queue_id = $1 WHERE id = $2", other, moved)
    await cancel_waiting_jobs(database.hot, DEFAULT_PROJECT_ID, [str(ended)])
    chosen = [running, moved, ended, waiting]
    rows = await redrive_jobs(
        database.hot, DEFAULT_PROJECT_ID, dead, chosen, 0, datetime.now(UTC), None
    )
    assert [tuple(row) for row in rows] == [(emails, PENDING, 1)]
    assert await queue_ids(database, [running, moved, waiting]) == [dead, other, emails]


@pytest.mark.parametrize("commits", [True, False])
async def test_an_origin_that_is_being_deleted_is_waited_for(
    replica: Replica, database: Database, commits: bool
) -> None:
    dead, emails = await two_queues(database)
    [job_id] = await insert_dead_letters(database, dead, emails)
    async with database.hot.acquire() as connection:
        deletion = connection.transaction()
        await deletion.start()
        await connection.execute(
            "UPDATE queues SET deleted_at = clock_timestamp() WHERE id = $1", emails
        )
        redriving = asyncio.create_task(redrive(replica))
        await until_blocked(database.hot, connection.get_server_pid())
        await (deletion.commit() if commits else deletion.rollback())
    assert await redriving == (0 if commits else 1)
    assert await queue_ids(database, [job_id]) == [dead if commits else emails]
    assert await miscounts(database.hot) == []


async def test_a_deletion_of_the_origin_sees_the_job_that_comes_back(
    replica: Replica, database: Database
) -> None:
    dead, emails = await two_queues(database)
    ids = await insert_dead_letters(database, dead, emails)
    async with database.hot.acquire() as connection, connection.transaction():
        await redrive_jobs(connection, DEFAULT_PROJECT_ID, dead, ids, 0, datetime.now(UTC), None)
        deleting = asyncio.create_task(
            replica.administrator.delete(pb.DeleteQueueRequest(queue="emails"))
        )
        await until_blocked(database.hot, connection.get_server_pid())
    with pytest.raises(FailedPrecondition) as caught:
        await deleting
    assert caught.value.reason == "QUEUE_NOT_EMPTY"


async def test_redrives_at_once_share_the_jobs(
    replicas: tuple[Replica, Replica], database: Database
) -> None:
    dead, emails = await two_queues(database)
    ids = await insert_dead_letters(database, dead, emails, priorities=[0] * 200)
    outcomes = await at_once([redrive(replica) for replica in replicas for _ in range(2)])
    assert reasons(outcomes) == []
    # Each may have passed over what another had locked at that moment.
    left = await redrive(replicas[0])
    assert sum(outcomes) + left == 200
    assert set(await queue_ids(database, ids)) == {emails}
    assert await miscounts(database.hot) == []


async def test_redrives_purges_and_leases_at_once_lose_no_job(
    replicas: tuple[Replica, Replica], database: Database
) -> None:
    first, second = replicas
    dead, emails = await two_queues(database)
    session_id = await insert_session(database.hot)
    ids = await insert_dead_letters(database, dead, emails, priorities=[0] * 300)
    leased: list[UUID] = []

    async def work() -> int:
        for _ in range(30):
            async with database.hot.acquire() as connection, connection.transaction():
                rows = await connection.fetch(
                    "SELECT id FROM jobs WHERE status = 1 ORDER BY random() LIMIT 3"
                    " FOR UPDATE SKIP LOCKED"
                )
                chosen = [row["id"] for row in rows]
                await lease(connection, chosen, session_id)
            leased.extend(chosen)
        return 0

    async def purge() -> int:
        request = pb.PurgeQueueRequest(queue="dead", statuses=[job_pb2.JOB_STATUS_PENDING])
        return (await second.purger.purge(request)).cancelled_jobs

    outcomes = await at_once([redrive(first, max_jobs=150), redrive(second), purge(), work()])
    assert reasons(outcomes) == []
    found = await statuses(database.hot, ids)
    assert found.count(JobStatus.CANCELLED) == outcomes[2]
    assert {job_id for job_id, status in zip(ids, found, strict=True) if status is PROCESSING} == {
        *leased
    }
    assert await miscounts(database.hot) == []
