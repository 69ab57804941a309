"""Settling: by its token alone, once, and with the same answer however often it is repeated."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases
from tests.support.leases import miscounts, statuses
from tests.support.refusals import read_refusal
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.snapshots import unchanged
from tests.support.waiting import until_blocked

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.errors import Aborted, InvalidArgument
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.statuses import JobStatus

SUCCEEDED = job_pb2.JOB_STATUS_SUCCEEDED
FAILED = job_pb2.JOB_STATUS_FAILED
PENDING = job_pb2.JOB_STATUS_PENDING
SCHEDULED = job_pb2.JOB_STATUS_SCHEDULED


def success(token: str, result: str = "") -> pb.Settlement:
    return pb.Settlement(lease_token=token, success=pb.Success(result=result))


def fatal(token: str) -> pb.Settlement:
    return pb.Settlement(lease_token=token, failure=pb.Failure(message="no", retryable=False))


def failure(token: str, **fields: object) -> pb.Settlement:
    return pb.Settlement(lease_token=token, failure=pb.Failure(**fields))  # type: ignore[arg-type]


def release(token: str) -> pb.Settlement:
    return pb.Settlement(lease_token=token, release=pb.Release())


def snooze(token: str, seconds: int) -> pb.Settlement:
    return pb.Settlement(lease_token=token, snooze=pb.Snooze(delay=Duration(seconds=seconds)))


async def leases(
    use: JobUseCases, count: int, *, project_id: UUID = DEFAULT_PROJECT_ID
) -> tuple[list[str], list[UUID]]:
    """The tokens and jobs of so many leases that a new session got on a stream."""
    queue_id = await insert_queue(use.database.hot, f"queue {uuid4()}", project_id=project_id)
    jobs = await insert_jobs(
        use.database.hot, queue_id, priorities=[0] * count, project_id=project_id
    )
    call = demand(max_in_flight=count, queue_ids=(queue_id,), project_id=project_id)
    await use.open(call)
    await use.group(call).run_once()
    return [leased.message.lease_token for leased in call.outbox], jobs


async def settle(use: JobUseCases, *settlements: pb.Settlement) -> list[int | str]:
    """The status or the error's reason of each."""
    answer = await use.settler.settle_batch(pb.BatchSettleJobsRequest(settlements=settlements))
    assert len(answer.results) == len(settlements)
    return [result.status or refusal(result) for result in answer.results]


def refusal(result: pb.SettlementResult) -> str:
    return read_refusal(result.error).info.reason


async def test_every_outcome_has_its_status(replica: JobUseCases, database: Database) -> None:
    tokens, jobs = await leases(replica, 6)
    outcomes = await settle(
        replica,
        success(tokens[0], '{"sum":  3}'),
        fatal(tokens[1]),
        failure(tokens[2], message="later"),
        failure(tokens[3], retry_after=Duration()),
        release(tokens[4]),
        snooze(tokens[5], 60),
    )
    expected = [SUCCEEDED, FAILED, SCHEDULED, PENDING, PENDING, SCHEDULED]
    assert outcomes == expected
    assert await statuses(database.hot, jobs) == [JobStatus(status) for status in expected]
    result = await database.hot.fetchval(
        "SELECT result FROM taskforge.job_history WHERE status = 4"
    )
    assert result == '{"sum":  3}'
    assert await miscounts(database.hot) == []


async def test_a_repeated_settle_gets_the_same_answer_and_changes_nothing(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    """Whatever the repetition says, and wherever it arrives."""
    tokens, _ = await leases(replica, 4)
    settlements = [success(tokens[0]), fatal(tokens[1]), release(tokens[2]), snooze(tokens[3], 60)]
    first = await settle(replica, *settlements)
    assert first == [SUCCEEDED, FAILED, PENDING, SCHEDULED]
    async with unchanged(database.hot):
        assert await settle(second_replica, *settlements) == first
        assert await settle(replica, *map(fatal, tokens)) == first
        assert await settle(replica, *map(success, tokens)) == first


async def test_of_equal_tokens_in_one_batch_the_first_wins_and_all_get_its_answer(
    replica: JobUseCases, database: Database
) -> None:
    tokens, jobs = await leases(replica, 3)
    outcomes = await settle(
        replica,
        fatal(tokens[0]),
        success(tokens[0]),
        release(tokens[1]),
        success(tokens[2], "1"),
        success(tokens[1]),
        success(tokens[2], "2"),
        fatal(tokens[0]),
    )
    assert outcomes == [FAILED, FAILED, PENDING, SUCCEEDED, PENDING, SUCCEEDED, FAILED]
    assert await statuses(database.hot, jobs) == [
        JobStatus.FAILED,
        JobStatus.PENDING,
        JobStatus.SUCCEEDED,
    ]
    results = await database.hot.fetch("SELECT result FROM taskforge.job_history WHERE status = 4")
    assert [row["result"] for row in results] == ["1"]
    assert await miscounts(database.hot) == []


async def test_a_hundred_settles_of_one_token_at_once_have_one_effect_and_one_answer(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    for kind in (success, fatal, release):
        tokens, _ = await leases(replica, 1)
        answers = await asyncio.gather(
            *(
                use.settler.settle(kind(tokens[0]))
                for _ in range(50)
                for use in (replica, second_replica)
            )
        )
        assert len(set(answers)) == 1
    assert await miscounts(database.hot) == []


async def test_different_endings_of_one_token_at_once_have_one_effect_and_one_answer(
    replica: JobUseCases, second_replica: JobUseCases, database: Database
) -> None:
    for _ in range(10):
        tokens, jobs = await leases(replica, 1)
        first, second = await asyncio.gather(
            replica.settler.settle(success(tokens[0])),
            second_replica.settler.settle(fatal(tokens[0])),
        )
        assert first == second
        assert await statuses(database.hot, jobs) == [JobStatus(first)]
    assert await miscounts(database.hot) == []


async def test_a_superseded_token_is_lost_and_changes_nothing(
    replica: JobUseCases, database: Database
) -> None:
    tokens, _ = await leases(replica, 1)
    await settle(replica, release(tokens[0]))
    call = demand(max_in_flight=1)
    await replica.open(call)
    await replica.group(call).run_once()
    async with unchanged(database.hot):
        for settlement in (success(tokens[0]), fatal(tokens[0]), release(tokens[0])):
            assert await settle(replica, settlement) == ["LEASE_LOST"]
            with pytest.raises(Aborted) as caught:
                await replica.settler.settle(settlement)
            assert caught.value.reason == "LEASE_LOST"
    [current] = call.outbox
    assert await settle(replica, success(current.message.lease_token)) == [SUCCEEDED]
    assert await settle(replica, success(tokens[0])) == ["LEASE_LOST"]


async def test_a_settle_that_waited_for_the_end_of_its_lease_is_lost(
    replica: JobUseCases, database: Database
) -> None:
    tokens, jobs = await leases(replica, 1)
    async with database.hot.acquire() as connection, connection.transaction():
        await connection.execute(
            "UPDATE taskforge.jobs SET status = 1, lease_seq = NULL, session_id = NULL"
        )
        settling = asyncio.create_task(replica.settler.settle(success(tokens[0])))
        await until_blocked(database.hot, connection.get_server_pid())
    with pytest.raises(Aborted):
        await settling
    assert await statuses(database.hot, jobs) == [JobStatus.PENDING]


async def test_a_token_put_together_of_others_settles_nothing(
    replica: JobUseCases, database: Database
) -> None:
    other = await insert_project(database.hot)
    tokens, _ = await leases(replica, 2)
    foreign_tokens, _ = await leases(replica, 1, project_id=other)
    one, two, foreign = tokens[0], tokens[1], foreign_tokens[0]
    forged = [
        one[:76] + two[76:],  # this job, the other's lease
        two[:76] + one[76:],
        foreign[:32] + one[32:],  # another project's name
        one[:32] + foreign[32:],
        one + "0",  # a lease of later
        one[:40] + str(uuid4()) + one[76:],
        one[:76] + "f" * 15,
    ]
    async with unchanged(database.hot):
        for kind in (success, fatal, release):
            assert await settle(replica, *map(kind, forged)) == ["LEASE_LOST"] * len(forged)


async def test_one_bad_settlement_does_not_fail_its_neighbours(
    replica: JobUseCases, database: Database
) -> None:
    tokens, jobs = await leases(replica, 4)
    stale = tokens[3] + "0"
    outcomes = await settle(
        replica,
        success(tokens[0]),
        success("no token"),
        success(tokens[1], "{no json"),
        failure(tokens[2], detail="[1,]"),
        success(stale),
        release(tokens[3]),
    )
    assert outcomes == [
        SUCCEEDED,
        "INVALID_LEASE_TOKEN",
        "INVALID_JSON",
        "INVALID_JSON",
        "LEASE_LOST",
        PENDING,
    ]
    assert await statuses(database.hot, jobs) == [
        JobStatus.SUCCEEDED,
        JobStatus.PROCESSING,
        JobStatus.PROCESSING,
        JobStatus.PENDING,
    ]
    with pytest.raises(InvalidArgument):
        await replica.settler.settle(success(tokens[1], "{no json"))


async def test_a_batch_settles_jobs_of_several_projects_each_in_its_own(
    replica: JobUseCases, database: Database
) -> None:
    other = await insert_project(database.hot)
    own_tokens, own_jobs = await leases(replica, 2)
    other_tokens, other_jobs = await leases(replica, 2, project_id=other)
    mixed = [own_tokens[0], other_tokens[0], own_tokens[1], other_tokens[1]]
    outcomes = await settle(
        replica, success(mixed[0]), fatal(mixed[1]), release(mixed[2]), success(mixed[3])
    )
    assert outcomes == [SUCCEEDED, FAILED, PENDING, SUCCEEDED]
    assert await statuses(database.hot, own_jobs + other_jobs) == [
        JobStatus.SUCCEEDED,
        JobStatus.PENDING,
        JobStatus.FAILED,
        JobStatus.SUCCEEDED,
    ]


async def test_a_settle_frees_the_slot_of_a_stream_at_the_same_replica(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    await insert_jobs(database.hot, queue_id, priorities=[0] * 2)
    call = demand(max_in_flight=2)
    await replica.open(call)
    await replica.group(call).run_once()
    assert call.credit == 0
    first, second = [leased.message.lease_token for leased in call.outbox]
    await settle(replica, success(first), fatal(second))
    assert call.credit == 2
    # The worker knows: it is told of nothing.
    assert call.lost == set()


async def test_a_snooze_of_no_time_makes_the_job_ready_at_once_and_none_uses_an_attempt(
    replica: JobUseCases, database: Database
) -> None:
    tokens, jobs = await leases(replica, 3)
    outcomes = await settle(
        replica, snooze(tokens[0], 0), snooze(tokens[1], 60), release(tokens[2])
    )
    assert outcomes == [PENDING, SCHEDULED, PENDING]
    rows = await database.hot.fetch(
        "SELECT id, attempt_count, scheduled_for - updated_at AS wait FROM taskforge.jobs"
    )
    found = {row["id"]: row for row in rows}
    assert [found[job_id]["attempt_count"] for job_id in jobs] == [0, 0, 0]
    wait = found[jobs[1]]["wait"]
    assert abs(wait - timedelta(seconds=60)) < timedelta(seconds=1)
