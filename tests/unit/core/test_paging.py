"""Page sizes and page tokens."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskforge.v1 import job_service_pb2, queue_pb2, queue_service_pb2
from taskforge_core.errors import InvalidArgument
from taskforge_core.paging import (
    coerce_page_size,
    decode_page_token,
    encode_page_token,
    filters_digest,
    page_length,
)

FILTERS = filters_digest(queue_service_pb2.ListQueuesRequest())
ID = UUID("019ab2e4-0000-7000-8000-000000000000")


def refused(token: str, *, call: str = "List", filters: bytes = FILTERS) -> bool:
    try:
        decode_page_token(token, call, filters, str)
    except InvalidArgument as error:
        return error.reason == "INVALID_PAGE_TOKEN"
    return False


@pytest.mark.parametrize(
    ("asked", "got"),
    [(0, 50), (1, 1), (50, 50), (999, 999), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)],
)
def test_a_page_size_is_coerced(asked: int, got: int) -> None:
    assert coerce_page_size(asked) == got


def test_no_token_is_the_first_page() -> None:
    assert decode_page_token("", "List", FILTERS, str) is None


@given(st.text().filter(lambda text: "\0" not in text), st.uuids())
def test_a_text_key_survives(value: str, item_id: UUID) -> None:
    token = encode_page_token("List", FILTERS, value, item_id)
    assert decode_page_token(token, "List", FILTERS, str) == (value, item_id)


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_moment_survives_to_the_microsecond(value: datetime, item_id: UUID) -> None:
    token = encode_page_token("List", FILTERS, value, item_id)
    assert decode_page_token(token, "List", FILTERS, datetime) == (value, item_id)


def test_a_moment_is_the_same_in_every_time_zone() -> None:
    value = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    token = encode_page_token("List", FILTERS, value, ID)
    assert token == encode_page_token("List", FILTERS, datetime(2026, 1, 1, tzinfo=UTC), ID)


def test_the_longest_name_fits_the_contract() -> None:
    assert len(encode_page_token("ListQueues", FILTERS, "x" * 100, ID)) < 2048


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_no_altered_byte_is_accepted(position: int, change: int) -> None:
    token = encode_page_token("List", FILTERS, "emails", ID)
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[position % len(raw)] ^= change
    assert refused(base64.urlsafe_b64encode(raw).decode().rstrip("="))


@given(st.text(min_size=1))
def test_no_other_text_is_accepted(text: str) -> None:
    assert refused(text)


def test_no_part_of_a_token_is_accepted() -> None:
    token = encode_page_token("List", FILTERS, "emails", ID)
    assert all(refused(token[:length]) for length in range(1, len(token)))
    assert refused(token * 2)


def test_a_token_is_bound_to_its_call_and_filters() -> None:
    token = encode_page_token("List", FILTERS, "emails", ID)
    other = filters_digest(queue_service_pb2.ListQueuesRequest(project_id=str(ID)))
    assert refused(token, call="ListOthers")
    assert refused(token, filters=other)
    assert not refused(token)


@pytest.mark.parametrize(
    "key",
    [
        ["emails"],
        ["emails", str(ID), 1],
        {"emails": str(ID)},
        [1, str(ID)],
        [None, str(ID)],
        ["nul\0", str(ID)],
        ["emails", "x"],
        ["emails", 1],
        "ab",
        7,
        None,
    ],
)
def test_a_forged_key_of_the_wrong_shape_is_refused(key: object) -> None:
    assert refused(forge(orjson.dumps(key)))


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), "2026-01-01", 1.5, None])
def test_a_forged_moment_is_refused(value: object) -> None:
    token = forge(orjson.dumps([value, str(ID)]))
    with pytest.raises(InvalidArgument):
        decode_page_token(token, "List", FILTERS, datetime)


def test_a_forged_key_that_is_no_json_is_refused() -> None:
    assert refused(forge(b"no json"))
    assert refused(forge(b""))


def forge(key: bytes) -> str:
    """A token whose checksum is right, as anybody can make who reads the source."""
    checksum = hashlib.sha256(b"\0".join((b"List", FILTERS, key))).digest()[:8]
    return base64.urlsafe_b64encode(checksum + key).decode().rstrip("=")


def test_every_filter_counts_and_the_page_does_not() -> None:
    plain = job_service_pb2.ListJobsRequest()
    digest = filters_digest(plain)
    assert filters_digest(job_service_pb2.ListJobsRequest(page_size=5, page_token="x")) == digest
    filtered = job_service_pb2.ListJobsRequest()
    digests = {digest}
    for field in plain.DESCRIPTOR.fields:
        if field.name in {"page_size", "page_token"}:
            continue
        filtered = job_service_pb2.ListJobsRequest()
        value = getattr(filtered, field.name)
        if isinstance(value, str):
            setattr(filtered, field.name, "x")
        elif isinstance(value, int):
            setattr(filtered, field.name, 1)
        elif field.name == "labels":
            filtered.labels["team"] = "a"
        else:
            value.SetInParent()
        digests.add(filters_digest(filtered))
    assert len(digests) == len(plain.DESCRIPTOR.fields) - 2 + 1


def test_the_order_of_labels_does_not_count() -> None:
    one = job_service_pb2.ListJobsRequest(labels={"a": "1", "b": "2", "c": "3"})
    other = job_service_pb2.ListJobsRequest(labels={"c": "3", "b": "2", "a": "1"})
    assert filters_digest(one) == filters_digest(other)


def test_a_page_ends_before_it_is_too_large_for_a_message() -> None:
    mebibyte = queue_pb2.Queue(description="x" * 1_048_000)
    small = queue_pb2.Queue(name="small")
    assert page_length([], 10) == 0
    assert page_length([small] * 3, 2) == 2
    assert page_length([small] * 3, 3) == 3
    assert page_length([small] * 3, 10) == 3
    assert page_length([mebibyte] * 3, 10) == 2
    assert page_length([mebibyte, mebibyte, small, small], 10) == 4
    # A single item that is larger still comes.
    assert page_length([queue_pb2.Queue(description="x" * 3_000_000), small], 10) == 1
