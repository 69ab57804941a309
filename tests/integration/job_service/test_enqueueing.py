"""Creating jobs: bad ones fail alone, repetitions are answered, names lead where they should."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tests.support.creations import at_once, create, create_batch, job_ids, spec
from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases
from tests.support.leases import miscounts
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged

from taskforge.v1 import job_pb2
from taskforge_core.database import Database
from taskforge_core.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from taskforge_core.ids import DEFAULT_PROJECT_ID

NO_JSON = "{"
TOO_LARGE = '"' + "x" * 262_143 + '"'


# -- What comes of a creation -------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {
            "payload": '{"b": 1,  "a": "é"}',
            "priority": 9,
            "max_attempts": 100,
            "timeout": Duration(seconds=90, nanos=1000),
            "labels": {"k": "v", "": "leer"},
            "traceparent": "00-abc",
            "tracestate": "x=y",
        },
        {"scheduled_for": Timestamp(seconds=253_402_300_799)},
        {"scheduled_for": Timestamp(seconds=1, nanos=123_456_000)},
    ],
    ids=["bare", "full", "later", "past"],
)
async def test_a_job_is_answered_as_it_is_stored_and_leased(
    replica: JobUseCases, database: Database, fields: dict[str, Any]
) -> None:
    await insert_queue(database.hot, "q", max_retries=4)
    created = await create(replica, **fields)
    found = await replica.browser.find(DEFAULT_PROJECT_ID, UUID(created.id))
    assert found == created
    if created.status != job_pb2.JOB_STATUS_PENDING:
        return
    call = demand(max_in_flight=1)
    await replica.open(call)
    await replica.group(call).run_once()
    [leased] = call.outbox
    shown = await replica.browser.find(DEFAULT_PROJECT_ID, UUID(created.id))
    assert leased.message.job == shown


async def test_jobs_of_a_batch_are_leased_in_the_order_of_the_request(
    replica: JobUseCases, database: Database
) -> None:
    for name in ("q", "r"):
        await insert_queue(database.hot, name)
    made = await create_batch(replica, [spec("qr"[place % 2]) for place in range(300)])
    assert [str(job_id) for job_id in await job_ids(database)] == made


async def test_single_creations_that_ride_together_keep_their_order(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    await create(replica)
    await database.hot.execute("DELETE FROM taskforge.jobs")
    # The first two start batches of their own; those that come meanwhile share the next.
    made = await at_once(replica, [spec() for _ in range(100)])
    third = made[2:]
    in_order = [str(job_id) for job_id in await job_ids(database)]
    assert [job_id for job_id in in_order if job_id in third] == third


# -- Bad items ----------------------------------------------------------------------------------


async def test_one_bad_item_of_a_batch_does_not_fail_its_neighbours(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    await insert_queue(database.hot, "paused", is_active=False, accepts_jobs=False)
    outcomes = await create_batch(
        replica,
        [
            spec(),
            spec(payload=NO_JSON),
            spec("nowhere"),
            spec("paused"),
            spec(payload=TOO_LARGE),
            spec(),
        ],
    )
    assert outcomes[1:-1] == [
        "INVALID_JSON",
        "QUEUE_NOT_FOUND",
        "QUEUE_PAUSED",
        "PAYLOAD_TOO_LARGE",
    ]
    assert await job_ids(database) == [UUID(outcomes[0]), UUID(outcomes[-1])]
    assert await miscounts(database.hot) == []


async def test_one_bad_creation_does_not_fail_those_that_ride_with_it(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    await insert_queue(database.hot, "paused", is_active=False, accepts_jobs=False)
    kinds = [spec(), spec("nowhere"), spec("paused"), spec(payload=TOO_LARGE)]
    outcomes = await at_once(replica, kinds * 10)
    assert outcomes[1::4] == ["QUEUE_NOT_FOUND"] * 10
    assert outcomes[2::4] == ["QUEUE_PAUSED"] * 10
    assert outcomes[3::4] == ["PAYLOAD_TOO_LARGE"] * 10
    assert {str(job_id) for job_id in await job_ids(database)} == set(outcomes[0::4])


async def test_a_value_that_postgres_refuses_fails_alone(
    replica: JobUseCases, database: Database
) -> None:
    """Past all checks before it: the whole statement fails, and is halved down to the bad one."""
    await insert_queue(database.hot, "q")
    bad = spec(labels={"k": "\x00"})
    outcomes = await at_once(
        replica, [*[spec() for _ in range(10)], bad, *[spec() for _ in range(9)]]
    )
    assert [each for each in outcomes if not _is_id(each)] == ["INVALID_REQUEST"]
    assert not _is_id(outcomes[10])
    assert len(await job_ids(database)) == 19
    assert await miscounts(database.hot) == []


def _is_id(outcome: str) -> bool:
    return outcome.count("-") == 4


async def test_all_or_nothing_makes_every_job_or_none_and_names_the_bad_one(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    async with unchanged(database.hot):
        for bad, error in ((spec(payload=NO_JSON), InvalidArgument), (spec("nowhere"), NotFound)):
            with pytest.raises(error) as caught:
                await create_batch(
                    replica,
                    [spec(request_id="a"), spec(), bad, spec()],
                    all_or_nothing=True,
                    request_id="r",
                )
            assert caught.value.metadata["index"] == "2"
    # The request_id was not used up.
    made = await create_batch(
        replica, [spec(request_id="a"), spec()], all_or_nothing=True, request_id="r"
    )
    assert [str(job_id) for job_id in await job_ids(database)] == made


# -- Names --------------------------------------------------------------------------------------


async def test_a_name_that_another_queue_has_by_now_leads_to_that_queue(
    replica: JobUseCases, database: Database
) -> None:
    """The cache knows the deleted one still; no notification came."""
    first = await insert_queue(database.hot, "q")
    assert (await create(replica)).queue_id == str(first)
    await database.hot.execute("DELETE FROM taskforge.jobs")
    await database.hot.execute(
        "UPDATE taskforge.queues SET deleted_at = clock_timestamp() WHERE id = $1", first
    )
    second = await insert_queue(database.hot, "q")
    assert (await create(replica)).queue_id == str(second)
    [made] = await create_batch(replica, [spec()])
    rows = await database.hot.fetch("SELECT queue_id FROM taskforge.jobs WHERE id = $1", UUID(made))
    assert rows[0]["queue_id"] == second


async def test_a_deleted_queue_is_not_found_by_name_or_id_though_the_cache_knows_it(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    await create(replica)
    await database.hot.execute("UPDATE taskforge.queues SET deleted_at = clock_timestamp()")
    async with unchanged(database.hot):
        for named in ("q", str(queue_id)):
            with pytest.raises(NotFound) as caught:
                await create(replica, named)
            assert caught.value.metadata == {"queue": named}


async def test_a_queue_that_was_just_made_is_found_though_the_cache_is_older(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    await create(replica)
    queue_id = await insert_queue(database.hot, "new")
    assert (await create(replica, "new")).queue_id == str(queue_id)


async def test_a_pause_and_its_end_bind_at_once_though_the_cache_knows_nothing(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    await create(replica)
    await database.hot.execute(
        "UPDATE taskforge.queues SET is_active = false, accepts_jobs = false"
    )
    with pytest.raises(FailedPrecondition) as caught:
        await create(replica, str(queue_id))
    assert caught.value.reason == "QUEUE_PAUSED"
    await database.hot.execute("UPDATE taskforge.queues SET is_active = true, accepts_jobs = true")
    await create(replica)


async def test_a_job_for_later_waits_and_one_for_the_past_does_not(
    replica: JobUseCases, database: Database
) -> None:
    await insert_queue(database.hot, "q")
    now = datetime.now(UTC)
    for offset, status in (
        (timedelta(hours=1), job_pb2.JOB_STATUS_SCHEDULED),
        (timedelta(hours=-1), job_pb2.JOB_STATUS_PENDING),
    ):
        moment = Timestamp()
        moment.FromDatetime(now + offset)
        created = await create(replica, scheduled_for=moment)
        assert created.status == status
        assert created.scheduled_for == moment
