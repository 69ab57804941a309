"""The scheduler process: `python -m scheduler_service`.

Any number may run; one leads and works, the others wait to take over. Settings come from the
environment, logs go to stderr. Exits with 1 and one line when it cannot start; SIGTERM ends it
with 0 once the passes that run are done.
"""

import asyncio
import signal
import sys
import uuid
from datetime import timedelta

import structlog
from pydantic import ValidationError

from scheduler_service import promoting
from scheduler_service.analyzing import Analyzer
from scheduler_service.cleaning import Cleaner
from scheduler_service.folding import Folder
from scheduler_service.leading import PING_EVERY, Leader
from scheduler_service.partitioning import PartitionKeeper
from scheduler_service.promoting import Promoter
from scheduler_service.rescuing import Rescuer
from scheduler_service.resuming import Resumer
from scheduler_service.timing_out import TimeoutEnforcer
from taskforge_core.database import Database
from taskforge_core.logs import configure_logging
from taskforge_core.loops import Loop
from taskforge_core.notifications import Notifier
from taskforge_core.settings import MissingDatabaseUrl, Settings

log = structlog.get_logger(__name__)

_LOOK_FOR_DATABASE_EVERY = 0.5

_OFTEN = timedelta(milliseconds=300)
_SOON = timedelta(milliseconds=500)
_EACH_SECOND = timedelta(seconds=1)
_EACH_MINUTE = timedelta(minutes=1)


def compose(database: Database, notifier: Notifier, leader: Leader) -> list[Loop]:
    """Every pass with its rhythm; all do nothing while another process leads.

    A due job is ready within 1 s and a pause ends within 1 s of its time; an overdue attempt and a
    silent session end within 2 s.
    """
    settings, pool = database.settings, database.hot
    cleaner = Cleaner(pool, settings.request_id_retention)
    passes = {
        "promote due jobs": (Promoter(pool, notifier).run_once, promoting.EVERY),
        "open paused queues": (Resumer(pool, notifier).run_once, _OFTEN),
        "time attempts out": (TimeoutEnforcer(pool, notifier).run_once, _SOON),
        "rescue silent sessions": (Rescuer(pool, notifier).run_once, _SOON),
        "fold counts": (Folder(pool).run_once, _EACH_SECOND),
        "analyze tables": (Analyzer(pool).run_once, _EACH_SECOND),
        "keep partitions": (
            PartitionKeeper(pool, settings.history_retention).run_once,
            _EACH_MINUTE,
        ),
        "forget request ids": (cleaner.forget_requests, _EACH_MINUTE),
        "remove sessions": (cleaner.remove_sessions, _EACH_MINUTE),
        "remove servers": (cleaner.remove_servers, _EACH_MINUTE),
        "clear deleted queues": (cleaner.clear_deleted_queues, _EACH_MINUTE),
        "remove empty counts": (cleaner.remove_empty_counts, _EACH_MINUTE),
    }
    return [
        Loop(name, leader.only_while_leading(run_once), every)
        for name, (run_once, every) in passes.items()
    ]


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Work, or wait to take over, until `stop`.

    Raises:
        MissingDatabaseUrl: The settings name no database.
    """
    database = await Database.open(settings, application_name="scheduler_service")
    try:
        if await _schema_is_current(database, stop):
            await _schedule(database, stop)
    finally:
        await database.close()


async def _schema_is_current(database: Database, stop: asyncio.Event) -> bool:
    """Wait for the database and its schema; False when stopped meanwhile."""
    while not stop.is_set():
        if await database.ready():
            return True
        try:
            async with asyncio.timeout(_LOOK_FOR_DATABASE_EVERY):
                await stop.wait()
        except TimeoutError:
            continue
    return False


async def _schedule(database: Database, stop: asyncio.Event) -> None:
    notifier = Notifier(database.hot, origin=str(uuid.uuid4()))
    loops: list[Loop] = []

    def wake_all() -> None:
        for loop in loops:
            loop.wake()

    leader = Leader(database.settings, on_elected=wake_all)
    loops += compose(database, notifier, leader)
    candidacy = Loop("lead", leader.run_once, PING_EVERY)
    for loop in (candidacy, *loops):
        loop.start()
    log.info("scheduling")
    await stop.wait()
    # The passes end first: the lock is given away when nothing of ours runs any more.
    await asyncio.gather(*(loop.stop() for loop in loops))
    await candidacy.stop()
    await leader.resign()
    await notifier.flushed()


async def run_until_signal(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        log.info("signal", name=number.name)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await run(settings, stop)


def main() -> None:
    """Start the process as its environment says."""
    try:
        settings = Settings()
        configure_logging(settings.log_format, settings.log_level)
        asyncio.run(run_until_signal(settings))
    except (MissingDatabaseUrl, ValidationError) as error:
        sys.exit(f"scheduler_service: {error}")


if __name__ == "__main__":
    main()
