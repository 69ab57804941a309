"""Hostile values in every field of every RPC are answered by the contract, and harm nobody."""

import pytest
from tests.support.abuse.hostile_values import hostile_requests, not_utf8
from tests.support.abuse.slots import slots
from tests.support.abuse.watching import Log, Watch
from tests.support.rpcs import METHODS, Contract
from tests.support.snapshots import rows_of
from tests.support.tenants import Tenant
from tests.support.things import things_of
from tests.support.valid_requests import request

from taskforge_core.database import Database


@pytest.mark.parametrize("name", METHODS)
async def test_hostile_values_in_every_field_are_answered_by_the_contract(
    contract: Contract, database: Database, own: Tenant, foreign: Tenant, log: Log, name: str
) -> None:
    await things_of(database, contract, foreign)
    valid = request(name, await things_of(database, contract, own))
    theirs = await rows_of(database.hot, foreign.organisation_id)
    watch = Watch([contract], database, own, log)
    for slot in slots(METHODS[name].input_type):
        for sent in hostile_requests(slot, valid):
            await watch.send(name, sent)
        broken = not_utf8(slot, valid)
        if broken is not None:
            answer = await watch.send(name, broken)
            assert answer.reason == "INVALID_REQUEST", slot.name
    assert await rows_of(database.hot, foreign.organisation_id) == theirs
    assert watch.seen.keys() - {"OK"} or not valid.DESCRIPTOR.fields
