"""The blocking client, call by call, against gRPC's fake channel."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2
from tests.unit.sdk.fake_channel import Server, done
from tests.unit.sdk.fake_job_service import UNAVAILABLE, status

from taskforge.v1 import job_pb2, queue_pb2
from taskforge.v1 import job_service_pb2 as jobs
from taskforge.v1 import queue_service_pb2 as queues
from taskforge_sdk import (
    BlockingClient,
    DeadlineExceeded,
    InvalidRequest,
    JobStatus,
    NotFound,
    PurgeResult,
    QueueSettings,
    RetryPolicy,
    Unavailable,
)

FINISHED = [JobStatus.FAILED, JobStatus.SUCCEEDED]


def test_a_queue_is_made_as_described_and_comes_back_in_pythons_types(
    server: Server, blocking_client: BlockingClient
) -> None:
    call = server.during(
        lambda: blocking_client.create_queue(
            "emails",
            description="to customers",
            priority=7,
            settings=QueueSettings(max_retries=4, timeout=timedelta(minutes=2)),
        )
    )
    answer = queue_pb2.Queue(id="q1", project_id="p", name="emails", priority=7, is_active=True)
    answer.settings.max_retries = 4
    answer.settings.timeout.FromSeconds(120)
    answer.created_at.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    request = server.answer("CreateQueue", queues.CreateQueueResponse(queue=answer))
    queue = done(call)

    assert (request.project_id, request.name, request.priority) == ("p", "emails", 7)
    assert request.description == "to customers"
    assert request.settings == answer.settings
    assert queue.id == "q1"
    assert queue.settings == QueueSettings(max_retries=4, timeout=timedelta(minutes=2))
    assert queue.created_at == datetime(2026, 1, 2, tzinfo=UTC)


def test_a_job_is_made_with_its_payload_as_json_and_a_request_id_of_its_own(
    server: Server, blocking_client: BlockingClient
) -> None:
    when = datetime(2027, 1, 1, tzinfo=UTC)
    ids = set()
    for _ in range(2):
        call = server.during(
            lambda: blocking_client.create_job(
                "emails",
                "send",
                {"to": "ä@example.org"},
                priority=3,
                max_attempts=2,
                scheduled_for=when,
                timeout=90,
                labels={"customer": "7"},
            )
        )
        answer = job_pb2.Job(id="j1", payload='{"to":1}', status=job_pb2.JOB_STATUS_SCHEDULED)
        request = server.answer("CreateJob", jobs.CreateJobResponse(job=answer))
        job = done(call)
        spec = request.job
        ids.add(spec.request_id)

    assert len(ids) == 2
    assert "" not in ids
    assert spec.queue == "emails"
    assert spec.payload == '{"to":"ä@example.org"}'
    assert (spec.priority, spec.max_attempts, dict(spec.labels)) == (3, 2, {"customer": "7"})
    assert spec.scheduled_for.ToDatetime(tzinfo=UTC) == when
    assert spec.timeout.ToTimedelta() == timedelta(seconds=90)
    assert job.status is JobStatus.SCHEDULED
    assert job.payload == {"to": 1}
    assert job.result is None


def test_a_creation_without_an_answer_is_repeated_with_the_same_request_id(
    server: Server, blocking_client: BlockingClient
) -> None:
    call = server.during(lambda: blocking_client.create_job("emails", "send"))
    first = server.refuse("CreateJob", UNAVAILABLE)
    second = server.refuse("CreateJob", status(code_pb2.UNAVAILABLE, ""))
    third = server.answer("CreateJob", jobs.CreateJobResponse(job=job_pb2.Job(id="j1")))

    assert done(call).id == "j1"
    assert first == second == third
    assert first.job.request_id


def test_a_request_id_of_the_users_is_kept(server: Server, blocking_client: BlockingClient) -> None:
    call = server.during(lambda: blocking_client.create_job("emails", "send", request_id="order-7"))
    request = server.answer("CreateJob", jobs.CreateJobResponse())
    done(call)

    assert request.job.request_id == "order-7"


@pytest.mark.parametrize(
    ("rpc", "ask"),
    [
        ("CreateQueue", lambda client: client.create_queue("emails")),
        ("DeleteQueue", lambda client: client.delete_queue("emails")),
        ("RetryJob", lambda client: client.retry_job("j1")),
        ("RedriveJobs", lambda client: client.redrive_jobs("dead", max_jobs=5)),
        ("RedriveJobs", lambda client: client.redrive_jobs("dead", dry_run=True)),
    ],
)
def test_what_cannot_be_done_twice_is_never_repeated(
    server: Server,
    blocking_client: BlockingClient,
    rpc: str,
    ask: Callable[[BlockingClient], object],
) -> None:
    call = server.during(lambda: ask(blocking_client))
    server.refuse(rpc, UNAVAILABLE)

    with pytest.raises(Unavailable) as caught:
        done(call)
    assert caught.value.reason == "DATABASE_UNAVAILABLE"


@pytest.mark.parametrize(
    ("rpc", "response", "ask"),
    [
        ("GetQueue", queues.GetQueueResponse(), lambda client: client.get_queue("q")),
        ("PauseQueue", queues.PauseQueueResponse(), lambda client: client.pause_queue("q")),
        ("ResumeQueue", queues.ResumeQueueResponse(), lambda client: client.resume_queue("q")),
        ("GetQueueStats", queues.GetQueueStatsResponse(), lambda client: client.queue_stats("q")),
        ("UpdateQueue", queues.UpdateQueueResponse(), lambda c: c.update_queue("q", priority=1)),
        ("PurgeQueue", queues.PurgeQueueResponse(), lambda c: c.purge_queue("q", FINISHED)),
        ("GetJob", jobs.GetJobResponse(), lambda client: client.get_job("j")),
        ("GetJobStats", jobs.GetJobStatsResponse(), lambda client: client.job_stats()),
        ("CancelJob", jobs.CancelJobResponse(), lambda client: client.cancel_job("j")),
        ("ListJobs", jobs.ListJobsResponse(), lambda client: list(client.list_jobs())),
        ("ListQueues", queues.ListQueuesResponse(), lambda client: list(client.list_queues())),
        ("ListWorkers", jobs.ListWorkersResponse(), lambda client: list(client.list_workers())),
        ("UpdateWorker", jobs.UpdateWorkerResponse(), lambda c: c.update_worker("s")),
    ],
)
def test_what_may_be_done_twice_is_repeated_when_there_was_no_answer(
    server: Server,
    blocking_client: BlockingClient,
    rpc: str,
    response: Message,
    ask: Callable[[BlockingClient], object],
) -> None:
    call = server.during(lambda: ask(blocking_client))
    first = server.refuse(rpc, UNAVAILABLE)
    second = server.answer(rpc, response)
    done(call)

    assert first == second


def test_a_purge_says_what_it_removed(server: Server, blocking_client: BlockingClient) -> None:
    call = server.during(lambda: blocking_client.purge_queue("emails", FINISHED))
    request = server.answer(
        "PurgeQueue", queues.PurgeQueueResponse(cancelled_jobs=1, deleted_jobs=2)
    )

    assert done(call) == PurgeResult(cancelled_jobs=1, deleted_jobs=2)
    assert (request.project_id, request.queue, request.dry_run) == ("p", "emails", False)


def test_a_redrive_says_how_many_jobs_went_back(
    server: Server, blocking_client: BlockingClient
) -> None:
    call = server.during(
        lambda: blocking_client.redrive_jobs(
            "dead",
            job_type="send",
            origin_queue="emails",
            max_jobs=5,
            jobs_per_second=2,
            dry_run=True,
        )
    )
    request = server.answer("RedriveJobs", queues.RedriveJobsResponse(redriven_jobs=4))

    assert done(call) == 4
    assert request == queues.RedriveJobsRequest(
        project_id="p",
        queue="dead",
        job_type="send",
        origin_queue="emails",
        max_jobs=5,
        jobs_per_second=2,
        dry_run=True,
    )


def test_workers_are_listed_and_changed(server: Server, blocking_client: BlockingClient) -> None:
    listing = server.during(lambda: [worker.worker_id for worker in blocking_client.list_workers()])
    for name, token in (("a", "n"), ("b", "")):
        page = jobs.ListWorkersResponse(workers=[jobs.Worker(worker_id=name)])
        page.next_page_token = token
        server.answer("ListWorkers", page)
    assert done(listing) == ["a", "b"]

    change = server.during(lambda: blocking_client.update_worker("s", draining=True))
    changed = jobs.UpdateWorkerResponse(worker=jobs.Worker(session_id="s", draining=True))
    request = server.answer("UpdateWorker", changed)
    assert done(change).draining
    assert (request.project_id, request.session_id) == ("p", "s")


def test_a_refusal_is_raised_at_once_with_its_reason(
    server: Server, blocking_client: BlockingClient
) -> None:
    call = server.during(lambda: blocking_client.get_job("j1"))
    server.refuse("GetJob", status(code_pb2.NOT_FOUND, "JOB_NOT_FOUND", "there is no job j1"))

    with pytest.raises(NotFound, match="there is no job j1") as caught:
        done(call)
    assert caught.value.reason == "JOB_NOT_FOUND"
    assert str(caught.value) == "there is no job j1 [JOB_NOT_FOUND]"


def test_no_repetition_begins_that_the_timeout_leaves_no_time_for(server: Server) -> None:
    client = BlockingClient(
        job_channel=server.channel, timeout=5, retry=RetryPolicy(initial=60, maximum=60)
    )
    call = server.during(lambda: client.get_job("j1"))
    server.refuse("GetJob", status(code_pb2.DEADLINE_EXCEEDED, ""))

    with pytest.raises(DeadlineExceeded):
        done(call)


def test_a_list_is_read_page_by_page_only_as_far_as_it_is_used(
    server: Server, blocking_client: BlockingClient
) -> None:
    listed = blocking_client.list_jobs(queue="emails", status=JobStatus.FAILED, labels={"a": "b"})
    call = server.during(lambda: [next(listed).id for _ in range(3)])
    first = server.answer(
        "ListJobs",
        jobs.ListJobsResponse(jobs=[job_pb2.Job(id="1"), job_pb2.Job(id="2")], next_page_token="n"),
    )
    first_token = first.page_token
    second = server.answer(
        "ListJobs", jobs.ListJobsResponse(jobs=[job_pb2.Job(id="3")], next_page_token="more")
    )

    assert done(call) == ["1", "2", "3"]
    assert (first_token, second.page_token) == ("", "n")
    assert second.status == job_pb2.JOB_STATUS_FAILED
    assert (second.queue, dict(second.labels)) == ("emails", {"a": "b"})


def test_what_is_no_json_is_refused_before_anything_is_sent(
    blocking_client: BlockingClient,
) -> None:
    with pytest.raises(InvalidRequest, match="payload: cannot be JSON") as caught:
        blocking_client.create_job("emails", "send", {"when": datetime.now(UTC)})
    assert caught.value.reason == "INVALID_JSON"


def test_channels_that_were_given_are_not_closed(server: Server) -> None:
    class Watched:
        closed = False

        def close(self) -> None:
            self.closed = True

        def __getattr__(self, name: str) -> Any:
            return getattr(server.channel, name)

    watched = Watched()
    with BlockingClient(job_channel=watched) as client:  # type: ignore[arg-type]
        call = server.during(lambda: client.get_job("j1"))
        server.answer("GetJob", jobs.GetJobResponse())
        done(call)

    assert not watched.closed
