"""On either side of each limit that the contract states, for every field of every RPC.

Times that protobuf does not allow are beyond any field's limit.
"""

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from tests.support.abuse.limits import limits
from tests.support.abuse.slots import slots
from tests.support.abuse.watching import misfit
from tests.support.rpcs import METHODS, SERVICES, Answer, Contract
from tests.support.snapshots import snapshot
from tests.support.tenants import Tenant, bearer
from tests.support.things import things_of
from tests.support.valid_requests import request
from tests.support.waiting import PATIENCE

from taskforge_core.database import Database

OUR_OWN_RULES = {
    # "A time to come, by the database's clock": no rule of the contract can say so.
    ("CreateApiKey", "expires_at"),
}
"""Values within the limits that are refused for another reason, in the same way."""

per_service = pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)


def names(answer: Answer, field: str) -> bool:
    """Whether a request was refused because of this field, or of something in it."""
    paths = answer.violations
    return answer.reason == "INVALID_REQUEST" and any(
        path == field or path.startswith((f"{field}[", f"{field}.")) for path in paths
    )


@per_service
async def test_values_beyond_a_limit_are_refused_for_it_and_change_nothing(
    contract: Contract, database: Database, operator: Tenant, service: ServiceDescriptor
) -> None:
    things = await things_of(database, contract, operator)
    wrong: list[object] = []
    tried = 0
    before = await snapshot(database.hot)
    for name in (method.name for method in service.methods):
        valid = request(name, things)
        for slot in slots(METHODS[name].input_type):
            for value in limits(slot, valid).beyond:
                for place in slot.places():
                    sent = place.filled(valid, value)
                    answer = await contract.send(
                        name, bearer(operator.key), sent, patience=PATIENCE
                    )
                    tried += 1
                    if misfit(name, sent, answer) or not names(answer, place.name):
                        wrong.append((name, place.name, repr(value)[:80], answer))
        if await snapshot(database.hot) != before:
            wrong.append((name, "something changed"))
    assert not wrong, "\n".join(map(str, wrong))
    print(f"{service.name}: {tried} values beyond limits")
    assert tried


@per_service
async def test_values_at_a_limit_are_taken(
    contract: Contract, database: Database, operator: Tenant, service: ServiceDescriptor
) -> None:
    wrong: list[object] = []
    tried = 0
    for name in (method.name for method in service.methods):
        valid = request(name, await things_of(database, contract, operator))
        for slot in slots(METHODS[name].input_type):
            if (name, slot.name) in OUR_OWN_RULES:
                continue
            for value in limits(slot, valid).within:
                sent = slot.filled(valid, value)
                answer = await contract.send(name, bearer(operator.key), sent)
                tried += 1
                if misfit(name, sent, answer) or names(answer, slot.name):
                    wrong.append((name, slot.name, repr(value)[:80], answer))
    assert not wrong, "\n".join(map(str, wrong))
    print(f"{service.name}: {tried} values at limits")
    assert tried
