"""Somebody else's id or name, in any field of any RPC, is answered as one that does not exist."""

from collections.abc import Mapping
from uuid import uuid4

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from tests.support.abuse.foreign_names import NAME_NOTHING, PAIRS, Pair, naming, naming_slots
from tests.support.abuse.slots import slots
from tests.support.abuse.statements_of_calls import statements_by_request
from tests.support.abuse.watching import misfit
from tests.support.rpcs import METHODS, SERVICES, Answer, Contract
from tests.support.snapshots import rows_of
from tests.support.tenants import Tenant, bearer
from tests.support.things import Things, things_of
from tests.support.valid_requests import request

from taskforge_core.database import Database

REPEATS = 3
PATIENT = 1.0
"""Seconds in which a refusal comes; whatever is still open then was taken."""


@pytest.mark.parametrize("name", METHODS)
def test_every_field_that_may_name_a_thing_is_looked_at(name: str) -> None:
    found = {slot.field.name for slot in slots(METHODS[name].input_type) if slot.names_a_thing}
    assert found <= set(PAIRS) | NAME_NOTHING


class Comparison:
    """Asks about somebody else's things and about things that do not exist."""

    def __init__(
        self, contract: Contract, own: Tenant, statements: Mapping[str, list[str]]
    ) -> None:
        self._contract = contract
        self._key = own.key
        self._statements = statements
        self.refused = 0

    async def differences(
        self, name: str, pair: Pair, theirs: Things, strange: Message, absent: Message
    ) -> list[object]:
        """All that could tell the one from the other."""
        found: list[object] = []
        answer, ran = await self._ask(name, strange)
        reference, others = await self._ask(name, absent)
        if answer.without([pair.foreign]) != reference.without([pair.absent]):
            found.append((answer, reference))
        unnamed = [value for value in theirs.values if value not in str(strange)]
        found += [value for value in unnamed if value in answer.told]
        if misfit(name, strange, answer):
            found.append(misfit(name, strange, answer))
        if answer.code is grpc.StatusCode.OK:
            return found
        self.refused += 1
        # What is read once in a while, and new connections, come in between now and then.
        for _ in range(REPEATS):
            if ran == others:
                return found
            _, ran = await self._ask(name, strange)
            _, others = await self._ask(name, absent)
        return [*found, (ran, others)]

    async def _ask(self, name: str, sent: Message) -> tuple[Answer, list[str]]:
        """The answer, and the statements that it took."""
        call = uuid4().hex
        metadata = (*bearer(self._key), ("x-request-id", call))
        answer = await self._contract.send(name, metadata, sent, patience=PATIENT)
        return answer, self._statements[call]


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_a_foreign_name_is_answered_as_one_that_does_not_exist(
    contract: Contract,
    database: Database,
    own: Tenant,
    foreign: Tenant,
    service: ServiceDescriptor,
) -> None:
    wrong: list[object] = []
    with statements_by_request() as statements:
        comparison = Comparison(contract, own, statements)
        for name in (method.name for method in service.methods):
            theirs = await things_of(database, contract, foreign)
            before = await rows_of(database.hot, foreign.organisation_id)
            for slot in naming_slots(METHODS[name].input_type):
                mine = await things_of(database, contract, own)
                valid = request(name, mine)
                for pair in PAIRS[slot.field.name](mine, theirs):
                    strange, absent = (
                        naming(slot, valid, value) for value in (pair.foreign, pair.absent)
                    )
                    found = await comparison.differences(name, pair, theirs, strange, absent)
                    wrong += [(name, slot.name, str(strange), each) for each in found]
            if await rows_of(database.hot, foreign.organisation_id) != before:
                wrong.append((name, "changed what is not the caller's"))
    assert not wrong, "\n".join(map(str, wrong))
    assert comparison.refused
    assert any(statements.values())
