"""A log of leases that a trigger of the tests writes: what ran when, whatever the services say.

A lease is logged in its own transaction, with the moment at which that began and the moment of the
lease; its end with a moment before that was committed. So if two leases of the log overlap, both
were running at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
from tests.support.leases import Connection

WINDOW = timedelta(seconds=60)

_INSTALL = """
CREATE TABLE taskforge.start_log (
    lease_seq   bigint PRIMARY KEY,
    queue_id    uuid NOT NULL,
    began_at    timestamptz NOT NULL,
    started_at  timestamptz NOT NULL,
    ended_at    timestamptz
);
CREATE FUNCTION taskforge.log_start() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status <> 3 AND TG_OP = 'UPDATE' AND NEW.status = 3 THEN
        INSERT INTO taskforge.start_log (lease_seq, queue_id, began_at, started_at)
        VALUES (NEW.lease_seq, NEW.queue_id, transaction_timestamp(), NEW.started_at);
    ELSIF OLD.status = 3 AND (TG_OP = 'DELETE' OR NEW.status <> 3) THEN
        UPDATE taskforge.start_log SET ended_at = clock_timestamp() WHERE lease_seq = OLD.lease_seq;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER log_start AFTER UPDATE OR DELETE ON taskforge.jobs
    FOR EACH ROW EXECUTE FUNCTION taskforge.log_start();
"""


async def install(connection: Connection) -> None:
    """Log leases from now on."""
    await connection.execute(_INSTALL)


@dataclass
class Rule:
    """The limits of a queue while they may have been in force."""

    since: datetime
    """Before their change was committed."""
    until: datetime | None
    """After the next change was committed; None: still in force."""
    max_concurrent: int | None
    per_minute: int | None


class Rules:
    """The limits that a queue has had; changes them, and checks the log against them."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", queue_id: UUID) -> None:
        """The queue has none so far."""
        self._pool = pool
        self._queue_id = queue_id
        self.history: list[Rule] = []
        self._rated_since: datetime | None = None

    async def set(self, max_concurrent: int | None, per_minute: int | None) -> None:
        """Give the queue these limits; returns after the commit."""
        before: datetime = await self._pool.fetchval("SELECT clock_timestamp()")
        await self._pool.execute(
            "UPDATE taskforge.queues SET max_concurrent_jobs = $2, rate_limit_per_minute = $3"
            " WHERE id = $1",
            self._queue_id,
            max_concurrent,
            per_minute,
        )
        after: datetime = await self._pool.fetchval("SELECT clock_timestamp()")
        if self.history:
            self.history[-1].until = after
        was_rated = bool(self.history) and self.history[-1].per_minute is not None
        if not was_rated:
            # Starts are counted while there is a rate to keep.
            self._rated_since = after
        self.history.append(Rule(before, None, max_concurrent, per_minute))

    async def pass_time(self, span: timedelta) -> None:
        """Put all that has happened so far back in time, where leases are counted and logged."""
        await self._pool.execute(
            "UPDATE taskforge.start_log SET began_at = began_at - $1::interval,"
            " started_at = started_at - $1::interval, ended_at = ended_at - $1::interval",
            span,
        )
        await self._pool.execute(
            "UPDATE taskforge.queue_starts SET seconds ="
            " (SELECT array_agg(s - $1::bigint) FROM unnest(seconds) AS s)",
            int(span.total_seconds()),
        )
        for rule in self.history:
            rule.since -= span
            if rule.until is not None:
                rule.until -= span
        if self._rated_since is not None:
            self._rated_since -= span

    async def check(self) -> int:
        """Assert that no lease of the log broke a limit; how many there were."""
        rows = await self._pool.fetch(
            "SELECT * FROM taskforge.start_log WHERE queue_id = $1 ORDER BY started_at",
            self._queue_id,
        )
        for row in rows:
            self._check_one(row, rows)
        return len(rows)

    def _check_one(self, row: asyncpg.Record, rows: Sequence[asyncpg.Record]) -> None:
        at: datetime = row["started_at"]
        # A claim may go by any rule that was in force since it began.
        rules = [
            rule
            for rule in self.history
            if rule.since <= at and (rule.until is None or rule.until >= row["began_at"])
        ]
        assert rules
        concurrent = [rule.max_concurrent for rule in rules]
        if None not in concurrent:
            running = sum(
                other["started_at"] <= at and (other["ended_at"] is None or other["ended_at"] > at)
                for other in rows
            )
            assert running <= max(filter(None, concurrent)), (running, rules)
        rates = [rule.per_minute for rule in rules]
        if None not in rates and self._rated_since is not None:
            started = sum(
                at - WINDOW < other["started_at"] <= at and other["began_at"] > self._rated_since
                for other in rows
            )
            assert started <= max(filter(None, rates)), (started, rules)
