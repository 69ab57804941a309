"""Checks of JSON documents that travel, and are kept, as the text that was sent."""

import re
from itertools import accumulate, count
from operator import sub

import orjson

from taskforge_core.errors import FieldViolation, InvalidArgument

MAX_DEPTH = 100
"""How deep arrays and objects may be nested, so that no reader's stack is at risk."""

_STRINGS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_BESIDE_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\2\2\0\0")
"""One level down, or up, plus one."""


def check_json(text: str, field: str) -> None:
    """Accept a JSON document (RFC 8259), whatever its kind of value.

    Args:
        text: The document. NaN, Infinity, numbers beyond a double, lone surrogates and raw control
            characters are none.
        field: The path of the request's field, for the error.

    Raises:
        InvalidArgument: It is no such document, or nested too deep (`INVALID_JSON`).
    """
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        # Only the position: the text may hold what does not belong into logs.
        raise _invalid(field, f"is not valid JSON at character {error.pos}") from None
    # Cheap and never too low; only a document with many brackets is looked at closely.
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise _invalid(field, f"is nested more than {MAX_DEPTH} levels deep")


def _depth(text: str) -> int:
    """How deep a valid document is nested.

    By its text: of equal keys the parsed document keeps the last one only, and what the others hold
    is stored and sent all the same.
    """
    steps = _STRINGS.sub("", text).encode().translate(_STEPS, _BESIDE_BRACKETS)
    # A step is one too high, as bytes cannot be negative, and as many times as there were steps.
    return max(map(sub, accumulate(steps), count(1)), default=0)


def _invalid(field: str, description: str) -> InvalidArgument:
    return InvalidArgument(
        "INVALID_JSON",
        f"{field} {description}",
        metadata={"field": field},
        field_violations=[FieldViolation(field, description)],
    )
