"""Both clients over the real services."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from taskforge_sdk import (
    AlreadyExists,
    BlockingClient,
    Client,
    InvalidRequest,
    JobStatus,
    JsonText,
    NewJob,
    NotFound,
    PreconditionFailed,
    QueueSettings,
)


async def test_a_queue_lives_and_dies(client: Client) -> None:
    settings = QueueSettings(max_retries=1, timeout=timedelta(seconds=9), backoff_multiplier=1.5)
    made = await client.create_queue("emails", description="out", priority=4, settings=settings)
    assert made == await client.get_queue(made.id) == await client.get_queue("emails")
    assert (made.priority, made.settings, made.is_active) == (4, settings, True)

    changed = await client.update_queue("emails", settings={"timeout": None, "max_retries": 5})
    assert changed.settings == QueueSettings(max_retries=5, backoff_multiplier=1.5)
    renamed = await client.update_queue("emails", name="letters", priority=0)
    assert (renamed.id, renamed.name, renamed.priority) == (made.id, "letters", 0)

    assert not (await client.pause_queue("letters")).is_active
    with pytest.raises(PreconditionFailed) as paused:
        await client.create_job("letters", "send")
    assert paused.value.reason == "QUEUE_PAUSED"
    assert (await client.resume_queue("letters")).is_active

    stats = await client.queue_stats("letters")
    assert (stats.queue_id, stats.counts.total, stats.oldest_ready_age) == (made.id, 0, None)
    await client.delete_queue("letters")
    with pytest.raises(NotFound) as gone:
        await client.get_queue("letters")
    assert gone.value.reason == "QUEUE_NOT_FOUND"


async def test_all_queues_are_listed_over_many_pages(client: Client) -> None:
    names = [f"queue-{number:02}" for number in range(12)]
    for name in names:
        await client.create_queue(name)

    assert [queue.name async for queue in client.list_queues(page_size=5)] == names


async def test_a_job_is_what_its_producer_described(client: Client, emails: str) -> None:
    when = datetime.now(UTC) + timedelta(days=1)
    made = await client.create_job(
        emails,
        "send",
        {"to": "ä@example.org", "n": [1, 2.5, None, True]},
        priority=9,
        max_attempts=7,
        scheduled_for=when,
        timeout=1.5,
        labels={"customer": "7"},
        traceparent="00-aa-bb-01",
        tracestate="k=v",
    )
    assert made == await client.get_job(made.id)
    assert made.payload == {"to": "ä@example.org", "n": [1, 2.5, None, True]}
    assert made.status is JobStatus.SCHEDULED
    assert (made.priority, made.max_attempts, made.attempt_count) == (9, 7, 0)
    assert made.scheduled_for == when
    assert made.timeout == timedelta(seconds=1.5)
    assert made.labels == {"customer": "7"}
    assert (made.traceparent, made.tracestate) == ("00-aa-bb-01", "k=v")

    raw = await client.create_job(emails, "send", JsonText('{"a" :  1}'))
    assert raw.payload_json == '{"a" :  1}'


async def test_a_creation_with_a_request_id_happens_once(client: Client, emails: str) -> None:
    first = await client.create_job(emails, "send", {"order": 7}, request_id="order-7")
    again = await client.create_job(emails, "send", {"order": 7}, request_id="order-7")
    assert again.id == first.id
    with pytest.raises(AlreadyExists) as reused:
        await client.create_job(emails, "send", {"order": 8}, request_id="order-7")
    assert reused.value.reason == "REQUEST_ID_REUSED"

    assert (await client.create_job(emails, "send")).id != (
        await client.create_job(emails, "send")
    ).id


async def test_many_jobs_are_made_and_each_has_an_answer(client: Client, emails: str) -> None:
    new_jobs = [NewJob(emails, "send", {"n": number}) for number in range(1_200)]
    new_jobs[1_100] = NewJob("no-such-queue", "send")
    results = await client.create_jobs(new_jobs, request_id="import")

    assert [each.error is None for each in results].count(False) == 1
    assert isinstance(results[1_100].error, NotFound)
    assert (await client.job_stats(emails)).counts.pending == 1_199
    again = await client.create_jobs(new_jobs, request_id="import")
    assert [each.job_id for each in again] == [each.job_id for each in results]


async def test_all_or_nothing_makes_none_when_one_is_refused(client: Client, emails: str) -> None:
    with pytest.raises(NotFound) as refused:
        await client.create_jobs(
            [NewJob(emails, "send"), NewJob("no-such-queue", "send")], all_or_nothing=True
        )
    assert refused.value.metadata["index"] == "1"
    assert (await client.job_stats()).total == 0


async def test_jobs_are_found_by_what_they_are(client: Client, emails: str) -> None:
    await client.create_jobs(
        NewJob(emails, f"type-{number % 2}", labels={"parity": str(number % 2)})
        for number in range(7)
    )
    listed = [job async for job in client.list_jobs(page_size=2)]
    assert len(listed) == 7
    assert [job.id for job in listed] == sorted((job.id for job in listed), reverse=True)

    odd = [job async for job in client.list_jobs(queue=emails, job_type="type-1", page_size=2)]
    labelled = [job async for job in client.list_jobs(labels={"parity": "1"})]
    assert odd == labelled
    assert len(odd) == 3
    assert [job async for job in client.list_jobs(status=JobStatus.FAILED)] == []
    assert [job async for job in client.list_jobs(created_to=listed[-1].created_at)] == []


async def test_a_waiting_job_is_cancelled_once_and_for_all(client: Client, emails: str) -> None:
    job = await client.create_job(emails, "send")
    assert (await client.cancel_job(job.id)).status is JobStatus.CANCELLED
    assert (await client.cancel_job(job.id)).status is JobStatus.CANCELLED
    with pytest.raises(PreconditionFailed) as not_failed:
        await client.retry_job(job.id)
    assert not_failed.value.reason == "JOB_NOT_FAILED"


async def test_wrong_input_names_the_field(client: Client, emails: str) -> None:
    with pytest.raises(InvalidRequest) as priority:
        await client.create_job(emails, "send", priority=10)
    assert [each.field for each in priority.value.violations] == ["job.priority"]
    assert "\n" not in str(priority.value)

    with pytest.raises(InvalidRequest) as page_size:
        async for _ in client.list_jobs(page_size=-1):
            pass
    assert [each.field for each in page_size.value.violations] == ["page_size"]

    with pytest.raises(InvalidRequest) as bad_json:
        await client.create_job(emails, "send", JsonText("{"))
    assert bad_json.value.reason == "INVALID_JSON"

    with pytest.raises(NotFound) as job:
        await client.get_job("00000000-0000-7000-8000-00000000dead")
    assert job.value.reason == "JOB_NOT_FOUND"


async def test_the_blocking_client_does_the_same(blocking_client: BlockingClient) -> None:
    def work(client: BlockingClient) -> None:
        with client:
            queue = client.create_queue("emails")
            made = client.create_job("emails", "send", {"to": 1}, request_id="r")
            assert client.create_job("emails", "send", {"to": 1}, request_id="r").id == made.id
            assert client.get_job(made.id).payload == {"to": 1}
            results = client.create_jobs(NewJob("emails", "send") for _ in range(1_001))
            assert all(each.error is None for each in results)
            assert len(list(client.list_jobs(queue=queue.id, page_size=1_000))) == 1_002
            assert client.job_stats().counts.pending == 1_002
            assert client.queue_stats("emails").oldest_ready_age is not None
            assert [each.name for each in client.list_queues()] == ["emails"]
            assert client.cancel_job(made.id).status is JobStatus.CANCELLED
            assert not client.pause_queue("emails").is_active
            assert client.update_queue("emails", is_active=True).is_active
            with pytest.raises(PreconditionFailed) as refused:
                client.delete_queue("emails")
            assert refused.value.reason == "QUEUE_NOT_EMPTY"
            assert refused.value.metadata["unfinished_jobs"] == "1001"

    await asyncio.to_thread(work, blocking_client)
