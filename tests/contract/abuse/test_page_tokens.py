"""Page tokens show their bearer nothing that is not the bearer's own."""

from typing import Any

import pytest
from google.protobuf.message import Message
from grpc import StatusCode
from tests.support.refusals import expect_error
from tests.support.rpcs import METHODS, Contract, message
from tests.support.snapshots import unchanged
from tests.support.tenants import Tenant, bearer
from tests.support.things import Things, things_of
from tests.support.valid_requests import request

from taskforge_core.database import Database

LISTS = [
    name for name, method in METHODS.items() if "page_token" in method.input_type.fields_by_name
]

ONE_EACH = {"ListOrganisations"}
"""Lists that have one item for whoever is no operator, and so no second page."""


async def listed(contract: Contract, name: str, tenant: Tenant, **fields: Any) -> Any:
    return await contract.raw(name, bearer(tenant.key), message(name, **fields))


async def filled(database: Database, contract: Contract, tenant: Tenant) -> Things:
    """Things of which each list has more than one."""
    things = await things_of(database, contract, tenant)
    for name in ("CreateProject", "CreateApiKey"):
        await contract.raw(name, bearer(tenant.key), request(name, things))
    return await things_of(database, contract, tenant)


@pytest.mark.parametrize("name", LISTS)
async def test_a_foreign_page_token_shows_nothing_foreign(
    contract: Contract, database: Database, own: Tenant, foreign: Tenant, name: str
) -> None:
    await filled(database, contract, own)
    theirs = await filled(database, contract, foreign)
    first = await listed(contract, name, foreign, page_size=1)
    assert bool(first.next_page_token) == (name not in ONE_EACH)
    async with unchanged(database.hot):
        shown = str(
            await listed(contract, name, own, page_size=1000, page_token=first.next_page_token)
        )
    for value in theirs.values:
        assert value not in shown


@pytest.mark.parametrize("name", LISTS)
async def test_a_page_token_is_good_for_its_own_list_alone(
    contract: Contract, database: Database, operator: Tenant, name: str
) -> None:
    await filled(database, contract, operator)
    own = (await listed(contract, name, operator, page_size=1)).next_page_token
    others = [
        (await listed(contract, other, operator, page_size=1)).next_page_token
        for other in LISTS
        if other != name
    ]
    wrong = [message(name, page_token=token) for token in filter(None, others)]
    if own:
        changed = ("A" if own[0] != "A" else "B") + own[1:]
        wrong += [message(name, page_token=token) for token in (own[:-4], own + "AAAA", changed)]
        if "project_id" in METHODS[name].input_type.fields_by_name:
            # Another filter makes it another list.
            project = str(operator.project_id)
            wrong.append(message(name, page_token=own, project_id=project))
    assert wrong
    async with unchanged(database.hot):
        for sent in wrong:
            await refused(contract, operator, name, sent)


async def refused(contract: Contract, tenant: Tenant, name: str, sent: Message) -> None:
    await expect_error(
        contract.raw(name, bearer(tenant.key), sent),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_PAGE_TOKEN",
    )
