"""What the clients ask for, without a transport."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from taskforge.v1 import job_service_pb2, queue_service_pb2
from taskforge_sdk import InvalidRequest, JsonText, NewJob, QueueSettings, calls, requests
from taskforge_sdk.requests import MAX_BATCH_BYTES


def test_every_call_of_the_table_is_an_rpc_of_the_contract() -> None:
    services = {
        "JobService": job_service_pb2.DESCRIPTOR.services_by_name["JobService"],
        "QueueService": queue_service_pb2.DESCRIPTOR.services_by_name["QueueService"],
    }
    for rpc in calls.ALL:
        assert rpc.name in services[rpc.service.value].methods_by_name

    workers = {
        "LeaseJobs", "AcquireJobs", "Heartbeat", "CompleteJob", "FailJob", "ReleaseJob",
        "BatchSettleJobs",
    }  # fmt: skip
    offered = {name for service in services.values() for name in service.methods_by_name}
    assert {rpc.name for rpc in calls.ALL} == offered - workers


def test_an_update_names_what_is_given_and_nothing_else() -> None:
    request = requests.update_queue("p", "emails", description="", is_active=False).request

    assert isinstance(request, queue_service_pb2.UpdateQueueRequest)
    assert list(request.update_mask.paths) == ["description", "is_active"]
    assert request.description == ""
    assert not request.is_active


def test_queue_settings_replace_all_settings() -> None:
    request = requests.update_queue("p", "emails", settings=QueueSettings(max_retries=0)).request

    assert isinstance(request, queue_service_pb2.UpdateQueueRequest)
    assert list(request.update_mask.paths) == ["settings"]
    assert request.settings.HasField("max_retries")
    assert not request.settings.HasField("timeout")


def test_a_settings_change_names_its_settings_and_none_resets_one() -> None:
    request = requests.update_queue(
        "p", "emails", settings={"timeout": None, "retry_delay": timedelta(seconds=3)}
    ).request

    assert isinstance(request, queue_service_pb2.UpdateQueueRequest)
    assert list(request.update_mask.paths) == ["settings.timeout", "settings.retry_delay"]
    assert not request.settings.HasField("timeout")
    assert request.settings.retry_delay.ToTimedelta() == timedelta(seconds=3)


def test_a_setting_that_does_not_exist_is_named() -> None:
    with pytest.raises(InvalidRequest, match="there is no setting retries"):
        requests.update_queue("p", "emails", settings={"retries": 3})  # type: ignore[arg-type]


def test_json_text_is_sent_as_it_stands() -> None:
    request = requests.create_job("p", "emails", "send", JsonText('{"a" : 1.0}')).request

    assert isinstance(request, job_service_pb2.CreateJobRequest)
    assert request.job.payload == '{"a" : 1.0}'


def test_a_job_without_a_payload_has_an_empty_object() -> None:
    request = requests.create_job("p", "emails", "send").request

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
        requests.create_job("p", "emails", "send", payload)
    assert [each.field for each in caught.value.violations] == ["payload"]


def test_a_payload_that_contains_itself_is_refused() -> None:
    payload: list[object] = []
    payload.append(payload)
    with pytest.raises(InvalidRequest, match="payload: cannot be JSON"):
        requests.create_job("p", "emails", "send", payload)


def test_a_number_beyond_its_field_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="out of range"):
        requests.create_job("p", "emails", "send", priority=2**40)


def test_a_time_without_a_timezone_names_no_moment() -> None:
    with pytest.raises(InvalidRequest, match="scheduled_for: must have a timezone"):
        requests.create_job("p", "emails", "send", scheduled_for=datetime(2027, 1, 1))  # noqa: DTZ001


def test_times_of_any_timezone_are_the_same_moment() -> None:
    berlin = timezone(timedelta(hours=1))
    request = requests.create_job(
        "p", "emails", "send", scheduled_for=datetime(2027, 1, 1, 1, tzinfo=berlin)
    ).request

    assert isinstance(request, job_service_pb2.CreateJobRequest)
    moment = request.job.scheduled_for.ToDatetime(tzinfo=UTC)
    assert moment == datetime(2027, 1, 1, 0, tzinfo=UTC)


def test_a_batch_is_cut_by_count_and_by_size() -> None:
    small = [NewJob("q", "t", number) for number in range(2_001)]
    large = [NewJob("q", "t", "x" * 900_000)] * 5

    def sizes(jobs: list[NewJob]) -> list[int]:
        built = requests.create_jobs("p", jobs)
        assert all(batch.call.request.ByteSize() < MAX_BATCH_BYTES + 1_000 for batch in built)
        return [len(batch.call.request.jobs) for batch in built]  # type: ignore[attr-defined]

    assert sizes(small) == [1_000, 1_000, 1]
    assert sizes(large) == [3, 2]
    assert sizes([]) == []


def test_a_single_batch_keeps_the_request_id_as_it_is() -> None:
    (batch,) = requests.create_jobs("p", [NewJob("q", "t")], request_id="mine")

    assert batch.call.request.request_id == "mine"  # type: ignore[attr-defined]


def test_all_or_nothing_needs_one_batch() -> None:
    with pytest.raises(InvalidRequest, match="do not fit in one batch"):
        requests.create_jobs("p", [NewJob("q", "t")] * 1_001, all_or_nothing=True)

    (batch,) = requests.create_jobs("p", [NewJob("q", "t")] * 1_000, all_or_nothing=True)
    assert batch.call.request.all_or_nothing  # type: ignore[attr-defined]
