"""The scheduler as a process: it takes over, waits, survives, and ends when told to."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
from tests.support.leases import insert_session, lease, statuses
from tests.support.rows import insert_jobs, insert_queue
from tests.support.waiting import eventually

from taskforge_core.database import Database
from taskforge_core.embedded import EmbeddedPostgres
from taskforge_core.migrating import migrate
from taskforge_core.settings import Settings
from taskforge_core.statuses import JobStatus

TAKE_OVER_SECONDS = 10.0
START_SECONDS = 30.0


class Scheduler:
    """A running process, and the events that it logs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._more = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, database_url: str | None) -> Self:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TASKFORGE_")
        }
        environment["TASKFORGE_LOG_FORMAT"] = "json"
        if database_url is not None:
            environment["TASKFORGE_DATABASE_URL"] = database_url
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "scheduler_service",
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._more:
                self.lines.append(line.decode())
                self._more.notify_all()

    def events(self, name: str) -> list[dict[str, Any]]:
        events = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [event for event in events if event["event"] == name]

    async def until(self, name: str, within: float = START_SECONDS, times: int = 1) -> None:
        """Return when it has logged the event so often."""
        try:
            async with asyncio.timeout(within), self._more:
                await self._more.wait_for(lambda: len(self.events(name)) >= times)
        except TimeoutError:
            raise AssertionError(f"no {name} within {within} s:\n{''.join(self.lines)}") from None

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self) -> int:
        """Tell it to end; its exit status."""
        self.send(signal.SIGTERM)
        async with asyncio.timeout(START_SECONDS):
            return await self.process.wait()

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading


Start = Callable[[str | None], Coroutine[Any, Any, Scheduler]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts schedulers, and kills those that are left."""
    async with AsyncExitStack() as stack:

        async def start_one(database_url: str | None) -> Scheduler:
            scheduler = await Scheduler.start(database_url)
            stack.push_async_callback(scheduler.kill)
            return scheduler

        yield start_one


@asynccontextmanager
async def opened(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(Settings(database_url=database_url, listen_url=None))
    try:
        yield database
    finally:
        await database.close()


async def until_done(database: Database, *names: str) -> None:
    """Give the scheduler one of each work, and return when all of it is done."""
    queue_id = await insert_queue(database.hot, f"work {names}")
    due, silent = await insert_jobs(database.hot, queue_id, priorities=[0, 0])
    await database.hot.execute(
        "UPDATE jobs SET status = 2, scheduled_for = clock_timestamp() WHERE id = $1", due
    )
    paused = await insert_queue(
        database.hot,
        f"paused {names}",
        is_active=False,
        accepts_jobs=False,
        resume_at=datetime.now(UTC),
    )
    session_id = await insert_session(database.hot)
    await lease(database.hot, [silent], session_id)
    await database.hot.execute("UPDATE sessions SET expires_at = clock_timestamp()")

    async def all_is_done() -> bool:
        pending = [JobStatus.PENDING] * 2
        unfolded = await database.hot.fetchval("SELECT count(*) FROM queue_deltas")
        is_open = await database.hot.fetchval("SELECT is_active FROM queues WHERE id = $1", paused)
        found = await statuses(database.hot, [due, silent])
        return found == pending and is_open and not unfolded

    await eventually(all_is_done, "the scheduler has done its work")


async def test_it_does_all_its_work_and_ends_cleanly(
    database: Database, database_url: str, start: Start
) -> None:
    scheduler = await start(database_url)
    await until_done(database)
    assert await scheduler.end() == 0
    assert scheduler.events("scheduling")
    assert not [line for line in scheduler.lines if '"level": "error"' in line]


async def test_it_ends_cleanly_while_another_leads(database_url: str, start: Start) -> None:
    leader = await start(database_url)
    await leader.until("leading")
    waiting = await start(database_url)
    await waiting.until("scheduling")
    assert await waiting.end() == 0
    assert not waiting.events("leading")


async def test_when_the_leader_ends_another_takes_over(
    database: Database, database_url: str, start: Start
) -> None:
    leader = await start(database_url)
    await leader.until("leading")
    waiting = await start(database_url)
    await waiting.until("scheduling")
    assert await leader.end() == 0
    await waiting.until("leading", TAKE_OVER_SECONDS)
    await until_done(database)


async def test_when_the_leader_is_killed_another_takes_over(
    database: Database, database_url: str, start: Start
) -> None:
    leader = await start(database_url)
    await leader.until("leading")
    waiting = await start(database_url)
    await waiting.until("scheduling")
    await leader.kill()
    await waiting.until("leading", TAKE_OVER_SECONDS)
    await until_done(database)


async def test_when_the_leader_freezes_another_takes_over_and_it_lets_go_when_it_thaws(
    database: Database, database_url: str, start: Start
) -> None:
    leader = await start(database_url)
    await leader.until("leading")
    waiting = await start(database_url)
    await waiting.until("scheduling")
    leader.send(signal.SIGSTOP)
    await waiting.until("leading", TAKE_OVER_SECONDS)
    leader.send(signal.SIGCONT)
    await leader.until("leader_lock_unreachable")
    await until_done(database)
    assert len(leader.events("leading")) == 1
    assert await leader.end() == 0


async def test_it_waits_for_the_schema(empty_database_url: str, start: Start) -> None:
    scheduler = await start(empty_database_url)
    await scheduler.until("schema_not_current")
    assert not scheduler.events("scheduling")
    await migrate(empty_database_url)
    async with opened(empty_database_url) as database:
        await until_done(database)


async def test_it_can_be_ended_while_it_waits(empty_database_url: str, start: Start) -> None:
    scheduler = await start(empty_database_url)
    await scheduler.until("schema_not_current")
    assert await scheduler.end() == 0


async def test_it_goes_on_when_the_database_comes_back(open_folder: Path, start: Start) -> None:
    postgres = EmbeddedPostgres(open_folder / "postgres", fsync=False)
    await asyncio.to_thread(postgres.start)
    try:
        await migrate(postgres.dsn)
        scheduler = await start(postgres.dsn)
        await scheduler.until("leading")
        async with opened(postgres.dsn) as database:
            await until_done(database, "before")
        await asyncio.to_thread(postgres.stop)
        await scheduler.until("leader_lock_unreachable")
        await asyncio.to_thread(postgres.start)
        await scheduler.until("leading", TAKE_OVER_SECONDS, times=2)
        async with opened(postgres.dsn) as database:
            await until_done(database, "after")
        assert await scheduler.end() == 0
    finally:
        await asyncio.to_thread(postgres.stop)


async def test_without_a_database_it_says_so_in_one_line(start: Start) -> None:
    scheduler = await start(None)
    assert await scheduler.process.wait() == 1
    await scheduler.kill()
    assert scheduler.lines == [
        "scheduler_service: TASKFORGE_DATABASE_URL is not set; it names the Postgres to use\n"
    ]
