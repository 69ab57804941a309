"""Telling a queue's id from its name."""

from uuid import UUID, uuid4

import pytest

from taskforge_core.queue_names import parse_queue_id


def test_an_id_is_read_in_any_case() -> None:
    queue_id = uuid4()
    assert parse_queue_id(str(queue_id)) == queue_id
    assert parse_queue_id(str(queue_id).upper()) == queue_id
    assert parse_queue_id(str(UUID(int=0))) == UUID(int=0)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "emails",
        "019ab2e400007000800000000000abcd",
        "{019ab2e4-0000-7000-8000-00000000abcd}",
        "urn:uuid:019ab2e4-0000-7000-8000-00000000abcd",
        "019ab2e4-0000-7000-8000-00000000abcd\n",
        "019ab2e4-0000-7000-8000-00000000abc",
        "019ab2e4-0000-7000-8000-00000000abcdd",
        "019ab2e4-0000-7000-8000-00000000abcg",
        "019ab2e4-0000-7000-8000_00000000abcd",
        "\N{ARABIC-INDIC DIGIT ZERO}19ab2e4-0000-7000-8000-00000000abcd",
    ],
)
def test_everything_else_is_a_name(name: str) -> None:
    assert parse_queue_id(name) is None
