"""API keys as text: what is taken for one, and what is told of it."""

import pytest

from taskforge_core.addresses import is_local
from taskforge_core.api_keys import new_api_key, parse_api_key


def test_a_key_is_read_back_and_proves_itself_alone() -> None:
    key, other = new_api_key(), new_api_key()
    assert parse_api_key(key.text) == key
    assert key.proves(key.secret_hash)
    assert not key.proves(other.secret_hash)
    assert not key.proves(None)


def test_keys_differ_in_id_and_secret() -> None:
    keys = [new_api_key() for _ in range(100)]
    assert len({key.id for key in keys}) == len({key.secret for key in keys}) == 100


def test_a_key_does_not_show_its_secret() -> None:
    key = new_api_key()
    assert key.secret not in repr(key)
    assert key.secret not in str(key)


KEY = f"tfk_{'0123456789abcdef' * 2}_{'s' * 43}"


def test_the_key_of_the_next_test_is_one_but_for_what_is_wrong_there() -> None:
    assert parse_api_key(KEY) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tfk_",
        "tfk__",
        KEY[:-1],
        KEY + "x",
        KEY.upper(),
        " " + KEY,
        KEY + "\n",
        KEY.replace("tfk", "tfx"),
    ],
)
def test_other_texts_are_no_keys(text: str) -> None:
    assert parse_api_key(text) is None


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:50051", True),
        ("127.8.9.10:1", True),
        ("localhost:50051", True),
        ("[::1]:50051", True),
        ("unix:/tmp/socket", True),
        ("0.0.0.0:50051", False),
        ("[::]:50051", False),
        ("10.0.0.1:50051", False),
        ("jobs.example.org:50051", False),
        (":50051", False),
    ],
)
def test_only_this_machine_reaches_a_local_address(address: str, local: bool) -> None:
    assert is_local(address) is local
