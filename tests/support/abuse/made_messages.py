"""Requests that hypothesis makes of nothing but their descriptors, and what becomes of them.

Many are valid, more are almost so, and some are no messages.
"""

from datetime import UTC, datetime
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tests.support.abuse.limits import limits
from tests.support.abuse.slots import Slot, is_map, is_time
from tests.support.abuse.times import BILLION

_NOW = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())

_JSON = ("", "{}", "[1]", '"x"', "{", "NaN", '{"a":' * 101 + "1" + "}" * 101, "1e400", '"\\u0000"')
_TEXTS = st.one_of(
    st.sampled_from((*_JSON, "a", "emails", "a\0b", "default", "priority", "settings.timeout")),
    st.text(max_size=300),
    st.uuids().map(str),
)
_SMALL = st.integers(-1, 11)
_NUMBERS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: st.one_of(_SMALL, st.integers(-(2**31), 2**31 - 1)),
    FieldDescriptor.CPPTYPE_INT64: st.one_of(_SMALL, st.integers(-(2**63), 2**63 - 1)),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: st.one_of(st.floats(), st.floats(0, 100)),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_ENUM: st.one_of(st.integers(0, 6), st.integers(-(2**31), 2**31 - 1)),
}
_TIMES = {
    "google.protobuf.Duration": st.one_of(st.integers(-2, 100), st.integers(-(2**63), 2**63 - 1)),
    "google.protobuf.Timestamp": st.one_of(
        st.integers(_NOW, _NOW + 10**9), st.integers(-(2**63), 2**63 - 1)
    ),
}
_NANOS = st.one_of(st.just(0), st.integers(0, BILLION - 1), st.integers(-(2**31), 2**31 - 1))


def messages(descriptor: Descriptor, known: dict[str, list[str]]) -> st.SearchStrategy[Message]:
    """Any message of this type.

    Args:
        descriptor: The type.
        known: By the name of a field, values that name something, beside which others come too.
    """

    @st.composite
    def draw_message(draw: st.DrawFn) -> Message:
        made: Any = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            # Most that may be left out are, else hardly any request would be valid.
            chance = 9 if field.name in known or _must_be_set(field) else 2
            if draw(st.integers(0, 9)) < chance:
                _fill(draw, made, field, known)
        finished: Message = made
        return finished

    return draw_message()


def _fill(draw: st.DrawFn, made: Any, field: FieldDescriptor, known: dict[str, list[str]]) -> None:
    if is_map(field):
        values = draw(st.dictionaries(_TEXTS, _TEXTS, max_size=4))
        getattr(made, field.name).update(values)
        return
    value = _value(field, known)
    if field.is_repeated:
        getattr(made, field.name).extend(draw(st.lists(value, max_size=4)))
    elif field.message_type is not None:
        getattr(made, field.name).CopyFrom(draw(value))
    else:
        setattr(made, field.name, draw(value))


def _value(field: FieldDescriptor, known: dict[str, list[str]]) -> st.SearchStrategy[Any]:
    inner = field.message_type
    if inner is not None and is_time(inner):
        return st.builds(GetMessageClass(inner), seconds=_TIMES[inner.full_name], nanos=_NANOS)
    if inner is not None:
        return messages(inner, known)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        names = known.get(field.name)
        return _mostly(names, _TEXTS) if names else _TEXTS
    allowed = [] if field.is_repeated else _allowed(field)
    numbers = _NUMBERS[field.cpp_type]
    return _mostly(allowed, numbers) if allowed else numbers


def _mostly(values: list[Any], others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(*[st.sampled_from(values)] * 5, others)


def _allowed(field: FieldDescriptor) -> list[Any]:
    assert field.containing_type is not None
    return list(limits(Slot((field,)), GetMessageClass(field.containing_type)()).within)


def _must_be_set(field: FieldDescriptor) -> bool:
    """Whether no request without the field is valid."""
    rules = Slot((field,)).rules
    least = rules.string.min_len or rules.int32.gte > 0 or rules.int64.gte > 0
    return bool(least or rules.required or rules.repeated.min_items)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[Message]) -> bytes:
    """The bytes of a message, to most of which something has happened; sometimes any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=2000))
    raw = bytearray(draw(whole).SerializeToString())
    for _ in range(draw(st.sampled_from((0, 0, 0, 0, 1, 1, 2, 6)))):
        _damage(draw, raw)
    return bytes(raw)


def _damage(draw: st.DrawFn, raw: bytearray) -> None:
    place = draw(st.integers(0, len(raw)))
    match draw(st.integers(0, 4)):
        case 0 if place < len(raw):
            raw[place] = draw(st.integers(0, 255))
        case 1:
            raw[place:place] = draw(st.binary(max_size=20))
        case 2:
            del raw[place : place + draw(st.integers(1, 20))]
        case 3:
            del raw[place:]
        case _:
            # Fields that are there twice.
            raw += raw[:place]


def examples(strategy: st.SearchStrategy[bytes], count: int, number: int) -> list[bytes]:
    """So many values; the same ones for the same number."""
    found: list[bytes] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: bytes) -> None:
        found.append(value)

    collect()
    return found
