"""Lease tokens: what goes in comes out, and nothing else is taken for one."""

import uuid

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from taskforge_core.errors import InvalidArgument
from taskforge_core.tokens import (
    NO_STREAM,
    STREAM,
    LeaseToken,
    decode_token,
    encode_token,
    token_head,
)

PROJECT = uuid.UUID("00000000-0000-7000-8000-000000000002")
JOB = "0190f3b0-1234-7abc-8def-0123456789ab"
TOKEN = encode_token(token_head(PROJECT, STREAM), JOB, 0x1F)

SEQUENCES = st.integers(1, 2**60 - 1)


@given(st.uuids(), st.sampled_from([STREAM, NO_STREAM]), st.uuids(), SEQUENCES)
def test_a_token_says_what_it_was_made_of(
    project_id: uuid.UUID, tag: str, job_id: uuid.UUID, lease_seq: int
) -> None:
    text = encode_token(token_head(project_id, tag), str(job_id), lease_seq)
    assert decode_token(text) == LeaseToken(project_id.hex, tag, str(job_id), lease_seq)
    assert len(text) <= 128


@given(st.uuids(), st.uuids(), SEQUENCES, SEQUENCES)
def test_different_leases_have_different_tokens(
    first: uuid.UUID, second: uuid.UUID, seq: int, other: int
) -> None:
    assume((first, seq) != (second, other))
    head = token_head(PROJECT, NO_STREAM)
    assert encode_token(head, str(first), seq) != encode_token(head, str(second), other)


@pytest.mark.parametrize("lease_seq", [1, 15, 16, 2**31, 2**32 - 1, 2**60 - 1])
def test_sequences_of_every_length_survive(lease_seq: int) -> None:
    assert decode_token(encode_token(TOKEN[:40], JOB, lease_seq)).lease_seq == lease_seq


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "token",
        TOKEN[:-2],
        TOKEN + "g",
        TOKEN + " ",
        TOKEN + "\n",
        " " + TOKEN,
        TOKEN.upper(),
        TOKEN + "0" * 14,
        TOKEN.replace("-", ""),
        TOKEN.replace("7abc", "7abg"),
        TOKEN.replace("7abc", "\uff17abc"),
        TOKEN[1:],
        "0" + TOKEN,
        TOKEN[:76] + "-1",
        TOKEN[:76] + "0x1",
        TOKEN + "\x00",
        "é" * 100,
    ],
    ids=repr,
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode_token(text)
    assert caught.value.reason == "INVALID_LEASE_TOKEN"
    # It may be somebody's, but for a letter: what was sent does not belong into messages or logs.
    assert caught.value.message == "this is not a lease token"
    assert not caught.value.metadata


@given(st.text(max_size=128))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    try:
        token = decode_token(text)
    except InvalidArgument:
        return
    head = token_head(uuid.UUID(token.project_id), token.tag)
    assert decode_token(encode_token(head, token.job_id, token.lease_seq)) == token


@given(st.integers(0, len(TOKEN) - 1), st.characters())
def test_a_token_with_one_character_changed_is_refused_or_another_lease(
    place: int, character: str
) -> None:
    assume(TOKEN[place] != character)
    try:
        token = decode_token(TOKEN[:place] + character + TOKEN[place + 1 :])
    except InvalidArgument:
        return
    assert token != decode_token(TOKEN)
    # Whatever it says goes to SQL as these types.
    uuid.UUID(token.project_id)
    uuid.UUID(token.job_id)
    assert token.lease_seq < 2**63
