"""Requests that hypothesis makes, whole and damaged, to two replicas of each service for a while.

`TASKFORGE_FUZZ_SECONDS` says for how long (5 by default). `TASKFORGE_FUZZ_SEED` repeats a run, and
with the round that a failure names, begins with that.
"""

import os
import random
import time
from itertools import count
from pathlib import Path

from hypothesis import strategies as st
from tests.support.abuse.made_messages import damaged, examples, messages
from tests.support.abuse.watching import Log, Watch
from tests.support.rpcs import METHODS, WAITING, guarded_contract
from tests.support.snapshots import rows_of
from tests.support.tenants import Tenant
from tests.support.things import Things, things_of
from tests.support.valid_requests import request

from taskforge_core.database import Database
from taskforge_core.settings import Settings

SECONDS = float(os.environ.get("TASKFORGE_FUZZ_SECONDS", "5"))
SEED = int(os.environ.get("TASKFORGE_FUZZ_SEED") or random.randrange(2**32))

BATCH = 15
SMALL_BATCH = 3
"""Of the calls that wait for jobs."""

GROWTH_BYTES = 24 * 1024 * 1024
"""Caches fill up and allocators keep pages; what a minute leaks at 10 KiB a request is more."""


def known(*tenants: Things) -> dict[str, list[str]]:
    """What fields name: things of the caller, and of somebody else."""
    queues = [name for of in tenants for name in (of.queue, of.queue_name)]
    return {
        "organisation_id": [of.organisation for of in tenants],
        "project_id": [*(of.project for of in tenants), "", "", ""],
        **dict.fromkeys(("queue", "queues", "origin_queue", "dead_letter_queue_id"), queues),
        "job_id": [job for of in tenants for job in (of.failed_job, of.waiting_job, of.leased_job)],
        "session_id": [of.session for of in tenants],
        "api_key_id": [of.api_key for of in tenants],
        "lease_token": [of.token for of in tenants],
        "request_id": [of.request_id for of in tenants],
        "name": [f"name-{number}" for number in range(9)],
        "job_type": ["send"],
        "job_types": ["send"],
        "payload": ["{}"],
        "result": ["", "{}"],
        "page_token": [""],
        "paths": ["name", "description", "settings", "settings.max_retries", "is_enabled"],
    }


def requests(name: str, number: int, mine: Things, theirs: Things) -> list[bytes]:
    """Made-up requests of an RPC, and the valid ones with something amiss."""
    made = messages(METHODS[name].input_type, known(mine, theirs))
    valid = st.sampled_from([request(name, mine), request(name, theirs)])
    size = SMALL_BATCH if name in WAITING else BATCH
    return examples(damaged(st.one_of(made, made, valid)), size, number)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_made_up_requests_are_answered_by_the_contract_and_leave_nothing_behind(
    settings: Settings,
    database: Database,
    open_folder: Path,
    own: Tenant,
    foreign: Tenant,
    log: Log,
) -> None:
    print(f"TASKFORGE_FUZZ_SEED={SEED}")
    names = sorted(METHODS)
    other_folder = open_folder / "b"
    other_folder.mkdir()
    warm = 0
    async with (
        guarded_contract(settings, database, open_folder) as one,
        guarded_contract(settings, database, other_folder) as another,
    ):
        watch = Watch([one, another], database, own, log)
        theirs = await things_of(database, one, foreign)
        before = await rows_of(database.hot, foreign.organisation_id)
        began = time.monotonic()
        for number in count(SEED):
            passed = time.monotonic() - began
            if passed > SECONDS:
                break
            if not warm and passed > SECONDS / 4:
                warm = resident_bytes()
            # What was changed or removed meanwhile is there again.
            await database.hot.execute("UPDATE taskforge.projects SET disabled_at = NULL")
            mine = await things_of(database, one, own)
            watch.forget()
            name = names[number % len(names)]
            for sent in requests(name, number, mine, theirs):
                await watch.send(name, sent)
            assert await rows_of(database.hot, foreign.organisation_id) == before, (number, name)
        grown = resident_bytes() - warm
    rounds = number - SEED
    print(f"{rounds} rounds, {watch.seen.total()} requests: {dict(watch.seen)}")
    print(f"grown by {grown // 1024} KiB")
    assert grown < GROWTH_BYTES
    assert watch.seen["INVALID_ARGUMENT"] > 0
    assert watch.seen["OK"] > 0
