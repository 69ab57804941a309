"""What an attacker, or a confused program, would put into a field of each kind."""

from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tests.support.abuse.slots import Slot, is_map, is_time
from tests.support.abuse.times import extreme, malformed

MANY = 1001

_TEXTS = (
    "",
    " ",
    "x" * 200,
    "x" * 5000,
    "\x00",
    "a\x00b",
    "\u202e\u200b",
    "💥" * 40,
    "' OR 1=1; --",
    "../../etc/passwd",
    "%s%n{0}",
    "00000000-0000-0000-0000-000000000000",
    "{",
    '{"a": NaN}',
    '{"a": 1, "a": 2}',
    '"\\u0000"',
    '"\\ud800"',
    "1e400000",
    "[" * 101 + "]" * 101,
    "[" * 10_000 + "]" * 10_000,
    '"' + "x" * 1_100_000 + '"',
)
_INTS = (-1, 0, 10, 1001, 2**31 - 1, -(2**31))
_LONGS = (*_INTS, 2**63 - 1, -(2**63))
_UNSIGNED = (0, 1, 2**32 - 1)
_DOUBLES = (float("nan"), float("inf"), float("-inf"), -1.0, 1e308)

_VALUES: dict[int, Sequence[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: _TEXTS,
    FieldDescriptor.CPPTYPE_INT32: _INTS,
    FieldDescriptor.CPPTYPE_INT64: _LONGS,
    FieldDescriptor.CPPTYPE_UINT32: _UNSIGNED,
    FieldDescriptor.CPPTYPE_UINT64: _UNSIGNED,
    FieldDescriptor.CPPTYPE_DOUBLE: _DOUBLES,
    FieldDescriptor.CPPTYPE_FLOAT: _DOUBLES,
    FieldDescriptor.CPPTYPE_BOOL: (True, False),
    FieldDescriptor.CPPTYPE_ENUM: (-1, 99, 2**31 - 1),
}

_MAPS: Sequence[dict[str, str]] = (
    {"": ""},
    {"k" * 1000: "v"},
    {"\x00": "v"},
    {"k": "v" * 10_000},
    {f"k{number}": "v" for number in range(MANY)},
)

_MARK = "@@mark@@"
_NO_UTF8 = b"\xff\xfe" * (len(_MARK) // 2)


def hostile_requests(slot: Slot, request: Message) -> Iterator[Message]:
    """The request with each hostile value in the field, and without it."""
    for value in _values(slot):
        yield slot.filled(request, value)
    without = type(request)()
    without.CopyFrom(request)
    if len(slot.path) == 1:
        without.ClearField(slot.field.name)
        yield without


def _values(slot: Slot) -> Sequence[Any]:
    field, inner = slot.field, slot.field.message_type
    if is_map(slot.field):
        return _MAPS
    if inner is not None:
        made = GetMessageClass(inner)
        of_one = [*extreme(inner), *malformed(inner)] if is_time(inner) else [made()]
    else:
        of_one = list(_VALUES[field.cpp_type])
    if not field.is_repeated:
        return of_one
    return [[], *([value] for value in of_one), [of_one[0]] * MANY]


def not_utf8(slot: Slot, request: Message) -> bytes | None:
    """The request with text that is no UTF-8 in the field; None where it takes no text."""
    if is_map(slot.field):
        value: Any = {_MARK: _MARK}
    elif slot.field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        value = [_MARK] if slot.field.is_repeated else _MARK
    else:
        return None
    return slot.filled(request, value).SerializeToString().replace(_MARK.encode(), _NO_UTF8)
