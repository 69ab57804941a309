"""Whether the times of a request are times: the wire carries more values than protobuf allows.

Looked at in every request, so what is made once a message type leads to the fields alone that hold
times.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor

from taskforge_core.errors import FieldViolation

TimeCheck = Callable[[Any], Sequence[FieldViolation]]
"""What is wrong with the times in a message; paths begin below it."""

_MAX_DURATION_SECONDS = 315_576_000_000
"""10,000 years: the limit of `google.protobuf.Duration`."""

_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999: the limits of `google.protobuf.Timestamp`."""

_MAX_NANOS = 999_999_999

_NO_DURATION = FieldViolation(
    "", "is no duration: at most 10,000 years, and at most 999,999,999 nanos of the same sign"
)
_NO_TIMESTAMP = FieldViolation(
    "", "is no time: in the years 1 to 9999, with 0 to 999,999,999 nanos"
)


def time_check(descriptor: Descriptor) -> TimeCheck | None:
    """Looks at all times in a message of this type, which must not contain itself.

    None if the type holds none.
    """
    if descriptor.full_name in _CHECKS:
        return _CHECKS[descriptor.full_name]
    single: list[tuple[str, TimeCheck]] = []
    repeated: list[tuple[str, TimeCheck]] = []
    for field in descriptor.fields:
        inner = field.message_type
        if inner is None or inner.GetOptions().map_entry:
            continue
        if check := time_check(inner):
            (repeated if field.is_repeated else single).append((field.name, check))
    if not single and not repeated:
        return None

    def check_fields(message: Any) -> Sequence[FieldViolation]:
        found: list[FieldViolation] = []
        for name, check in single:
            if message.HasField(name):
                found += _below(name, check(getattr(message, name)))
        for name, check in repeated:
            for index, value in enumerate(getattr(message, name)):
                if violations := check(value):
                    found += _below(f"{name}[{index}]", violations)
        return found

    return check_fields


def _below(path: str, violations: Iterable[FieldViolation]) -> list[FieldViolation]:
    return [
        FieldViolation(f"{path}.{each.field}" if each.field else path, each.description)
        for each in violations
    ]


def _check_duration(value: Any) -> Sequence[FieldViolation]:
    seconds, nanos = value.seconds, value.nanos
    if (
        -_MAX_DURATION_SECONDS <= seconds <= _MAX_DURATION_SECONDS
        and -_MAX_NANOS <= nanos <= _MAX_NANOS
        and seconds * nanos >= 0
    ):
        return ()
    return (_NO_DURATION,)


def _check_timestamp(value: Any) -> Sequence[FieldViolation]:
    if _FIRST_SECOND <= value.seconds <= _LAST_SECOND and 0 <= value.nanos <= _MAX_NANOS:
        return ()
    return (_NO_TIMESTAMP,)


_CHECKS: dict[str, TimeCheck] = {
    "google.protobuf.Duration": _check_duration,
    "google.protobuf.Timestamp": _check_timestamp,
}
