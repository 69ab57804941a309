"""Pages of lists: how many items, and the opaque token that says where the next page begins.

A list is ordered by a value and, where values are equal, by the id. A token holds both of the
page's last item, so that pages stay stable while items come and go: what was inserted before it
is not shown late, and nothing is shown twice. It is no secret, and what it may show is decided
by the request that carries it; its checksum binds it to one call with the same filters.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast
from uuid import UUID

import orjson
from google.protobuf.message import Message

from taskforge_core.errors import InvalidArgument

DEFAULT_PAGE_SIZE = 50
"""Items on a page when the request does not say."""

MAX_PAGE_SIZE = 1000
"""Most items on a page, whatever the request says."""

MAX_PAGE_BYTES = 2 * 1024 * 1024
"""What the items of a page have together at most, so that it fits into a message: servers send, and
clients take, 4 MiB unless they are told otherwise."""

_PAGE_FIELDS = ("page_size", "page_token")
_CHECKSUM_BYTES = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Value = TypeVar("Value", str, datetime)
"""What lists are ordered by: text, or a moment with a time zone, exact to the microsecond."""


def coerce_page_size(page_size: int) -> int:
    """The number of items to return at most: 50 for 0, never more than 1,000.

    A negative number never comes here: the contract's rule refuses it.
    """
    return min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def page_length(items: Sequence[Message], page_size: int) -> int:
    """How many of the first items make a page: one at least, and no more than fit into a message.

    Where it is less than there are items, another page follows.
    """
    size = 0
    for count, item in enumerate(items[:page_size]):
        size += item.ByteSize()
        if count and size > MAX_PAGE_BYTES:
            return count
    return min(len(items), page_size)


def filters_digest(request: Message) -> bytes:
    """What a page token is bound to: every field of the list request but those of the page."""
    filters = type(request)()
    filters.CopyFrom(request)
    for field in _PAGE_FIELDS:
        filters.ClearField(field)
    return hashlib.sha256(filters.SerializeToString(deterministic=True)).digest()


def encode_page_token(call: str, filters: bytes, value: str | datetime, item_id: UUID) -> str:
    """The token of the page behind an item.

    Args:
        call: The RPC's name, such as `ListQueues`.
        filters: `filters_digest` of its request.
        value: What the list is ordered by, of the page's last item.
        item_id: The last item's id.
    """
    plain = value if isinstance(value, str) else (value - _EPOCH) // _MICROSECOND
    key = orjson.dumps([plain, str(item_id)])
    token = _checksum(call, filters, key) + key
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode("ascii")


def decode_page_token(
    token: str, call: str, filters: bytes, kind: type[Value]
) -> tuple[Value, UUID] | None:
    """The last item of the page before, as its value and id; None for the first page.

    Args:
        token: `page_token` of the request; empty for the first page.
        call: The RPC's name, such as `ListQueues`.
        filters: `filters_digest` of its request.
        kind: What the list is ordered by: `str` or `datetime`.

    Raises:
        InvalidArgument: The token was not made by this call with these filters
            (`INVALID_PAGE_TOKEN`).
    """
    if not token:
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _invalid() from None
    checksum, key = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
    if checksum != _checksum(call, filters, key):
        raise _invalid()
    try:
        # The checksum is no signature, so what it covers is looked at all the same.
        plain, item_id = orjson.loads(key)
        return cast(Value, _parse(plain, kind)), UUID(item_id)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise _invalid() from None


def _parse(plain: Any, kind: type[str] | type[datetime]) -> str | datetime:
    if kind is datetime and isinstance(plain, int):
        return _EPOCH + plain * _MICROSECOND
    # Postgres cannot store NUL in text.
    if kind is str and isinstance(plain, str) and "\0" not in plain:
        return plain
    raise ValueError("not a key of this list")


def _checksum(call: str, filters: bytes, key: bytes) -> bytes:
    return hashlib.sha256(b"\0".join((call.encode(), filters, key))).digest()[:_CHECKSUM_BYTES]


def _invalid() -> InvalidArgument:
    return InvalidArgument(
        "INVALID_PAGE_TOKEN", "page_token was not made by this call with these filters"
    )
