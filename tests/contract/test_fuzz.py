"""Random requests for a while: servers answer by the contract and stay as they are.

`TASKFORGE_FUZZ_SECONDS` says for how long (5 by default), `TASKFORGE_FUZZ_SEED` repeats a run.
"""

import os
import random
import time
from collections import Counter
from pathlib import Path

import grpc
from google.protobuf.message_factory import GetMessageClass
from structlog.testing import capture_logs
from tests.support.rpcs import METHODS, REQUESTS, Things, guarded_contract, rows_of, things_of
from tests.support.tenants import bearer, insert_tenant

from taskforge_core.database import Database
from taskforge_core.settings import Settings

SECONDS = float(os.environ.get("TASKFORGE_FUZZ_SECONDS", "5"))
SEED = os.environ.get("TASKFORGE_FUZZ_SEED") or str(random.randrange(2**32))

NEVER = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE}

GROWTH_BYTES = 64 * 1024 * 1024
"""Caches fill up and allocators keep pages; a leak of each request's 10 KiB would pass this."""

SLOW = {"LeaseJobs", "AcquireJobs"}
"""They wait for jobs: fewer of them, or nothing else gets its turn."""


def noise(dice: random.Random, name: str, things: Things) -> bytes:
    """A request of this RPC that something has happened to; sometimes none at all."""
    if dice.random() < 0.1:
        return dice.randbytes(dice.randint(0, 10_000))
    make = GetMessageClass(METHODS[name].input_type)
    whole = bytearray(make(**REQUESTS[name](things)).SerializeToString())
    for _ in range(dice.randint(0, 6)):
        place = dice.randrange(len(whole) + 1)
        match dice.randrange(4):
            case 0 if whole:
                whole[place - 1] = dice.randrange(256)
            case 1:
                whole[place:place] = dice.randbytes(dice.randint(1, 20))
            case 2:
                del whole[place : place + dice.randint(1, 20)]
            case _:
                whole += whole[: dice.randint(0, 200)]
    return bytes(whole)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_random_requests_are_answered_and_change_nothing_of_others(
    settings: Settings, database: Database, open_folder: Path
) -> None:
    print(f"TASKFORGE_FUZZ_SEED={SEED}")
    dice = random.Random(SEED)
    own, foreign = [await insert_tenant(database.hot, name) for name in ("own", "foreign")]
    mine, theirs = [await things_of(database, tenant) for tenant in (own, foreign)]
    before = await rows_of(database, foreign)
    names = sorted(METHODS)
    seen: Counter[str] = Counter()
    warm = 0
    began = time.monotonic()
    async with guarded_contract(settings, database, open_folder) as contract:
        with capture_logs() as lines:
            while (passed := time.monotonic() - began) < SECONDS:
                if not warm and passed > SECONDS / 4:
                    warm = resident_bytes()
                name = dice.choice(names)
                if name in SLOW and dice.random() < 0.9:
                    continue
                request = noise(dice, name, dice.choice((mine, theirs)))
                answer = await contract.send(name, bearer(own.key), request)
                assert answer.code not in NEVER, (name, request, answer)
                seen[answer.code.name] += 1
                assert not [line for line in lines if line.get("log_level") == "error"]
                lines.clear()
        grown = resident_bytes() - warm
    assert await rows_of(database, foreign) == before
    assert grown < GROWTH_BYTES
    print(f"{seen.total()} requests: {dict(seen)}, grown by {grown // 1024} KiB")
    assert seen["INVALID_ARGUMENT"] > 0
    assert seen["OK"] > 0
