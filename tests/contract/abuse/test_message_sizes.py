"""Requests as large and as deep as a message may be, and beyond."""

from google.protobuf.message import Message
from grpc import StatusCode
from tests.support.rpcs import LARGEST_MESSAGE, METHODS, Answer, Contract
from tests.support.snapshots import unchanged
from tests.support.tenants import Tenant, bearer
from tests.support.things import things_of
from tests.support.valid_requests import request
from tests.support.waiting import PATIENCE

from taskforge_core.database import Database

ONE_OF_EACH_KIND = ("UpdateOrganisation", "UpdateQueue", "BatchCreateJobs", "LeaseJobs")
"""An RPC of each service, and one whose answer is a stream: the limit is the server's."""

_UNKNOWN = 15
"""The number of a field that no request has."""


def padded(sent: Message, size: int) -> bytes:
    """The request with a field that nobody knows, so large that it has this many bytes."""
    whole = sent.SerializeToString()
    room = size - len(whole) - 1
    # The length takes four bytes where it is 2 MiB or more.
    return whole + bytes([_UNKNOWN << 3 | 2]) + _varint(room - 4) + bytes(room - 4)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


async def test_a_request_may_be_as_large_as_a_message_and_no_larger(
    contract: Contract, database: Database, own: Tenant
) -> None:
    things = await things_of(database, contract, own)
    async with unchanged(database.hot):
        for name in ONE_OF_EACH_KIND:
            for size in (LARGEST_MESSAGE + 1, LARGEST_MESSAGE * 5 // 2):
                answer = await send(contract, name, own, padded(request(name, things), size))
                # gRPC itself refuses it before it is read, and so without our details.
                assert (answer.code, answer.reason) == (StatusCode.RESOURCE_EXHAUSTED, ""), name
        for name in ("ListOrganisations", "ListQueues", "ListJobs"):
            sent = padded(request(name, things), LARGEST_MESSAGE)
            assert len(sent) == LARGEST_MESSAGE
            assert (await send(contract, name, own, sent)).code is StatusCode.OK


async def send(contract: Contract, name: str, tenant: Tenant, sent: Message | bytes) -> Answer:
    return await contract.send(name, bearer(tenant.key), sent, patience=PATIENCE)


async def test_nesting_that_nobody_can_follow_is_no_message(
    contract: Contract, database: Database, own: Tenant
) -> None:
    groups = bytes([_UNKNOWN << 3 | 3]) * 100_000 + bytes([_UNKNOWN << 3 | 4]) * 100_000
    async with unchanged(database.hot):
        for name in METHODS:
            answer = await send(contract, name, own, groups)
            assert answer.reason == "INVALID_REQUEST", name


async def test_metadata_beyond_all_measure_ends_one_call_and_nothing_else(
    contract: Contract, database: Database, own: Tenant
) -> None:
    sent = request("GetJob", await things_of(database, contract, own))
    answer = await contract.send("GetJob", (*bearer(own.key), ("x", "y" * 65_536)), sent)
    assert (answer.code, answer.reason) == (StatusCode.RESOURCE_EXHAUSTED, "")
    assert (await send(contract, "GetJob", own, sent)).code is StatusCode.OK
