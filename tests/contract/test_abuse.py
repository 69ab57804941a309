"""Hostile requests: every field of every RPC, found in the descriptors, gets hostile values.

Each is answered by the contract, and what is refused changes nothing.
"""

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from structlog.testing import capture_logs
from tests.support.rpcs import (
    METHODS,
    REQUESTS,
    Answer,
    Contract,
    Things,
    guarded_contract,
    nothing,
    rows_of,
    things_of,
)
from tests.support.snapshots import snapshot
from tests.support.tenants import Tenant, bearer, insert_tenant

from taskforge_core.database import Database
from taskforge_core.settings import Settings

DEEPEST = 3
"""Messages inside messages."""

ANY_CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.PERMISSION_DENIED,
}
"""What a valid credential may be answered with, whatever it sends: never INTERNAL or UNKNOWN."""

TELLTALES = ("Traceback", "asyncpg", "sqlalchemy", "SELECT ", "INSERT ", "psycopg", 'File "')

TEXTS = (
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
INTS = (-1, 0, 10, 1001, 2**31 - 1, -(2**31))
LONGS = (*INTS, 2**63 - 1, -(2**63))
UNSIGNED = (0, 1, 2**32 - 1)
DOUBLES = (float("nan"), float("inf"), float("-inf"), -1.0, 1e308)
ENUMS = (-1, 99, 2**31 - 1)
TIMES = {
    "google.protobuf.Duration": (
        (-1, 0),
        (0, -1),
        (1, -1),
        (315_576_000_000, 0),
        (315_576_000_001, 0),
        (0, 1_000_000_000),
    ),
    "google.protobuf.Timestamp": (
        (-62_135_596_800, 0),
        (-62_135_596_801, 0),
        (253_402_300_799, 999_999_999),
        (253_402_300_800, 0),
        (0, -1),
        (2**63 - 1, 0),
    ),
}

VALUES: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.CPPTYPE_STRING: TEXTS,
    FieldDescriptor.CPPTYPE_INT32: INTS,
    FieldDescriptor.CPPTYPE_INT64: LONGS,
    FieldDescriptor.CPPTYPE_UINT32: UNSIGNED,
    FieldDescriptor.CPPTYPE_UINT64: UNSIGNED,
    FieldDescriptor.CPPTYPE_DOUBLE: DOUBLES,
    FieldDescriptor.CPPTYPE_FLOAT: DOUBLES,
    FieldDescriptor.CPPTYPE_BOOL: (True, False),
    FieldDescriptor.CPPTYPE_ENUM: ENUMS,
}

Path_ = tuple[FieldDescriptor, ...]


def paths(descriptor: Descriptor, above: Path_ = ()) -> Iterator[Path_]:
    """Every field below a message, with those that lead to it."""
    for field in descriptor.fields:
        yield (*above, field)
        inner = field.message_type
        is_plain = inner is not None and inner.full_name not in TIMES and not _is_map(field)
        if inner is not None and is_plain and len(above) < DEEPEST:
            yield from paths(inner, (*above, field))


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def hostile(fields: dict[str, Any], descriptor: Descriptor, path: Path_) -> Iterator[Message]:
    """The request with each hostile value of the last field of the path."""
    make = GetMessageClass(descriptor)
    last = path[-1]

    def fresh() -> tuple[Message, Any]:
        request = make(**fields)
        bearer_of_field: Any = request
        for field in path[:-1]:
            value = getattr(bearer_of_field, field.name)
            if field.is_repeated:
                value = value[0] if value else value.add()
            else:
                value.SetInParent()
            bearer_of_field = value
        return request, bearer_of_field

    for change in _changes(last):
        request, parent = fresh()
        change(parent)
        yield request


def _changes(field: FieldDescriptor) -> Iterator[Any]:
    name = field.name
    if _is_map(field):
        for key, value in (("", ""), ("k" * 1000, "v"), ("\x00", "v"), ("k", "v" * 10_000)):
            yield lambda parent, k=key, v=value: getattr(parent, name).update({k: v})
        yield lambda parent: getattr(parent, name).update({f"k{n}": "v" for n in range(1001)})
    elif field.message_type is not None and field.message_type.full_name in TIMES:
        for seconds, nanos in TIMES[field.message_type.full_name]:
            yield lambda parent, s=seconds, n=nanos: _set_time(getattr(parent, name), s, n)
    elif field.message_type is not None:
        if field.is_repeated:
            yield lambda parent: parent.ClearField(name)
            yield lambda parent: [getattr(parent, name).add() for _ in range(1001)]
        else:
            yield lambda parent: getattr(parent, name).SetInParent()
            yield lambda parent: parent.ClearField(name)
    elif field.is_repeated:
        for value in VALUES[field.cpp_type]:
            yield lambda parent, v=value: getattr(parent, name).append(v)
        some = VALUES[field.cpp_type][-2]
        yield lambda parent: getattr(parent, name).extend([some] * 1001)
    else:
        for value in VALUES[field.cpp_type]:
            yield lambda parent, v=value: setattr(parent, name, v)


def _set_time(time: Any, seconds: int, nanos: int) -> None:
    time.seconds, time.nanos = seconds, nanos


@pytest.fixture
async def contract(
    settings: Settings, database: Database, open_folder: Path
) -> AsyncIterator[Contract]:
    async with guarded_contract(settings, database, open_folder) as contract:
        yield contract


class Watch:
    """Looks at each answer, and at the database after each refusal."""

    def __init__(self, contract: Contract, database: Database, tenant: Tenant) -> None:
        self._contract = contract
        self._database = database
        self._tenant = tenant
        self._before: Any = None
        self.refused = 0

    async def send(self, name: str, request: Message | bytes) -> Answer:
        if self._before is None:
            self._before = await snapshot(self._database.hot)
        answer = await self._contract.send(name, bearer(self._tenant.key), request)
        told = f"{name} {str(request)[:300]!r}: {answer}"
        assert answer.code in ANY_CODES, told
        assert not any(word in answer.message for word in TELLTALES), told
        if answer.code is grpc.StatusCode.OK:
            self._before = None
        else:
            self.refused += 1
            assert await snapshot(self._database.hot) == self._before, told
        return answer


@pytest.mark.parametrize("name", METHODS)
async def test_hostile_values_in_every_field_are_answered_by_the_contract(
    contract: Contract, database: Database, name: str
) -> None:
    own = await insert_tenant(database.hot, "own")
    foreign = await insert_tenant(database.hot, "foreign")
    foreign_things = await things_of(database, foreign)
    things = await things_of(database, own)
    # What is valid is carried out: it is about things that may go.
    watch = Watch(contract, database, own)
    method = METHODS[name].input_type
    theirs = await rows_of(database, foreign)
    with capture_logs() as lines:
        for path in paths(method):
            for request in hostile(_fields(name, things), method, path):
                await watch.send(name, request)
        for broken in _broken(name, things, foreign_things):
            await watch.send(name, broken)
    assert [line for line in lines if line.get("log_level") in {"error", "critical"}] == []
    assert await rows_of(database, foreign) == theirs
    assert watch.refused > 0 or not method.fields


def _fields(name: str, things: Things) -> dict[str, Any]:
    return REQUESTS[name](things)


def _broken(name: str, things: Things, foreign: Things) -> Iterator[Message | bytes]:
    """Requests that are no messages, or that name others' things."""
    make = GetMessageClass(METHODS[name].input_type)
    whole = make(**_fields(name, things)).SerializeToString()
    dice = random.Random(name)
    yield whole[:-1]
    yield b"\xff" * 40
    yield whole.replace(things.project.encode(), b"\xff" * 36)
    for _ in range(30):
        noise = bytearray(whole or b"\x00" * 8)
        for _ in range(dice.randint(1, 4)):
            noise[dice.randrange(len(noise))] = dice.randrange(256)
        yield bytes(noise)
    for _ in range(10):
        yield dice.randbytes(dice.randint(1, 200))
    yield make(**_fields(name, foreign))
    yield make(**_fields(name, nothing()))


async def test_metadata_beyond_all_measure_ends_one_call_and_nothing_else(
    contract: Contract, database: Database
) -> None:
    own = await insert_tenant(database.hot, "own")
    things = await things_of(database, own)
    request = GetMessageClass(METHODS["GetJob"].input_type)(**_fields("GetJob", things))
    # gRPC itself refuses this, without our details.
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await contract.raw("GetJob", (*bearer(own.key), ("x", "y" * 65_536)), request)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    answer = await contract.send("GetJob", bearer(own.key), request)
    assert answer.code is grpc.StatusCode.OK
