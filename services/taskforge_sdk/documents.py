"""JSON documents: payloads, results, progress and details travel as text that holds JSON."""

import json
from typing import Any

from taskforge_sdk.errors import invalid

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class JsonText(str):
    """Text that is JSON already: it is sent as it stands, and the server checks it."""

    __slots__ = ()


EMPTY = JsonText("{}")
"""The payload of a job that needs none."""


def encode(value: object, field: str) -> str:
    """The value as JSON text; InvalidRequest (`INVALID_JSON`), naming the field, if it has none.

    NaN and the infinities are no JSON; neither are texts with half of a surrogate pair.
    """
    if isinstance(value, JsonText):
        return str(value)
    try:
        text = _encoder.encode(value)
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid(field, f"cannot be JSON: {error}", reason="INVALID_JSON") from error
    return text


def decode(text: str) -> Any:
    """The value of a JSON text; None for an empty text, which means that there is no document."""
    return json.loads(text) if text else None
