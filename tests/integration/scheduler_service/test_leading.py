"""One scheduler leads; another takes over when it is gone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from scheduler_service.leading import Leader
from taskforge_core.database import Database
from taskforge_core.settings import Settings


@dataclass
class Candidate:
    """A process's candidacy with a clock of the test's."""

    leader: Leader
    elections: list[None]
    seconds: float = 0

    async def pid(self) -> int:
        assert self.leader._connection is not None
        pid: int = await self.leader._connection.fetchval("SELECT pg_backend_pid()")
        return pid


def candidate(settings: Settings) -> Candidate:
    elections: list[None] = []
    made = Candidate(
        Leader(settings, lambda: elections.append(None), lambda: made.seconds), elections
    )
    return made


@pytest.fixture
async def two(settings: Settings) -> AsyncIterator[tuple[Candidate, Candidate]]:
    first, second = candidate(settings), candidate(settings)
    yield first, second
    await first.leader.resign()
    await second.leader.resign()


async def end_session(database: Database, pid: int) -> None:
    """End a session of the database and wait until it is gone."""
    assert await database.hot.fetchval("SELECT pg_terminate_backend($1, 10000)", pid)


async def test_of_two_candidates_the_first_leads(two: tuple[Candidate, Candidate]) -> None:
    first, second = two
    assert not first.leader.is_leading
    for _ in range(2):
        await first.leader.run_once()
        await second.leader.run_once()
        assert first.leader.is_leading
        assert not second.leader.is_leading
    assert (len(first.elections), len(second.elections)) == (1, 0)


async def test_when_many_stand_at_once_one_leads(settings: Settings) -> None:
    candidates = [candidate(settings) for _ in range(8)]
    await asyncio.gather(*(one.leader.run_once() for one in candidates))
    assert sum(one.leader.is_leading for one in candidates) == 1
    await asyncio.gather(*(one.leader.resign() for one in candidates))


async def test_another_takes_over_when_the_leader_loses_its_connection(
    database: Database, two: tuple[Candidate, Candidate]
) -> None:
    first, second = two
    await first.leader.run_once()
    await second.leader.run_once()
    await end_session(database, await first.pid())
    await second.leader.run_once()
    assert second.leader.is_leading
    await first.leader.run_once()
    assert not first.leader.is_leading


async def test_one_that_lost_the_lock_stands_again_and_can_be_elected_again(
    database: Database, two: tuple[Candidate, Candidate]
) -> None:
    first, second = two
    await first.leader.run_once()
    await end_session(database, await first.pid())
    await first.leader.run_once()
    assert not first.leader.is_leading
    await first.leader.run_once()
    assert first.leader.is_leading
    assert len(first.elections) == 2
    await second.leader.run_once()
    assert not second.leader.is_leading


async def test_a_leader_that_resigns_is_followed_at_once(
    two: tuple[Candidate, Candidate],
) -> None:
    first, second = two
    await first.leader.run_once()
    await second.leader.run_once()
    await first.leader.resign()
    assert not first.leader.is_leading
    await second.leader.run_once()
    assert second.leader.is_leading


async def test_a_leader_whose_ping_is_late_stops_believing_before_the_database_can_drop_it(
    two: tuple[Candidate, Candidate],
) -> None:
    first, _ = two
    await first.leader.run_once()
    assert first.leader._connection is not None
    limit = await first.leader._connection.fetchval(
        "SELECT setting::int FROM pg_settings WHERE name = 'idle_session_timeout'"
    )
    first.seconds += 3.9
    assert first.leader.is_leading
    first.seconds += 0.1
    assert not first.leader.is_leading
    assert first.seconds * 1000 < limit == 5000
    await first.leader.run_once()
    assert first.leader.is_leading


async def test_a_session_that_hangs_within_a_transaction_is_dropped_as_soon(
    two: tuple[Candidate, Candidate],
) -> None:
    first, _ = two
    await first.leader.run_once()
    assert first.leader._connection is not None
    limit = await first.leader._connection.fetchval(
        "SELECT setting::int FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'"
    )
    assert limit == 5000


async def test_a_candidate_without_a_database_does_not_lead_and_tries_again(
    settings: Settings, database: Database
) -> None:
    reachable = settings.database_url
    broken = Leader(settings.model_copy(update={"database_url": f"{reachable}_none"}))
    for _ in range(2):
        await broken.run_once()
        assert not broken.is_leading


async def test_passes_run_only_while_leading(two: tuple[Candidate, Candidate]) -> None:
    runs: list[str] = []

    def counting(name: str, result: object) -> Callable[[], Awaitable[object]]:
        async def run_once() -> object:
            runs.append(name)
            return result

        return run_once

    first, second = two
    await first.leader.run_once()
    await second.leader.run_once()
    assert await first.leader.only_while_leading(counting("more", True))() is True
    assert await first.leader.only_while_leading(counting("done", None))() is False
    assert await second.leader.only_while_leading(counting("never", True))() is False
    assert runs == ["more", "done"]
