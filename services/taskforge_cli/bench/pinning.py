"""A transaction that stays open: its snapshot keeps dead rows from being removed."""

from taskforge_cli.bench.caller import Caller
from taskforge_cli.bench.orders import Outcome, Pin


async def pin(order: Pin, caller: Caller) -> Outcome:
    """Take a snapshot, and keep it until told to stop."""
    import asyncpg

    connection = await asyncpg.connect(order.dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.fetchval("SELECT count(*) FROM taskforge.queues")
            caller.done = 1
            caller.tell()
            await caller.stop.wait()
    finally:
        await connection.close()
    return Outcome()
