"""What the clients ask for, without a transport."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from taskforge.v1 import admin_service_pb2, job_service_pb2, queue_service_pb2
from taskforge_sdk import (
    InvalidRequest,
    JobStatus,
    JsonText,
    NewJob,
    PriorityDelays,
    QueueSettings,
    calls,
)
from taskforge_sdk.requests import jobs, queues, workers
from taskforge_sdk.requests.jobs import MAX_BATCH_BYTES


def test_every_call_of_the_table_is_an_rpc_of_the_contract() -> None:
    services = {
        "AdminService": admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
        "JobService": job_service_pb2.DESCRIPTOR.services_by_name["JobService"],
        "QueueService": queue_service_pb2.DESCRIPTOR.services_by_name["QueueService"],
    }
    for rpc in calls.ALL:
        assert rpc.name in services[rpc.service.value].methods_by_name

    for_workers = {
        "LeaseJobs", "AcquireJobs", "Heartbeat", "CompleteJob", "FailJob", "ReleaseJob",
        "BatchSettleJobs",
    }  # fmt: skip
    offered = {name for service in services.values() for name in service.methods_by_name}
    assert {rpc.name for rpc in calls.ALL} == offered - for_workers


def test_an_update_names_what_is_given_and_nothing_else() -> None:
    request = queues.update_queue("p", "emails", description="", is_active=False).request

    assert isinstance(request, queue_service_pb2.UpdateQueueRequest)
    assert list(request.update_mask.paths) == ["description", "is_active"]
    assert request.description == ""
    assert not request.is_active


def test_queue_settings_replace_all_settings() -> None:
    request = queues.update_queue("p", "emails", settings=QueueSettings(max_retries=0)).request

    assert isinstance(request, queue_service_pb2.UpdateQueueRequest)
    assert list(request.update_mask.paths) == ["settings"]
    assert request.settings.HasField("max_retries")
    assert not request.settings.HasField("timeout")


def test_a_settings_change_names_its_settings_and_none_resets_one() -> None:
    request = queues.update_queue(
        "p", "emails", settings={"timeout": None, "retry_delay": timedelta(seconds=3)}
    ).request

    assert isinstance(request, queue_service_pb2.UpdateQueueRequest)
    assert list(request.update_mask.paths) == ["settings.timeout", "settings.retry_delay"]
    assert not request.settings.HasField("timeout")
    assert request.settings.retry_delay.ToTimedelta() == timedelta(seconds=3)


def test_a_setting_that_does_not_exist_is_named() -> None:
    with pytest.raises(InvalidRequest, match="there is no setting retries"):
        queues.update_queue("p", "emails", settings={"retries": 3})  # type: ignore[arg-type]


def test_delays_without_a_value_are_sent_as_delays_and_none_is_not() -> None:
    on = queues.update_queue("p", "emails", settings={"delay_by_priority": PriorityDelays()})
    off = queues.update_queue("p", "emails", settings={"delay_by_priority": None})

    for call, has_delays in ((on, True), (off, False)):
        assert isinstance(call.request, queue_service_pb2.UpdateQueueRequest)
        assert list(call.request.update_mask.paths) == ["settings.delay_by_priority"]
        assert call.request.settings.HasField("delay_by_priority") is has_delays


def test_a_wrong_delay_is_named() -> None:
    settings = QueueSettings(delay_by_priority=PriorityDelays(low="soon"))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"settings\.delay_by_priority\.low: is no length"):
        queues.create_queue("p", "emails", settings=settings)


def test_a_pause_says_what_is_still_taken_and_when_it_ends() -> None:
    until = datetime(2027, 1, 1, tzinfo=UTC)
    request = queues.pause_queue("p", "emails", keep_accepting=True, resume_at=until).request

    assert isinstance(request, queue_service_pb2.PauseQueueRequest)
    assert request.keep_accepting
    assert request.resume_at.ToDatetime(tzinfo=UTC) == until
    with pytest.raises(InvalidRequest, match="resume_at: must have a timezone"):
        queues.pause_queue("p", "emails", resume_at=datetime(2027, 1, 1))  # noqa: DTZ001


def test_a_purge_names_each_status_once() -> None:
    statuses = [JobStatus.FAILED, JobStatus.PENDING, JobStatus.FAILED]
    request = queues.purge_queue("p", "emails", iter(statuses), dry_run=True).request

    assert isinstance(request, queue_service_pb2.PurgeQueueRequest)
    assert [JobStatus(one) for one in request.statuses] == [JobStatus.PENDING, JobStatus.FAILED]
    assert request.dry_run


def test_a_redrive_without_bounds_takes_everything() -> None:
    request = queues.redrive_jobs("p", "dead").request

    assert request == queue_service_pb2.RedriveJobsRequest(project_id="p", queue="dead")


@pytest.mark.parametrize(
    "bound", [{"max_jobs": 0}, {"jobs_per_second": 0}, {"job_type": ""}, {"origin_queue": ""}]
)
def test_a_bound_that_the_contract_reads_as_none_is_refused(bound: dict[str, Any]) -> None:
    (field,) = bound
    with pytest.raises(InvalidRequest, match=f"{field}: must ") as caught:
        queues.redrive_jobs("p", "dead", **bound)
    assert [each.field for each in caught.value.violations] == [field]


def test_a_change_of_a_worker_leaves_out_what_is_not_given() -> None:
    limited = workers.update_worker("p", "s", max_in_flight=3).request
    opened = workers.update_worker("p", "s", draining=False).request

    assert limited == job_service_pb2.UpdateWorkerRequest(
        project_id="p", session_id="s", max_in_flight=3
    )
    assert opened == job_service_pb2.UpdateWorkerRequest(
        project_id="p", session_id="s", draining=False
    )
    assert opened != job_service_pb2.UpdateWorkerRequest(project_id="p", session_id="s")


def test_json_text_is_sent_as_it_stands() -> None:
    request = jobs.create_job("p", "emails", "send", JsonText('{"a" : 1.0}')).request

    assert isinstance(request, job_service_pb2.CreateJobRequest)
    assert request.job.payload == '{"a" : 1.0}'


def test_a_job_without_a_payload_has_an_empty_object() -> None:
    request = jobs.create_job("p", "emails", "send").request

    assert isinstance(request, job_service_pb2.CreateJobRequest)
    assert request.job.payload == "{}"
    assert not request.job.HasField("max_attempts")
    assert not request.job.HasField("scheduled_for")


@pytest.mark.parametrize(
    "payload",
    [float("nan"), float("inf"), {1, 2}, b"bytes", "\ud800", {"a": object()}, {(1, 2): 3}],
)
def test_what_is_no_json_is_refused(payload: object) -> None:
    with pytest.raises(InvalidRequest, match="payload: cannot be JSON") as caught:
        jobs.create_job("p", "emails", "send", payload)
    assert [each.field for each in caught.value.violations] == ["payload"]


def test_a_payload_that_contains_itself_is_refused() -> None:
    payload: list[object] = []
    payload.append(payload)
    with pytest.raises(InvalidRequest, match="payload: cannot be JSON"):
        jobs.create_job("p", "emails", "send", payload)


def test_a_number_beyond_its_field_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="out of range"):
        jobs.create_job("p", "emails", "send", priority=2**40)


def test_a_time_without_a_timezone_names_no_moment() -> None:
    with pytest.raises(InvalidRequest, match="scheduled_for: must have a timezone"):
        jobs.create_job("p", "emails", "send", scheduled_for=datetime(2027, 1, 1))  # noqa: DTZ001


def test_times_of_any_timezone_are_the_same_moment() -> None:
    berlin = timezone(timedelta(hours=1))
    request = jobs.create_job(
        "p", "emails", "send", scheduled_for=datetime(2027, 1, 1, 1, tzinfo=berlin)
    ).request

    assert isinstance(request, job_service_pb2.CreateJobRequest)
    moment = request.job.scheduled_for.ToDatetime(tzinfo=UTC)
    assert moment == datetime(2027, 1, 1, 0, tzinfo=UTC)


def test_a_batch_is_cut_by_count_and_by_size() -> None:
    small = [NewJob("q", "t", number) for number in range(2_001)]
    large = [NewJob("q", "t", "x" * 900_000)] * 5

    def sizes(new_jobs: list[NewJob]) -> list[int]:
        built = jobs.create_jobs("p", new_jobs)
        assert all(batch.call.request.ByteSize() < MAX_BATCH_BYTES + 1_000 for batch in built)
        return [len(batch.call.request.jobs) for batch in built]  # type: ignore[attr-defined]

    assert sizes(small) == [1_000, 1_000, 1]
    assert sizes(large) == [3, 2]
    assert sizes([]) == []


def test_a_single_batch_keeps_the_request_id_as_it_is() -> None:
    (batch,) = jobs.create_jobs("p", [NewJob("q", "t")], request_id="mine")

    assert batch.call.request.request_id == "mine"  # type: ignore[attr-defined]


def test_all_or_nothing_needs_one_batch() -> None:
    with pytest.raises(InvalidRequest, match="do not fit in one batch"):
        jobs.create_jobs("p", [NewJob("q", "t")] * 1_001, all_or_nothing=True)

    (batch,) = jobs.create_jobs("p", [NewJob("q", "t")] * 1_000, all_or_nothing=True)
    assert batch.call.request.all_or_nothing  # type: ignore[attr-defined]
