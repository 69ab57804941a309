"""Paused queues open when their time has come, and no others."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from tests.integration.scheduler_service.conftest import RecordingNotifier
from tests.support.explaining import PLAN_MODES, Explainer, PlanMode
from tests.support.rows import insert_project, insert_queue
from tests.support.snapshots import unchanged

from scheduler_service.queries import resume_due_queues
from scheduler_service.resuming import Resumer
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID

HOUR = timedelta(hours=1)


async def paused_queue(
    database: Database,
    name: str,
    *,
    opens_in: timedelta | None,
    keep_accepting: bool = False,
    project_id: UUID = DEFAULT_PROJECT_ID,
    deleted_at: datetime | None = None,
) -> UUID:
    """A paused queue; a negative time means that it should be open already."""
    return await insert_queue(
        database.hot,
        name,
        project_id=project_id,
        is_active=False,
        accepts_jobs=keep_accepting,
        resume_at=None if opens_in is None else datetime.now(UTC) + opens_in,
        deleted_at=deleted_at,
    )


async def is_open(database: Database, queue_id: UUID) -> bool:
    row = await database.hot.fetchrow(
        "SELECT is_active, accepts_jobs, resume_at FROM queues WHERE id = $1", queue_id
    )
    return row == (True, True, None)


@pytest.mark.parametrize("keep_accepting", [False, True])
async def test_a_queue_whose_time_has_come_opens_and_wakes_those_who_wait(
    database: Database, notifier: RecordingNotifier, keep_accepting: bool
) -> None:
    queue_id = await paused_queue(database, "emails", opens_in=-HOUR, keep_accepting=keep_accepting)
    before = await database.hot.fetchval("SELECT updated_at FROM queues WHERE id = $1", queue_id)
    assert await Resumer(database.hot, notifier).run_once() is False
    assert await is_open(database, queue_id)
    after = await database.hot.fetchval("SELECT updated_at FROM queues WHERE id = $1", queue_id)
    assert after > before
    assert notifier.told == {"queues": {str(DEFAULT_PROJECT_ID)}, "ready": {str(queue_id)}}


async def test_other_pauses_last(database: Database, notifier: RecordingNotifier) -> None:
    await paused_queue(database, "later", opens_in=HOUR)
    await paused_queue(database, "for good", opens_in=None)
    await paused_queue(database, "deleted", opens_in=-HOUR, deleted_at=datetime.now(UTC))
    await insert_queue(database.hot, "open")
    async with unchanged(database.hot):
        assert await Resumer(database.hot, notifier).run_once() is False
    assert notifier.told == {}


async def test_the_queues_of_all_projects_open(
    database: Database, notifier: RecordingNotifier
) -> None:
    other = await insert_project(database.hot)
    first = await paused_queue(database, "emails", opens_in=-HOUR)
    second = await paused_queue(database, "emails", opens_in=-HOUR, project_id=other)
    await Resumer(database.hot, notifier).run_once()
    assert notifier.told == {
        "queues": {str(DEFAULT_PROJECT_ID), str(other)},
        "ready": {str(first), str(second)},
    }


async def test_a_pass_opens_one_batch_and_says_that_more_may_be_due(
    database: Database, notifier: RecordingNotifier
) -> None:
    ids = [
        await paused_queue(database, f"q{number}", opens_in=-HOUR * (4 - number))
        for number in range(3)
    ]
    resumer = Resumer(database.hot, notifier, batch_size=2)
    assert await resumer.run_once() is True
    assert [await is_open(database, queue_id) for queue_id in ids] == [True, True, False]
    assert await resumer.run_once() is False
    assert await is_open(database, ids[2])


@pytest.mark.parametrize("commits", [True, False])
async def test_a_queue_that_somebody_changes_is_left_for_the_next_pass(
    database: Database, notifier: RecordingNotifier, commits: bool
) -> None:
    queue_id = await paused_queue(database, "emails", opens_in=-HOUR)
    resumer = Resumer(database.hot, notifier)
    async with database.hot.acquire() as connection:
        pause = connection.transaction()
        await pause.start()
        await connection.execute("UPDATE queues SET resume_at = NULL WHERE id = $1", queue_id)
        async with asyncio.timeout(10):
            await resumer.run_once()
        assert notifier.told == {}
        await (pause.commit() if commits else pause.rollback())
    await resumer.run_once()
    # Paused anew, for good; or still due.
    assert await is_open(database, queue_id) is not commits


async def test_two_schedulers_at_once_open_each_queue_once(database: Database) -> None:
    for number in range(60):
        await paused_queue(database, f"q{number}", opens_in=-HOUR)
    notifiers = [RecordingNotifier(database) for _ in range(2)]
    resumers = [Resumer(database.hot, notifier, batch_size=5) for notifier in notifiers]

    async def until_done(resumer: Resumer) -> None:
        while await resumer.run_once():
            pass

    # Each may see the other's locks on all that is left, and stop: a last pass takes what remains.
    await asyncio.gather(*(until_done(resumer) for resumer in resumers))
    await until_done(resumers[0])
    told = [notifier.told["ready"] for notifier in notifiers]
    assert not told[0] & told[1]
    assert len(told[0] | told[1]) == 60
    assert await database.hot.fetchval("SELECT count(*) FROM queues WHERE is_active") == 60


@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_opening_reads_what_is_due_and_nothing_else(
    database: Database, mode: PlanMode
) -> None:
    await database.hot.execute(
        "INSERT INTO queues (project_id, id, name, is_active, accepts_jobs, resume_at)"
        " SELECT $1, gen_random_uuid(), 'q' || i, i % 2 = 0, i % 2 = 0,"
        " CASE WHEN i % 2 = 1 THEN clock_timestamp() + interval '1 hour' END"
        " FROM generate_series(1, 10000) AS i",
        DEFAULT_PROJECT_ID,
    )
    for number in range(3):
        await paused_queue(database, f"due {number}", opens_in=-HOUR)
    await database.hot.execute("ANALYZE taskforge.queues")
    async with Explainer(database.hot, mode) as explainer:
        assert len(await resume_due_queues(explainer, 1000)) == 3
        assert explainer.indexes == {"queues_resume"}
        assert explainer.scanned_tables == set()
        [due] = [node for node in explainer.plan if node.get("Index Name") == "queues_resume"]
        assert due["Actual Rows"] == 3
