"""From an update mask to columns."""

from datetime import timedelta
from itertools import combinations
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from queue_service.masking import MAX_PATHS, UPDATABLE_PATHS, masked_columns
from taskforge.v1 import queue_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.errors import InvalidArgument

SETTINGS = queue_pb2.QueueSettings(
    max_retries=1,
    timeout=Duration(seconds=2),
    retry_delay=Duration(seconds=3),
    max_retry_delay=Duration(seconds=4),
    backoff_multiplier=5,
    retry_jitter=0.6,
    max_payload_bytes=7,
    max_concurrent_jobs=8,
    rate_limit_per_minute=9,
    dead_letter_queue_id="0000000A-0000-7000-8000-000000000000",
    delay_by_priority=queue_pb2.PriorityDelays(low=Duration(seconds=11)),
)
NO_DELAYS = {
    "delays_by_priority": False,
    "delay_low": None,
    "delay_medium": None,
    "delay_high": None,
    "delay_urgent": None,
}
OF_SETTING: dict[str, dict[str, object]] = {
    "max_retries": {"max_retries": 1},
    "timeout": {"timeout": timedelta(seconds=2)},
    "retry_delay": {"retry_delay": timedelta(seconds=3)},
    "max_retry_delay": {"max_retry_delay": timedelta(seconds=4)},
    "backoff_multiplier": {"backoff_multiplier": 5.0},
    "retry_jitter": {"retry_jitter": 0.6},
    "max_payload_bytes": {"max_payload_bytes": 7},
    "max_concurrent_jobs": {"max_concurrent_jobs": 8},
    "rate_limit_per_minute": {"rate_limit_per_minute": 9},
    "dead_letter_queue_id": {"dead_letter_queue_id": UUID("0000000a-0000-7000-8000-000000000000")},
    "delay_by_priority": {
        **NO_DELAYS,
        "delays_by_priority": True,
        "delay_low": timedelta(seconds=11),
    },
}
SETTINGS_COLUMNS = {
    column: value for columns in OF_SETTING.values() for column, value in columns.items()
}
UNSET = dict.fromkeys(SETTINGS_COLUMNS) | NO_DELAYS
COLUMNS: dict[str, dict[str, object]] = {
    "name": {"name": "letters"},
    "description": {"description": "new"},
    "priority": {"priority": 7},
    "is_active": {"is_active": True, "accepts_jobs": True, "resume_at": None},
    "settings": dict(SETTINGS_COLUMNS),
    **{f"settings.{name}": columns for name, columns in OF_SETTING.items()},
}


def request(*paths: str) -> pb.UpdateQueueRequest:
    return pb.UpdateQueueRequest(
        queue="emails",
        name="letters",
        description="new",
        priority=7,
        settings=SETTINGS,
        is_active=True,
        update_mask=FieldMask(paths=paths),
    )


def test_the_paths_are_those_of_the_contract() -> None:
    assert set(UPDATABLE_PATHS) == COLUMNS.keys()
    assert len(UPDATABLE_PATHS) <= MAX_PATHS


@pytest.mark.parametrize("path", COLUMNS)
def test_each_path_changes_its_columns_alone(path: str) -> None:
    assert masked_columns(request(path)) == COLUMNS[path]


@pytest.mark.parametrize("paths", list(combinations(COLUMNS, 2)), ids=" ".join)
def test_two_paths_change_the_columns_of_both(paths: tuple[str, str]) -> None:
    first, second = paths
    assert masked_columns(request(first, second)) == COLUMNS[first] | COLUMNS[second]
    assert masked_columns(request(second, first)) == COLUMNS[first] | COLUMNS[second]


@pytest.mark.parametrize("path", [path for path in COLUMNS if path.startswith("settings.")])
def test_a_setting_that_is_not_given_goes_back_to_its_default(path: str) -> None:
    bare = pb.UpdateQueueRequest(queue="emails", update_mask=FieldMask(paths=[path]))
    assert masked_columns(bare) == {
        column: UNSET[column] for column in OF_SETTING[path.removeprefix("settings.")]
    }


def test_settings_that_are_not_given_all_go_back_to_their_defaults() -> None:
    bare = pb.UpdateQueueRequest(queue="emails", update_mask=FieldMask(paths=["settings"]))
    assert masked_columns(bare) == UNSET


def test_fields_that_are_not_given_become_empty() -> None:
    bare = pb.UpdateQueueRequest(
        queue="emails", update_mask=FieldMask(paths=["description", "priority", "is_active"])
    )
    assert masked_columns(bare) == {
        "description": "",
        "priority": 0,
        "is_active": False,
        "accepts_jobs": False,
        "resume_at": None,
    }


@pytest.mark.parametrize(
    "path",
    [
        *("", "id", "project_id", "queue", "created_at", "accepts_jobs", "resume_at", "isActive"),
        *("settings.", "settings.x", "settings.delay_by_priority.low", "settings.delay_low", "*"),
    ],
)
def test_an_unknown_path_is_named(path: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        masked_columns(request("priority", path))
    assert caught.value.reason == "INVALID_UPDATE_MASK"
    assert caught.value.metadata == {"path": path}


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        masked_columns(request())
    assert caught.value.reason == "INVALID_UPDATE_MASK"


def test_a_mask_may_hold_twenty_paths_and_no_more() -> None:
    assert masked_columns(request(*["priority"] * MAX_PATHS)) == {"priority": 7}
    with pytest.raises(InvalidArgument) as caught:
        masked_columns(request(*["priority"] * (MAX_PATHS + 1)))
    assert caught.value.reason == "INVALID_REQUEST"


@pytest.mark.parametrize("name", ["", "019AB2E4-0000-7000-8000-000000000000"])
def test_a_name_that_no_queue_may_bear_is_refused_only_when_named(name: str) -> None:
    bad = request("name")
    bad.name = name
    with pytest.raises(InvalidArgument) as caught:
        masked_columns(bad)
    assert caught.value.reason == "INVALID_REQUEST"
    assert [violation.field for violation in caught.value.field_violations] == ["name"]
    bad.update_mask.paths[:] = ["priority"]
    assert masked_columns(bad) == {"priority": 7}
