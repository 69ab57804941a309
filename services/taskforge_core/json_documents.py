"""Checks of JSON documents that travel, and are kept, as the text that was sent."""

from typing import Any

import orjson

from taskforge_core.errors import FieldViolation, InvalidArgument

MAX_DEPTH = 100
"""How deep arrays and objects may be nested, so that no reader's stack is at risk."""


def check_json(text: str, field: str) -> None:
    """Accept a JSON document (RFC 8259), whatever its kind of value.

    Args:
        text: The document. NaN, Infinity, lone surrogates and raw control characters are none.
        field: The path of the request's field, for the error.

    Raises:
        InvalidArgument: It is no such document, or nested too deep (`INVALID_JSON`).
    """
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        # Only the position: the text may hold what does not belong into logs.
        raise _invalid(field, f"is not valid JSON at character {error.pos}") from None
    # Cheap and never too low; only a document with many brackets is walked.
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(document) > MAX_DEPTH:
        raise _invalid(field, f"is nested more than {MAX_DEPTH} levels deep")


def _depth(document: Any) -> int:
    """How deep a document is nested, found level by level, without recursion."""
    depth = 0
    level = [document]
    while level := [value for value in level if isinstance(value, dict | list)]:
        depth += 1
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    return depth


def _invalid(field: str, description: str) -> InvalidArgument:
    return InvalidArgument(
        "INVALID_JSON",
        f"{field} {description}",
        metadata={"field": field},
        field_violations=[FieldViolation(field, description)],
    )
