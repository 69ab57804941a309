"""The values at and just beyond the limit of each field.

The limits are read from the contract's rules (`buf.validate`), so that a new field, or a new rule,
is looked at without anyone remembering it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from tests.support.abuse.slots import Slot, is_map, is_time
from tests.support.abuse.times import BILLION, malformed


@dataclass(frozen=True)
class Limits:
    """Values that the rules of a field allow, and values that they do not."""

    within: Sequence[Any]
    beyond: Sequence[Any]


def limits(slot: Slot, filled: Message) -> Limits:
    """The values on either side of each limit of a field.

    Args:
        slot: The field.
        filled: A valid request, whose items fill lists up.
    """
    field, rules = slot.field, slot.rules
    if is_map(field):
        return _of_map(rules.map)
    if field.is_repeated:
        return _of_list(slot, rules.repeated, filled)
    return _of_value(field, rules, is_optional=slot.is_optional)


def _of_value(field: FieldDescriptor, rules: Any, *, is_optional: bool) -> Limits:
    kind = rules.WhichOneof("type")
    match kind:
        case "string":
            return _of_text(rules.string, is_optional=is_optional)
        case "int32" | "int64" | "double":
            return _of_number(kind, getattr(rules, kind), is_optional=is_optional)
        case "duration" | "timestamp":
            assert field.message_type is not None
            return _of_time(field.message_type, getattr(rules, kind))
        case "enum":
            forbidden = [value for value in rules.enum.not_in if value or not is_optional]
            unknown = [-1, 99, 2**31 - 1, -(2**31)] if rules.enum.defined_only else []
            return Limits([], [*forbidden, *unknown])
        case None:
            inner = field.message_type
            return Limits([], malformed(inner) if inner and is_time(inner) else [])
        case other:
            raise AssertionError(f"{field.full_name}: no values here for rules of {other}")


def _of_text(rules: Any, *, is_optional: bool) -> Limits:
    within: list[str] = []
    beyond: list[str] = []
    if rules.uuid:
        within.append(str(uuid4()))
        beyond += ["x" * 36, str(uuid4())[:-1], f"{uuid4()} ", f"{{{uuid4()}}}"]
    if rules.max_len:
        within.append("a" * rules.max_len)
        beyond.append("a" * (rules.max_len + 1))
        if rules.pattern == r"^[^\x00]*$":
            # Characters, not bytes.
            within.append("\U0001f4a5" * rules.max_len)
    if rules.max_bytes:
        within += ['"' + "x" * (rules.max_bytes - 2) + '"', f'"{"ü" * (rules.max_bytes // 2 - 1)}"']
        beyond.append('"' + "x" * (rules.max_bytes - 1) + '"')
    if rules.pattern:
        beyond += ["a\0b", "\0"]
    if (rules.min_len or rules.uuid) and not is_optional:
        beyond.append("")
    return Limits(within, beyond)


def _of_number(kind: str, rules: Any, *, is_optional: bool) -> Limits:
    within: list[float] = []
    beyond: list[float] = []
    lowest, highest = {"int32": (-(2**31), 2**31 - 1)}.get(kind, (-(2**63), 2**63 - 1))
    if rules.HasField("gte"):
        within.append(rules.gte)
        beyond.append(math.nextafter(rules.gte, -math.inf) if kind == "double" else rules.gte - 1)
    if rules.HasField("lte"):
        within.append(rules.lte)
        beyond.append(math.nextafter(rules.lte, math.inf) if kind == "double" else rules.lte + 1)
    if kind == "double":
        beyond += [math.nan, math.inf, -math.inf]
    else:
        beyond += [lowest]
        (beyond if rules.HasField("lte") else within).append(highest)
    return Limits(within, [value for value in beyond if value or not is_optional])


def _of_time(message: Descriptor, rules: Any) -> Limits:
    bounds = [(getattr(rules, bound), step) for bound, step in (("gte", -1), ("lte", 1))]
    return Limits(
        [bound for bound, _ in bounds],
        [*(_moved(bound, step) for bound, step in bounds), *malformed(message)],
    )


def _moved(time: Any, nanoseconds: int) -> Message:
    total: int = time.seconds * BILLION + time.nanos + nanoseconds
    is_duration = time.DESCRIPTOR.name == "Duration"
    seconds, nanos = divmod(total, BILLION)
    if is_duration and total < 0:
        seconds, nanos = 0, total
    moved: Message = type(time)(seconds=seconds, nanos=nanos)
    return moved


def _of_list(slot: Slot, rules: Any, filled: Message) -> Limits:
    items = list(slot.get(filled) or ())
    field = slot.field
    of_item = Limits([], [])
    if field.message_type is None:
        of_item = _of_value(field, rules.items, is_optional=False)
        items = items or list(of_item.within[:1]) or [1]
    if not items:
        return Limits([], [])
    within: list[Any] = [[value] for value in of_item.within]
    beyond: list[Any] = [[value] for value in of_item.beyond]
    if rules.min_items:
        beyond.append([])
    if rules.max_items:
        # Enough of them for any limit that is not about being different.
        many = items * (rules.max_items + 1)
        if not rules.unique:
            within.append(many[: rules.max_items])
        beyond.append(many[: rules.max_items + 1])
    return Limits(within, beyond)


def _of_map(rules: Any) -> Limits:
    keys = _of_text(rules.keys.string, is_optional=False)
    values = _of_text(rules.values.string, is_optional=False)
    most = rules.max_pairs
    within: list[Any] = [{key: "v"} for key in keys.within] + [{"k": v} for v in values.within]
    beyond: list[Any] = [{key: "v"} for key in keys.beyond] + [{"k": v} for v in values.beyond]
    within.append({f"k{number}": "v" for number in range(most)})
    beyond.append({f"k{number}": "v" for number in range(most + 1)})
    return Limits(within, beyond)
