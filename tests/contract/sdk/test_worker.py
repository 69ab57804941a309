"""The worker over the real job service: every end of a job, and every way to lose the server."""

import asyncio
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from tests.contract.sdk.following import Working, counted, finished, job_that, soon
from tests.support.job_replicas import JobReplica, job_replica
from tests.support.waiting import eventually

from scheduler_service.timing_out import TimeoutEnforcer
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier
from taskforge_core.settings import Settings
from taskforge_sdk import (
    AttemptOutcome,
    Client,
    Fatal,
    JobContext,
    JobStatus,
    NewJob,
    NotFound,
    QueueSettings,
    Retry,
    Snooze,
    Worker,
)


async def test_a_job_is_done_and_its_result_is_kept(
    client: Client, emails: str, worker: Worker, working: Working
) -> None:
    @worker.job("add")
    async def add(job: JobContext) -> dict[str, int]:
        return {"sum": sum(job.payload)}

    @worker.job("name")
    def name_thread(job: JobContext) -> str:
        return threading.current_thread().name

    async with working(worker):
        added = await client.create_job(emails, "add", [1, 2, 3])
        named = await client.create_job(emails, "name")
        done = await finished(client, added.id)
        assert done.status is JobStatus.SUCCEEDED
        assert done.result == {"sum": 6}
        assert done.attempt_count == 1
        assert done.worker_id == worker.options.worker_id
        assert (await finished(client, named.id)).result.startswith("taskforge-")


async def test_a_job_that_fails_is_tried_again_until_its_attempts_are_used_up(
    client: Client, worker: Worker, working: Working
) -> None:
    await client.create_queue(
        "flaky", settings=QueueSettings(max_retries=1, retry_delay=timedelta(0))
    )

    @worker.job("fail")
    async def fail(job: JobContext) -> None:
        if job.payload == "at first" and job.attempt == 2:
            return
        raise ValueError(f"attempt {job.attempt}")

    async with working(worker):
        flaky = await client.create_job("flaky", "fail", "at first")
        hopeless = await client.create_job("flaky", "fail", "always")
        assert (await finished(client, flaky.id)).status is JobStatus.SUCCEEDED
        job = await finished(client, hopeless.id)

    assert job.status is JobStatus.FAILED
    assert [each.message for each in job.attempts] == [
        "ValueError: attempt 1",
        "ValueError: attempt 2",
    ]
    assert {each.outcome for each in job.attempts} == {AttemptOutcome.FAILURE}
    assert "in fail" in job.attempts[0].detail["traceback"]


async def test_fatal_retry_and_snooze_are_what_they_say(
    client: Client, emails: str, worker: Worker, working: Working
) -> None:
    @worker.job("end")
    async def end(job: JobContext) -> int:
        match job.payload, job.attempt:
            case "fatal", _:
                raise Fatal("no such customer")
            case "retry", 1:
                raise Retry(after=0)
            case "retry-later", 1:
                raise Retry(after=3_600, message="busy")
            case "snooze", _:
                raise Snooze(3_600)
        return job.attempt

    async with working(worker):
        fatal, retry, later, snooze = [
            (await client.create_job(emails, "end", each)).id
            for each in ("fatal", "retry", "retry-later", "snooze")
        ]
        failed = await finished(client, fatal)
        assert failed.status is JobStatus.FAILED
        assert failed.attempts[0].message == "no such customer"
        assert (await finished(client, retry)).result == 2
        for job_id, attempts in ((later, 1), (snooze, 0)):
            job = await job_that(
                client, job_id, lambda job: job.status is JobStatus.SCHEDULED, "it is put off"
            )
            assert job.attempt_count == attempts
            assert job.scheduled_for is not None
            assert job.updated_at is not None
            assert job.scheduled_for - job.updated_at > timedelta(minutes=59)


async def test_a_running_job_is_cancelled_when_asked_for(
    client: Client, emails: str, worker: Worker, working: Working
) -> None:
    started = asyncio.Event()

    @worker.job("wait")
    async def wait(job: JobContext) -> None:
        started.set()
        await asyncio.Event().wait()

    async with working(worker):
        job = await client.create_job(emails, "wait")
        await soon(started.wait())
        await client.cancel_job(job.id, interrupt_running=True)
        cancelled = await finished(client, job.id)

    assert cancelled.status is JobStatus.CANCELLED
    assert cancelled.cancel_requested_at is not None
    assert [each.outcome for each in cancelled.attempts] == [AttemptOutcome.CANCELLED]


async def test_progress_is_seen_while_the_job_runs(
    client: Client, emails: str, worker: Worker, working: Working
) -> None:
    go_on = asyncio.Event()

    @worker.job("count")
    async def count(job: JobContext) -> None:
        job.set_progress({"done": 1, "of": 2})
        await go_on.wait()

    async with working(worker):
        job = await client.create_job(emails, "count")
        seen = await job_that(client, job.id, lambda job: job.progress is not None, "progress")
        go_on.set()
        await finished(client, job.id)

    assert seen.status is JobStatus.PROCESSING
    assert seen.progress == {"done": 1, "of": 2}


async def test_an_attempt_that_takes_too_long_ends_as_timed_out(
    client: Client, emails: str, worker: Worker, working: Working, database: Database
) -> None:
    stopped = asyncio.Event()

    @worker.job("wait")
    async def wait(job: JobContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    notifier = Notifier(database.hot, origin="scheduler")
    async with working(worker):
        job = await client.create_job(emails, "wait", timeout=1, max_attempts=1)
        await soon(stopped.wait())
        assert (await client.get_job(job.id)).status is JobStatus.PROCESSING
        await TimeoutEnforcer(database.hot, notifier).run_once()
        ended = await finished(client, job.id)
    await notifier.flushed()

    assert ended.status is JobStatus.FAILED
    assert [each.outcome for each in ended.attempts] == [AttemptOutcome.TIMED_OUT]


async def test_the_lease_of_a_job_that_runs_longer_is_renewed(
    client: Client, emails: str, worker: Worker, working: Working, database: Database
) -> None:
    worker.configure(lease_duration=1)
    started, go_on = asyncio.Event(), asyncio.Event()

    @worker.job("wait")
    async def wait(job: JobContext) -> None:
        started.set()
        await go_on.wait()

    async def renewed() -> bool:
        return bool(
            await database.hot.fetchval(
                "SELECT max(s.expires_at) > max(j.started_at) + interval '1.1 s'"
                " FROM taskforge.sessions s, taskforge.jobs j"
            )
        )

    async with working(worker):
        job = await client.create_job(emails, "wait")
        await soon(started.wait())
        await eventually(renewed, "the lease is renewed")
        go_on.set()
        assert (await finished(client, job.id)).attempt_count == 1


async def test_a_draining_server_costs_nothing_that_is_held(
    client: Client,
    emails: str,
    worker: Worker,
    working: Working,
    replica: JobReplica,
    settings: Settings,
    open_folder: Path,
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()
    runs: list[str] = []

    @worker.job("wait")
    async def wait(job: JobContext) -> None:
        runs.append(job.id)
        started.set()
        await go_on.wait()

    async with working(worker):
        before = await client.create_job(emails, "wait")
        await soon(started.wait())
        await soon(replica.drain())
        async with job_replica(settings, open_folder, "job"):  # the next, at the same address
            after = await client.create_job(emails, "wait")
            await job_that(
                client, after.id, lambda job: job.status is JobStatus.PROCESSING, "it is leased"
            )
            go_on.set()
            done = [await finished(client, job.id) for job in (before, after)]
            worker.stop()
            await counted(client, lambda counts: counts.succeeded == 2, "both are done")

    assert [(job.status, job.attempt_count) for job in done] == [(JobStatus.SUCCEEDED, 1)] * 2
    assert runs == [before.id, after.id]


async def test_a_worker_that_stops_under_load_costs_no_job_an_attempt(
    client: Client, emails: str, worker: Worker, working: Working
) -> None:
    some = asyncio.Event()
    runs: list[str] = []

    @worker.job("quick")
    async def quick(job: JobContext) -> None:
        runs.append(job.id)
        if len(runs) == 200:
            some.set()

    await client.create_jobs(NewJob(emails, "quick") for _ in range(2_000))
    async with working(worker):
        await soon(some.wait())

    counts = (await client.job_stats()).counts
    assert counts.processing == 0
    assert counts.succeeded == len(runs) == len(set(runs))
    assert counts.pending == 2_000 - len(runs)
    waiting = [job async for job in client.list_jobs(status=JobStatus.PENDING, page_size=1_000)]
    assert {job.attempt_count for job in waiting} == {0}


async def test_what_is_given_back_is_ready_for_another_worker_at_once(
    client: Client, emails: str, worker: Worker, working: Working, job_address: str
) -> None:
    started = asyncio.Event()

    @worker.job("wait")
    async def wait(job: JobContext) -> None:
        started.set()
        await asyncio.Event().wait()

    other = Worker(job_address, worker_id="other")
    other.job("wait")(lambda job: job.attempt)
    job = await client.create_job(emails, "wait")
    async with working(worker):
        await soon(started.wait())
        worker.stop()  # again at the block's end, which does not wait for the grace
    async with working(other):
        done = await finished(client, job.id)

    assert (done.status, done.result, done.worker_id) == (JobStatus.SUCCEEDED, 1, "other")
    assert done.attempts == ()


async def test_two_workers_share_many_jobs_and_run_none_twice(
    client: Client, emails: str, job_address: str, working: Working
) -> None:
    runs: list[tuple[str, str]] = []
    workers = [Worker(job_address, concurrency=50, worker_id=name) for name in ("a", "b")]
    for each in workers:

        @each.job("quick")
        async def quick(job: JobContext) -> None:
            runs.append((job.id, job.worker_id))
            await asyncio.sleep(0)

    async with working(workers[0]), working(workers[1]):
        await client.create_jobs(NewJob(emails, "quick") for _ in range(3_000))
        await counted(client, lambda counts: counts.succeeded == 3_000, "all are done")

    assert len(runs) == len({job_id for job_id, _ in runs}) == 3_000
    assert {name for _, name in runs} == {"a", "b"}


async def test_a_queue_that_does_not_exist_ends_the_worker_with_one_clear_line(
    client: Client, worker: Worker
) -> None:
    worker.configure(queues=["no-such-queue"])
    worker.job("work")(lambda job: None)

    with pytest.raises(NotFound) as refused:
        await soon(worker.run())
    assert refused.value.reason == "QUEUE_NOT_FOUND"
    assert refused.value.metadata == {"queue": "no-such-queue"}
