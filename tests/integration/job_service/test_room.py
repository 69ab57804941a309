"""When a call that has room again leads to a pass: where jobs may be left, and only there."""

from typing import Any

import pytest
from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases, is_woken, run
from tests.support.rows import insert_jobs, insert_queue

from taskforge_core.database import Database


async def test_room_leads_to_a_pass_only_where_jobs_may_be_left(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    call = demand(max_in_flight=2)
    await replica.open(call)
    group = replica.group(call)
    await insert_jobs(database.hot, queue_id, priorities=[0] * 2)
    await run(group)
    # The call is full, so what else is there nobody knows.
    group.wake_for_credit()
    assert is_woken(group)
    group._loop._woken.clear()
    await replica.allow(call, 5)
    await run(group)
    group.wake_for_credit()
    assert not is_woken(group)
    # What became ready is told, and looked for.
    group.wake([queue_id])
    assert is_woken(group)


@pytest.mark.parametrize(
    ("limits", "payload_bytes"),
    [({"max_in_flight_bytes": 10, "held": {1: 9}}, 100), ({"max_message_bytes": 65_536}, 100_000)],
)
async def test_jobs_that_no_call_could_take_are_looked_for_again_when_there_is_room(
    replica: JobUseCases, database: Database, limits: dict[str, Any], payload_bytes: int
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    call = demand(max_in_flight=5, **limits)
    call.held_bytes = sum(call.held.values())
    await replica.open(call)
    group = replica.group(call)
    await insert_jobs(database.hot, queue_id, payload_bytes=payload_bytes)
    await run(group)
    assert call.outbox == []
    group.wake_for_credit()
    assert is_woken(group)


async def test_jobs_of_a_queue_that_is_full_are_looked_for_again_when_there_is_room(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q", max_concurrent_jobs=1)
    call = demand(max_in_flight=5)
    await replica.open(call)
    group = replica.group(call)
    await insert_jobs(database.hot, queue_id, priorities=[0] * 2)
    await run(group)
    assert len(call.outbox) == 1
    group.wake_for_credit()
    assert is_woken(group)
