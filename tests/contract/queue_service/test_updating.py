"""Changing queues by an update mask, over a real server."""

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from tests.support.queue_calls import SETTINGS, get, make, update
from tests.support.refusals import expect_error
from tests.support.stubs import QueueStub

from taskforge.v1 import queue_pb2
from taskforge.v1 import queue_service_pb2 as pb


async def test_only_what_the_mask_names_is_changed(queue_stub: QueueStub) -> None:
    before = await make(queue_stub)
    request = update(
        "emails", "priority", name="letters", description="new", priority=7, settings=SETTINGS
    )
    after = (await queue_stub.UpdateQueue(request)).queue
    expected = queue_pb2.Queue()
    expected.CopyFrom(before)
    expected.priority = 7
    expected.updated_at.CopyFrom(after.updated_at)
    assert after == expected
    assert after.updated_at.ToNanoseconds() > before.updated_at.ToNanoseconds()
    assert await get(queue_stub, before.id) == after


async def test_every_path_can_be_changed_at_once(queue_stub: QueueStub) -> None:
    await make(queue_stub)
    request = update(
        "emails",
        *("name", "description", "priority", "settings", "is_active"),
        name="letters",
        description="new",
        priority=7,
        settings=SETTINGS,
        is_active=False,
    )
    queue = (await queue_stub.UpdateQueue(request)).queue
    assert (queue.name, queue.description, queue.priority) == ("letters", "new", 7)
    assert queue.settings == SETTINGS
    assert not queue.is_active
    assert not queue.accepts_jobs
    await expect_error(get(queue_stub, "emails"), StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")


async def test_one_setting_is_changed_or_goes_back_to_its_default(queue_stub: QueueStub) -> None:
    await queue_stub.CreateQueue(pb.CreateQueueRequest(name="emails", settings=SETTINGS))
    request = update(
        "emails",
        *("settings.max_retries", "settings.timeout"),
        settings=queue_pb2.QueueSettings(max_retries=5, max_payload_bytes=1),
    )
    settings = (await queue_stub.UpdateQueue(request)).queue.settings
    expected = queue_pb2.QueueSettings()
    expected.CopyFrom(SETTINGS)
    expected.max_retries = 5
    expected.ClearField("timeout")
    assert settings == expected


async def test_settings_in_the_mask_replace_all_of_them(queue_stub: QueueStub) -> None:
    await queue_stub.CreateQueue(pb.CreateQueueRequest(name="emails", settings=SETTINGS))
    only = queue_pb2.QueueSettings(retry_jitter=0.5)
    assert (
        await queue_stub.UpdateQueue(update("emails", "settings", settings=only))
    ).queue.settings == only
    cleared = (await queue_stub.UpdateQueue(update("emails", "settings"))).queue
    assert cleared.settings == queue_pb2.QueueSettings()


async def test_the_delays_by_priority_are_changed_as_a_whole(queue_stub: QueueStub) -> None:
    await queue_stub.CreateQueue(pb.CreateQueueRequest(name="emails", settings=SETTINGS))
    delays = queue_pb2.PriorityDelays(medium=Duration(seconds=1))
    for wanted in (delays, queue_pb2.PriorityDelays()):
        request = update(
            "emails",
            "settings.delay_by_priority",
            settings=queue_pb2.QueueSettings(delay_by_priority=wanted),
        )
        settings = (await queue_stub.UpdateQueue(request)).queue.settings
        # Also without any delay of its own: the defaults that the contract states.
        assert settings.HasField("delay_by_priority")
        assert settings.delay_by_priority == wanted
    switched_off = await queue_stub.UpdateQueue(update("emails", "settings.delay_by_priority"))
    assert not switched_off.queue.settings.HasField("delay_by_priority")
    assert switched_off.queue.settings.max_concurrent_jobs == SETTINGS.max_concurrent_jobs


async def test_an_update_to_what_is_so_already_changes_nothing(queue_stub: QueueStub) -> None:
    before = await make(queue_stub)
    after = (await queue_stub.UpdateQueue(update("emails", "name", name="emails"))).queue
    assert after == before


@pytest.mark.parametrize(
    ("paths", "wrong"),
    [
        ([], ""),
        (["id"], "id"),
        (["priority", "created_at"], "created_at"),
        (["settings."], "settings."),
        (["settings.unknown"], "settings.unknown"),
        (["settings.delay_by_priority.low"], "settings.delay_by_priority.low"),
        (["accepts_jobs"], "accepts_jobs"),
        (["resume_at"], "resume_at"),
        (["*"], "*"),
        (["Name"], "Name"),
    ],
)
async def test_a_mask_that_cannot_be_followed_is_refused(
    queue_stub: QueueStub, paths: list[str], wrong: str
) -> None:
    before = await make(queue_stub)
    refusal = await expect_error(
        queue_stub.UpdateQueue(update("emails", *paths, priority=5)),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_UPDATE_MASK",
    )
    assert refusal.metadata == {"path": wrong}
    assert await get(queue_stub, "emails") == before


async def test_a_missing_or_endless_mask_is_refused(queue_stub: QueueStub) -> None:
    await make(queue_stub)
    for request in (
        pb.UpdateQueueRequest(queue="emails", priority=5),
        update("emails", *["priority"] * 21),
    ):
        refusal = await expect_error(
            queue_stub.UpdateQueue(request), StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
        )
        assert list(refusal.field_violations) == ["update_mask"]


@pytest.mark.parametrize("name", ["", "019ab2e4-0000-7000-8000-000000000000"])
async def test_a_queue_cannot_be_renamed_to_nothing_or_to_an_id(
    queue_stub: QueueStub, name: str
) -> None:
    await make(queue_stub)
    refusal = await expect_error(
        queue_stub.UpdateQueue(update("emails", "name", name=name)),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
    )
    assert list(refusal.field_violations) == ["name"]


async def test_a_queue_cannot_be_renamed_to_a_taken_name(queue_stub: QueueStub) -> None:
    await make(queue_stub)
    await make(queue_stub, "letters")
    refusal = await expect_error(
        queue_stub.UpdateQueue(update("letters", "name", name="emails")),
        StatusCode.ALREADY_EXISTS,
        "QUEUE_NAME_TAKEN",
    )
    assert refusal.metadata == {"queue": "emails"}
