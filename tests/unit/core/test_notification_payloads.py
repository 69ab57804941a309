"""How notifications are packed into payloads that Postgres takes."""

import json

from hypothesis import given
from hypothesis import strategies as st

from taskforge_core.notifications import MAX_PAYLOAD_BYTES, encode_payloads

ORIGIN = "server-1"


def unpack(payloads: list[str]) -> dict[str, set[str] | None]:
    """What a listener understands: a topic without keys is None, everything."""
    topics: dict[str, set[str] | None] = {}
    for payload in payloads:
        message = json.loads(payload)
        assert message["o"] == ORIGIN
        for topic, keys in message["t"].items():
            known = topics.setdefault(topic, set())
            if not keys:
                topics[topic] = None
            elif known is not None:
                known.update(keys)
    return topics


@given(
    st.dictionaries(
        st.text(max_size=30),
        st.none() | st.sets(st.text(min_size=1, max_size=60), min_size=1, max_size=200),
        max_size=12,
    )
)
def test_nothing_is_lost_and_no_payload_is_too_long(topics: dict[str, set[str] | None]) -> None:
    payloads = list(encode_payloads(ORIGIN, topics))
    assert unpack(payloads) == topics
    assert all(len(payload.encode()) <= MAX_PAYLOAD_BYTES for payload in payloads)


def test_payloads_are_filled() -> None:
    keys = {f"0190b5a6-0000-7000-8000-{number:012}" for number in range(1000)}
    payloads = list(encode_payloads(ORIGIN, {"queue": keys}))
    assert all(len(payload) > MAX_PAYLOAD_BYTES - 50 for payload in payloads[:-1])
    assert len(payloads) == 5


def test_a_key_too_long_for_any_payload_becomes_everything_of_its_topic() -> None:
    payloads = list(encode_payloads(ORIGIN, {"queue": {"short", "x" * 8000}}))
    assert unpack(payloads) == {"queue": None}


def test_without_topics_there_is_nothing_to_send() -> None:
    assert list(encode_payloads(ORIGIN, {})) == []
