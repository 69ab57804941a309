"""What Postgres itself allows: a table, and its rows claimed and settled by 1,000.

A claim marks rows; a settlement deletes them and writes them into a history. No queue system can do
with less, so this is a limit and no peer. One connection does it: a second one does not make it
faster on two cores.
"""

import asyncio
import time
import uuid

import asyncpg
from tests.benchmarks.peers.loading import Order, answer, order, payload_of

_BATCH = 1_000

_TABLES = """
CREATE TABLE jobs (
    id uuid PRIMARY KEY, status smallint NOT NULL, created_at timestamptz NOT NULL,
    payload text NOT NULL);
CREATE INDEX ON jobs (id) WHERE status = 1;
CREATE TABLE history (LIKE jobs);
CREATE INDEX ON history (id);
"""

_INSERT = """
INSERT INTO jobs (id, status, created_at, payload)
SELECT uuidv7(), 1, now(), $1 FROM generate_series(1, $2::integer)
"""

# The array is computed once, so the limit holds.
_CLAIM = """
UPDATE jobs SET status = 2
WHERE id = ANY (ARRAY(
    SELECT id FROM jobs WHERE status = 1 ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING id, payload
"""

_SETTLE = """
WITH settled AS (
    DELETE FROM jobs WHERE id = ANY ($1::uuid[]) AND status = 2
    RETURNING id, created_at, payload)
INSERT INTO history (id, status, created_at, payload)
SELECT id, 4, created_at, payload FROM settled
"""


async def cycle(connection: "asyncpg.Connection[asyncpg.Record]") -> list[uuid.UUID]:
    """Claim and settle until nothing is left; what was settled."""
    done: list[uuid.UUID] = []
    while rows := await connection.fetch(_CLAIM, _BATCH):
        ids = [row["id"] for row in rows]
        await connection.execute(_SETTLE, ids)
        done += ids
    return done


async def main(told: Order) -> None:
    connection = await asyncpg.connect(told.where)
    if told.do == "install":
        await connection.execute(_TABLES)
        answer({})
        return
    payload = payload_of(told.payload_bytes)
    for jobs in (told.warm_up, told.jobs):
        await connection.execute(_INSERT, payload, jobs)
        first_ns = time.monotonic_ns()
        done = await cycle(connection)
        ended_ns = time.monotonic_ns()
    answer(
        {
            "jobs": len(done),
            "distinct": len(set(done)),
            "first_ns": first_ns,
            "ended_ns": ended_ns,
        }
    )


if __name__ == "__main__":
    asyncio.run(main(order()))
