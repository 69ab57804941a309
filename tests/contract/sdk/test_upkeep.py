"""What keeps queues and workers in order: limits, dead letters, pauses, purges, draining."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.contract.sdk.following import Working, finished, soon
from tests.support.waiting import eventually

from taskforge_sdk import (
    BlockingClient,
    Client,
    Fatal,
    InvalidRequest,
    JobContext,
    JobOrigin,
    JobStatus,
    NewJob,
    NotFound,
    PreconditionFailed,
    PriorityDelays,
    PurgeResult,
    QueueSettings,
    Worker,
    WorkerInfo,
)

ALL_BUT_RUNNING = set(JobStatus) - {JobStatus.UNSPECIFIED, JobStatus.PROCESSING}


async def test_a_queue_keeps_its_limits_delays_and_dead_letter_queue(client: Client) -> None:
    dead = await client.create_queue("dead")
    settings = QueueSettings(
        max_concurrent_jobs=3,
        rate_limit_per_minute=60,
        dead_letter_queue_id=dead.id,
        delay_by_priority=PriorityDelays(low=timedelta(minutes=2)),
    )
    made = await client.create_queue("emails", settings=settings)
    assert made.settings == settings
    low, urgent = [await client.create_job("emails", "send", priority=each) for each in (0, 9)]
    assert low.scheduled_for is not None
    assert low.created_at is not None
    assert low.scheduled_for - low.created_at == timedelta(minutes=2)
    assert (low.status, urgent.status) == (JobStatus.SCHEDULED, JobStatus.PENDING)

    with pytest.raises(PreconditionFailed) as cycle:
        await client.update_queue("dead", settings={"dead_letter_queue_id": made.id})
    assert cycle.value.reason == "DEAD_LETTER_CYCLE"
    with pytest.raises(PreconditionFailed) as in_use:
        await client.delete_queue("dead")
    assert in_use.value.reason == "QUEUE_IN_USE"
    with pytest.raises(NotFound):
        await client.update_queue(
            "emails", settings={"dead_letter_queue_id": "00000000-0000-7000-8000-00000000dead"}
        )

    on = await client.update_queue("emails", settings={"delay_by_priority": PriorityDelays()})
    assert on.settings.delay_by_priority == PriorityDelays()
    changed = await client.update_queue(
        "emails", settings={"delay_by_priority": None, "dead_letter_queue_id": None}
    )
    assert changed.settings == QueueSettings(max_concurrent_jobs=3, rate_limit_per_minute=60)
    await client.delete_queue("dead")


async def test_a_dead_job_goes_back_to_where_it_failed_and_is_done_there(
    client: Client, worker: Worker, working: Working
) -> None:
    dead = await client.create_queue("dead")
    emails = await client.create_queue(
        "emails", settings=QueueSettings(dead_letter_queue_id=dead.id)
    )
    is_mended = False
    origins: list[JobOrigin | None] = []

    @worker.job("send")
    async def send(job: JobContext) -> str:
        if not is_mended:
            raise Fatal("no such address")
        origins.append(job.origin)
        return "sent"

    worker.configure(queues=["emails"])
    async with working(worker):
        failed = await finished(client, (await client.create_job("emails", "send", {"n": 1})).id)
        assert failed.status is JobStatus.FAILED
        buried = await client.get_job(failed.dead_letter_job_id)
        assert (buried.queue_id, buried.payload) == (dead.id, {"n": 1})
        assert failed.completed_at is not None
        assert buried.origin == JobOrigin(failed.id, emails.id, failed.completed_at)
        assert [each.message for each in buried.attempts] == ["no such address"]
        with pytest.raises(PreconditionFailed) as dead_lettered:
            await client.retry_job(failed.id)
        assert dead_lettered.value.reason == "JOB_DEAD_LETTERED"

        is_mended = True
        assert await client.redrive_jobs("dead", job_type="print") == 0
        assert await client.redrive_jobs("dead", origin_queue="emails", dry_run=True) == 1
        assert await client.redrive_jobs("dead", max_jobs=5, jobs_per_second=10) == 1
        done = await finished(client, buried.id)

    assert (done.status, done.queue_id, done.result) == (JobStatus.SUCCEEDED, emails.id, "sent")
    assert origins == [buried.origin]
    assert done.origin == buried.origin


async def test_a_purge_removes_what_it_names_and_says_how_much(client: Client, emails: str) -> None:
    created = await client.create_jobs([NewJob(emails, "send") for _ in range(5)])
    await client.create_job(emails, "send", scheduled_for=datetime.now(UTC) + timedelta(days=1))
    await client.cancel_job(created[0].job_id or "")

    planned = await client.purge_queue(emails, ALL_BUT_RUNNING, dry_run=True)
    assert planned == PurgeResult(cancelled_jobs=5, deleted_jobs=1)
    assert (await client.job_stats()).counts.pending == 4
    assert await client.purge_queue(emails, [JobStatus.PENDING]) == PurgeResult(4, 0)
    assert (await client.job_stats()).counts.scheduled == 1
    assert await client.purge_queue(emails, [JobStatus.CANCELLED]) == PurgeResult(0, 5)
    assert await client.purge_queue(emails, ALL_BUT_RUNNING) == PurgeResult(1, 0)

    for statuses in ([], [JobStatus.PROCESSING]):
        with pytest.raises(InvalidRequest):
            await client.purge_queue(emails, statuses)
    with pytest.raises(NotFound):
        await client.purge_queue("no-such-queue", [JobStatus.FAILED])


async def test_a_queue_is_paused_for_a_time_and_goes_on_taking_jobs(
    client: Client, emails: str
) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    paused = await client.pause_queue(emails, keep_accepting=True, resume_at=until)
    assert (paused.is_active, paused.accepts_jobs, paused.resume_at) == (False, True, until)
    assert (await client.create_job(emails, "send")).status is JobStatus.PENDING

    closed = await client.pause_queue(emails)
    assert (closed.is_active, closed.accepts_jobs, closed.resume_at) == (False, False, None)
    with pytest.raises(PreconditionFailed) as refused:
        await client.create_job(emails, "send")
    assert refused.value.reason == "QUEUE_PAUSED"

    opened = await client.pause_queue(emails, resume_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert (opened.is_active, opened.accepts_jobs, opened.resume_at) == (True, True, None)


async def test_a_worker_is_seen_drained_and_taken_back(
    client: Client, emails: str, worker: Worker, working: Working, job_address: str
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @worker.job("wait")
    async def wait(job: JobContext) -> None:
        started.set()
        await go_on.wait()

    async def listed() -> WorkerInfo:
        workers = [each async for each in client.list_workers(page_size=1)]
        [found] = [each for each in workers if each.session_id == worker.session_id]
        return found

    async def is_idle() -> bool:
        return (await listed()).held_jobs == 0

    assert [each async for each in client.list_workers()] == []
    async with working(worker):
        held = await client.create_job(emails, "wait")
        await soon(started.wait())
        seen = await listed()
        assert seen.worker_id == worker.options.worker_id
        assert (seen.connected, seen.draining, seen.max_in_flight) == (True, False, 8)
        assert (seen.held_jobs, seen.held_job_ids) == (1, (held.id,))
        assert seen.expires_at is not None

        drained = await client.update_worker(worker.session_id, max_in_flight=2, draining=True)
        assert (drained.max_in_flight, drained.draining) == (2, True)
        go_on.set()
        await finished(client, held.id)  # what it holds it finishes
        await eventually(is_idle, "it holds nothing")
        other = Worker(job_address, worker_id="other")
        other.job("wait")(lambda job: None)
        async with working(other):
            made = await client.create_jobs([NewJob(emails, "wait") for _ in range(20)])
            done = [await finished(client, each.job_id or "") for each in made]
        assert {job.worker_id for job in done} == {"other"}

        resumed = await client.update_worker(worker.session_id, draining=False)
        assert (resumed.max_in_flight, resumed.draining) == (2, False)
        again = await finished(client, (await client.create_job(emails, "wait")).id)
        assert again.worker_id == worker.options.worker_id

    with pytest.raises(NotFound) as nobody:
        await client.update_worker("00000000-0000-7000-8000-00000000dead", draining=True)
    assert nobody.value.reason == "SESSION_NOT_FOUND"


async def test_the_blocking_client_does_the_same(blocking_client: BlockingClient) -> None:
    def work(client: BlockingClient) -> None:
        with client:
            client.create_queue("emails")
            client.create_job("emails", "send")
            assert client.pause_queue("emails", keep_accepting=True).accepts_jobs
            assert client.redrive_jobs("emails") == 0
            assert client.purge_queue("emails", [JobStatus.PENDING]) == PurgeResult(1, 0)
            assert list(client.list_workers()) == []
            with pytest.raises(NotFound):
                client.update_worker("00000000-0000-7000-8000-00000000dead")

    await asyncio.to_thread(work, blocking_client)
