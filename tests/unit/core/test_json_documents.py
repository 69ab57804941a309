"""Which texts are taken for JSON documents."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskforge_core.errors import InvalidArgument
from taskforge_core.json_documents import MAX_DEPTH, check_json

DOCUMENTS: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


def is_json(text: str) -> bool:
    try:
        check_json(text, "payload")
    except InvalidArgument:
        return False
    return True


@given(DOCUMENTS, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_every_document_is_accepted_however_it_is_written(
    document: Any, ascii_only: bool, indent: int | str | None
) -> None:
    assert is_json(json.dumps(document, ensure_ascii=ascii_only, indent=indent))


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "true",
        "0",
        "-0",
        "1e-400",
        "12345678901234567890123456789",
        '""',
        '"\\u0000"',
        '"\\ud83d\\ude00"',
        '"\x7f"',
        " \t\r\n[ 1 , 2 ]\n",
        '{"": {"": []}}',
        '{"a": 1, "a": 2}',
    ],
    ids=repr,
)
def test_documents_of_every_kind_are_accepted(text: str) -> None:
    assert is_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "NaN",
        "[NaN]",
        "Infinity",
        "-Infinity",
        "nan",
        "None",
        "True",
        "1e400",
        "{'a': 1}",
        "{a: 1}",
        '{"a": 1,}',
        "[1,]",
        "[1] [2]",
        "{} //",
        "01",
        "+1",
        ".5",
        "1.",
        "0x10",
        '"\\ud800"',
        '"\\ude00\\ud83d"',
        '"\\ud83d x"',
        '"\\x41"',
        '"\n"',
        '"\x00"',
        "\x00",
        '"',
        "[",
        "\ufeff{}",
        "\u00a0{}",
        "\x0b1",
    ],
    ids=repr,
)
def test_what_is_no_document_is_refused(text: str) -> None:
    assert not is_json(text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_what_is_accepted_is_json_to_others_too(text: str) -> None:
    def no_constant(name: str) -> None:
        raise ValueError(name)

    if is_json(text):
        json.loads(text, parse_constant=no_constant)


def test_the_refusal_names_the_field_and_the_place_but_not_the_text() -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_json('{"password": "secret', "jobs[3].payload")
    error = caught.value
    assert error.reason == "INVALID_JSON"
    assert error.metadata == {"field": "jobs[3].payload"}
    [violation] = error.field_violations
    assert violation.field == "jobs[3].payload"
    assert "at character" in violation.description
    assert "secret" not in str(error)


def nested(depth: int, opening: str = "[", closing: str = "]", core: str = "") -> str:
    return opening * depth + core + closing * depth


@pytest.mark.parametrize(
    ("opening", "closing", "core"),
    [("[", "]", ""), ('{"a":', "}", "1"), ('[{"b":[1]},', "]", "2"), (' [ "[{" , ', " ] ", '"]"')],
    ids=["arrays", "objects", "with siblings", "with brackets in strings"],
)
def test_a_hundred_levels_are_accepted_and_one_more_is_not(
    opening: str, closing: str, core: str
) -> None:
    # A sibling below each level is two levels deeper than the level itself.
    own = MAX_DEPTH - 2 if "b" in opening else MAX_DEPTH
    assert is_json(nested(own, opening, closing, core))
    assert not is_json(nested(own + 1, opening, closing, core))


def test_levels_count_below_a_key_that_is_repeated() -> None:
    """Readers meet them, also those that keep the last of equal keys only."""
    assert is_json('{"a": ' + nested(MAX_DEPTH - 1) + ', "a": 1}')
    assert not is_json('{"a": ' + nested(MAX_DEPTH) + ', "a": 1}')


@pytest.mark.parametrize("depth", [1000, 1025, 100_000])
def test_however_deep_it_is_refused_and_nothing_overflows(depth: int) -> None:
    assert not is_json(nested(depth))
    assert not is_json(nested(depth, '{"a":', "}", "1"))


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert is_json("[" + ",".join(["[]"] * 10_000) + "]")
    assert is_json('["' + "[" * 10_000 + '"]')
    assert is_json('["\\\\", "' + '\\"[' * 1000 + '", "' + "{" * 1000 + '\\\\"]')


def test_checking_the_largest_document_takes_no_second() -> None:
    """Whatever it is made of: one such check holds up all calls of a server."""
    size = 1024 * 1024
    deep = nested(MAX_DEPTH - 1) + ","
    for text in (
        "[" + deep * (size // len(deep)) + "1]",
        "[" + '"[\\"{",' * (size // 8) + "1]",
        "[" + "{}," * (size // 3) + "1]",
    ):
        start = time.process_time()
        assert is_json(text)
        assert time.process_time() - start < 1.0
