"""What the rules of the engine cost: `make bench`.

Each figure is the median of several runs on an embedded Postgres of its own (fsync on), in this
process, without gRPC: it shows how a cost grows, not how fast the system is. A line whose two
figures are alike says that the cost does not grow with what is named.
"""

import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from rich.console import Console
from rich.table import Table
from tests.support.demands import demand
from tests.support.rows import insert_queue
from tests.support.waiting import eventually

from job_service.demanding import Subscription
from job_service.grouping import Group
from job_service.leasing import Claimer
from job_service.queries import open_call
from job_service.routing import Routes
from scheduler_service import promoting
from scheduler_service.promoting import Promoter
from taskforge_core.counting import read_counts
from taskforge_core.database import Database
from taskforge_core.embedded import EmbeddedPostgres
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.logs import configure_logging
from taskforge_core.loops import Loop
from taskforge_core.migrating import migrate
from taskforge_core.notifications import Notifier
from taskforge_core.settings import Settings

REPEATS = 5
CLAIM = 1000
MANY_JOBS = 1_000_000
DUE_JOBS = 100_000


async def median_ms(measure: Callable[[], Awaitable[float]]) -> float:
    """The median of several measurements, in milliseconds."""
    return statistics.median([await measure() * 1000 for _ in range(REPEATS)])


@asynccontextmanager
async def fresh_database(server: EmbeddedPostgres) -> AsyncIterator[Database]:
    """A migrated, empty database."""
    name = f"bench_{uuid.uuid4().hex[:8]}"
    admin = Settings(database_url=server.dsn)
    async with _opened(admin) as database:
        await database.hot.execute(f"CREATE DATABASE {name}")
    dsn = server.dsn.replace("/taskforge?", f"/{name}?")
    await migrate(dsn)
    async with _opened(Settings(database_url=dsn)) as database:
        yield database


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Database]:
    database = await Database.open(settings, application_name="bench")
    try:
        yield database
    finally:
        await database.close()


async def fill(
    database: Database, queue_id: UUID, jobs: int, *, due_at: datetime | None = None
) -> None:
    """Waiting jobs straight into the table, with their counts."""
    status = 1 if due_at is None else 2
    async with database.hot.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = '10min'")
        await connection.execute(
            """
            INSERT INTO taskforge.jobs (
                project_id, id, queue_id, created_at, updated_at, scheduled_for, max_attempts,
                payload_bytes, status, priority, job_type, payload
            )
            SELECT $1, uuidv7(), $2, clock_timestamp(), clock_timestamp(),
                   $5::timestamptz, 3, 2, $4, n % 10, 'noop', '{}'
            FROM generate_series(1, $3::integer) AS n
            """,
            DEFAULT_PROJECT_ID,
            queue_id,
            jobs,
            status,
            due_at,
            timeout=600,
        )
        await connection.execute(
            "INSERT INTO taskforge.queue_deltas VALUES ($1, $2, $3, $4)",
            DEFAULT_PROJECT_ID,
            queue_id,
            status,
            jobs,
        )


async def claim_over(server: EmbeddedPostgres, queues: int, filled: int) -> float:
    """Milliseconds to claim 1,000 jobs from so many queues, some of them filled."""
    async with fresh_database(server) as database:
        ids = [await insert_queue(database.hot, f"q{n}") for n in range(queues)]
        for queue_id in ids[:filled]:
            await fill(database, queue_id, CLAIM * (REPEATS + 1) // filled + 1)
        await database.hot.execute("ANALYZE taskforge.jobs")
        notifier = Notifier(database.hot, "bench")
        subscription = Subscription(DEFAULT_PROJECT_ID, tuple(sorted(ids)), ())

        async def once() -> float:
            group = Group(subscription, Claimer(database), notifier)
            call = demand(queue_ids=subscription.queue_ids, max_in_flight=CLAIM)
            await open_call(
                database.hot,
                DEFAULT_PROJECT_ID,
                call.session_id,
                call.worker_id,
                timedelta(hours=1),
                call.call_id,
                True,
                uuid.uuid4(),
                CLAIM,
            )
            group.demands.append(call)
            started = time.perf_counter()
            while call.credit:
                await group.run_once()
            took = time.perf_counter() - started
            assert len(call.held) == CLAIM
            return took

        await once()
        return await median_ms(once)


async def count_with(server: EmbeddedPostgres, jobs: int) -> float:
    """Milliseconds to read a queue's counts with so many jobs in it."""
    async with fresh_database(server) as database:
        queue_id = await insert_queue(database.hot, "q")
        await fill(database, queue_id, jobs)

        async def once() -> float:
            async with database.engine.connect() as connection:
                started = time.perf_counter()
                counts = await read_counts(connection, DEFAULT_PROJECT_ID, queue_id)
                took = time.perf_counter() - started
            assert counts.pending == jobs
            return took

        await once()
        return await median_ms(once)


async def route(server: EmbeddedPostgres, *, cached: bool) -> float:
    """Microseconds to find a queue by its name among 500."""
    async with fresh_database(server) as database:
        for n in range(500):
            await insert_queue(database.hot, f"q{n}")
        routes = Routes(database)

        async def once() -> float:
            started = time.perf_counter()
            for n in range(100):
                if not cached:
                    routes.forget()
                assert await routes.find(DEFAULT_PROJECT_ID, f"q{n}") is not None
            return (time.perf_counter() - started) / 100

        await once()
        return await median_ms(once) * 1000


async def promote(server: EmbeddedPostgres) -> float:
    """Milliseconds from the time of 100,000 jobs until all are ready, the poll included."""
    async with fresh_database(server) as database:
        pool = database.hot
        queue_id = await insert_queue(pool, "q")
        promoter = Promoter(pool, Notifier(pool, "bench"))

        async def all_are_ready() -> bool:
            return not await pool.fetchval(
                "SELECT EXISTS (SELECT FROM taskforge.jobs WHERE status = 2)"
            )

        async def once() -> float:
            await pool.execute("TRUNCATE taskforge.jobs, taskforge.queue_deltas")
            due_at = datetime.now(UTC) + timedelta(seconds=4)
            await fill(database, queue_id, DUE_JOBS, due_at=due_at)
            loop = Loop("promote", promoter.run_once, promoting.EVERY)
            loop.start()
            left = (due_at - datetime.now(UTC)).total_seconds()
            assert left > 0.2, "the machine is too slow to fill the table in time"
            await asyncio.sleep(left)
            await eventually(all_are_ready, "all jobs are ready")
            took = (datetime.now(UTC) - due_at).total_seconds()
            await loop.stop()
            return took

        return await median_ms(once)


async def measure_all(server: EmbeddedPostgres) -> Table:
    """Everything, as a table."""
    table = Table("cost", "small", "large", title="What the rules cost")
    few, many = await claim_over(server, 5, 5), await claim_over(server, 500, 500)
    table.add_row("claim of 1,000: 5 / 500 queues, all filled", f"{few:.1f} ms", f"{many:.1f} ms")
    few, many = await claim_over(server, 5, 1), await claim_over(server, 500, 1)
    table.add_row("claim of 1,000: 5 / 500 queues, one filled", f"{few:.1f} ms", f"{many:.1f} ms")
    few, many = await count_with(server, 1000), await count_with(server, MANY_JOBS)
    table.add_row("a queue's counts: 1,000 / 1,000,000 jobs", f"{few:.2f} ms", f"{many:.2f} ms")
    few, many = await route(server, cached=True), await route(server, cached=False)
    table.add_row("a queue by name: cached / not", f"{few:.1f} µs", f"{many:.1f} µs")
    ready = await promote(server)
    table.add_row("100,000 due at once: until all are ready", f"{ready:.0f} ms", "")
    return table


def main() -> None:
    """Measure everything on a Postgres of its own."""
    configure_logging(log_level="warning")
    with tempfile.TemporaryDirectory(prefix="taskforge-bench-") as folder:
        # Postgres runs as nobody where this runs as root.
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "data") as server:
            Console().print(asyncio.run(measure_all(server)))


if __name__ == "__main__":
    main()
