"""The fence: only the current lease ends an attempt, and of two endings one counts."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tests.support.endings import contents, finish, give_back, leased_jobs, lock
from tests.support.leases import insert_session, lease, miscounts
from tests.support.rows import insert_project
from tests.support.waiting import until_blocked

from taskforge_core.database import Database
from taskforge_core.ending import end_leases
from taskforge_core.ids import DEFAULT_PROJECT_ID, uuid7
from taskforge_core.queries import finish_jobs, lock_leases
from taskforge_core.retrying import (
    LeaseExpired,
)
from taskforge_core.statuses import JobStatus

STATEMENTS = pytest.mark.parametrize("statement", [finish, give_back, lock])


# -- The fence ------------------------------------------------------------------------------------


@STATEMENTS
async def test_the_current_lease_is_found(database: Database, statement: Any) -> None:
    keys = await leased_jobs(database)
    assert await statement(database, keys) == keys


@STATEMENTS
async def test_a_stale_lease_changes_nothing(database: Database, statement: Any) -> None:
    [(job_id, stale), _] = await leased_jobs(database)
    await give_back(database, [(job_id, stale)])
    [(_, current)] = await lease(database.hot, [UUID(job_id)], await insert_session(database.hot))
    assert current > stale
    before = await contents(database)
    assert await statement(database, [(job_id, stale)]) == []
    assert await contents(database) == before


@STATEMENTS
async def test_the_lease_of_a_job_that_waits_again_changes_nothing(
    database: Database, statement: Any
) -> None:
    [key, _] = await leased_jobs(database)
    await give_back(database, [key])
    before = await contents(database)
    assert await statement(database, [key]) == []
    assert await contents(database) == before


@STATEMENTS
async def test_the_lease_of_a_finished_job_changes_nothing(
    database: Database, statement: Any
) -> None:
    [key, _] = await leased_jobs(database)
    await finish(database, [key])
    before = await contents(database)
    assert await statement(database, [key]) == []
    assert await contents(database) == before


@STATEMENTS
async def test_a_pair_forged_of_one_job_and_the_lease_of_another_changes_nothing(
    database: Database, statement: Any
) -> None:
    [(first, first_seq), (second, second_seq)] = await leased_jobs(database)
    before = await contents(database)
    forged = [(first, second_seq), (second, first_seq)]
    assert await statement(database, forged) == []
    assert await contents(database) == before


@STATEMENTS
async def test_another_project_cannot_end_the_lease(database: Database, statement: Any) -> None:
    keys = await leased_jobs(database)
    other = await insert_project(database.hot)
    before = await contents(database)
    assert await statement(database, keys, project_id=other) == []
    assert await contents(database) == before


@STATEMENTS
async def test_the_good_pairs_of_a_batch_count_whatever_the_others_are(
    database: Database, statement: Any
) -> None:
    good, (job_id, seq), returned = await leased_jobs(database, 3)
    await give_back(database, [returned])
    batch = sorted([good, (job_id, seq + 1000), returned, (str(uuid7()), seq)])
    assert await statement(database, batch) == [good]


# -- Two at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("second", [finish, give_back])
@pytest.mark.parametrize("first_commits", [True, False])
async def test_of_two_endings_of_one_lease_exactly_one_counts(
    database: Database, second: Any, first_commits: bool
) -> None:
    keys = await leased_jobs(database)
    async with database.hot.acquire() as holder:
        transaction = holder.transaction()
        await transaction.start()
        await end_leases(
            holder, DEFAULT_PROJECT_ID, dict.fromkeys(keys, LeaseExpired()), answered=False
        )
        racing = asyncio.create_task(second(database, keys))
        await until_blocked(database.hot, await holder.fetchval("SELECT pg_backend_pid()"))
        if first_commits:
            await transaction.commit()
        else:
            await transaction.rollback()
    assert await racing == ([] if first_commits else keys)
    assert await miscounts(database.hot) == []


async def test_what_was_locked_cannot_be_ended_by_another(database: Database) -> None:
    keys = await leased_jobs(database)
    async with database.hot.acquire() as holder, holder.transaction():
        await lock_leases(
            holder, DEFAULT_PROJECT_ID, [key[0] for key in keys], [key[1] for key in keys]
        )
        async with database.hot.acquire() as other:
            await other.execute("SET lock_timeout = '10ms'")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await finish_jobs(
                    other,
                    DEFAULT_PROJECT_ID,
                    [keys[0][0]],
                    [keys[0][1]],
                    [JobStatus.SUCCEEDED],
                    [None],
                    [None],
                    answered=True,
                )
            await other.execute("RESET lock_timeout")
