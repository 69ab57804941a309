"""pgqueuer with asyncpg, uvloop and batches of 1,000; its tables are the durable ones."""

import asyncio
import json
import logging
from typing import Any

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, Queries, QueueManager
from pgqueuer.models import Job
from tests.benchmarks.peers.loading import Note, Order, answer, carry_out, order

_ENTRYPOINT = "noop"
_BATCH = 1_000
_POOL = 10
"""Connections for several callers: with 25 or 50 it is slower."""


class PgQueuer:
    """One connection for one caller and for the worker, a pool for several."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._queries = Queries(driver)
        self._manager = QueueManager(self._queries)
        self._running: asyncio.Task[None] | None = None

    async def install(self) -> None:
        await self._queries.install()

    async def create(self, payloads: list[str]) -> None:
        count = len(payloads)
        data = [payload.encode() for payload in payloads]
        await self._queries.enqueue([_ENTRYPOINT] * count, data, [0] * count)

    async def create_one(self, payload: str) -> None:
        await self._queries.enqueue(_ENTRYPOINT, payload.encode())

    async def start(self, note: Note) -> None:
        # A manager runs once: each start has its own.
        self._manager = QueueManager(self._queries)

        async def noop(job: Job) -> None:
            note(str(job.id), json.loads(job.payload or b"{}")["sent"])

        self._manager.entrypoint(_ENTRYPOINT)(noop)
        self._running = asyncio.create_task(self._manager.run(batch_size=_BATCH))

    async def stop(self) -> None:
        self._manager.shutdown.set()
        if self._running is not None:
            await self._running

    async def left(self) -> int:
        (row,) = await self._driver.fetch("SELECT count(*) AS jobs FROM pgqueuer")
        return int(row["jobs"])


async def main(told: Order) -> None:
    if told.callers == 1:
        connection = await asyncpg.connect(told.where)
        answer(await carry_out(PgQueuer(AsyncpgDriver(connection)), told))
        await connection.close()
        return
    async with asyncpg.create_pool(told.where, min_size=_POOL, max_size=_POOL) as pool:
        answer(await carry_out(PgQueuer(AsyncpgPoolDriver(pool)), told))


if __name__ == "__main__":
    logging.disable(logging.INFO)
    uvloop.run(main(order()))
