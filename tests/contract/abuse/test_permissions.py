"""Each RPC of the contract, called by whom it is not for, and by whom it is for.

The RPCs are found in the descriptors: a new one without a permission, or without a request among
the valid ones, makes a test fail. `pytest -s -k table` prints the codes.
"""

from functools import partial
from pathlib import Path

import pytest
from grpc import StatusCode
from tests.support.rpcs import FILES, METHODS, Answer, Contract, message
from tests.support.snapshots import unchanged
from tests.support.tenants import Tenant, bearer, insert_key, key_id
from tests.support.things import nothing, things_of
from tests.support.valid_requests import NAMES_NOTHING, REQUESTS, request
from tests.support.waiting import PATIENCE, eventually

from taskforge_core.callers import ALL_PERMISSIONS, PERMISSION_NAMES
from taskforge_core.database import Database
from taskforge_core.interceptor import permission_of

PROTOS = Path(__file__).parents[3] / "protos/taskforge/v1"

NOT_THERE = {StatusCode.NOT_FOUND, StatusCode.ABORTED}

OF_OPERATORS = {"CreateOrganisation"}
"""The permission is not enough for them."""

OF_ORGANISATIONS = OF_OPERATORS | {"UpdateOrganisation", "CreateProject", "UpdateProject"}
"""They are not for credentials of one project."""


def test_every_service_of_the_contract_is_looked_at() -> None:
    files = {path.stem for path in PROTOS.glob("*_service.proto")}
    assert files == {file.DESCRIPTOR.name.rpartition("/")[2][: -len(".proto")] for file in FILES}


@pytest.mark.parametrize("name", METHODS)
def test_every_rpc_names_its_permission(name: str) -> None:
    assert permission_of(METHODS[name]) in ALL_PERMISSIONS


def test_every_rpc_has_a_valid_request() -> None:
    assert set(REQUESTS) == set(METHODS)


async def test_the_table_of_who_may_call_what(
    contract: Contract, database: Database, own: Tenant, foreign: Tenant
) -> None:
    theirs, unknown = await things_of(database, contract, foreign), nothing()
    rows: dict[str, list[Answer]] = {}
    for name, method in METHODS.items():
        needed = permission_of(method)
        mine = await things_of(database, contract, own)
        lacking, having = [
            bearer(await insert_key(database.hot, own.organisation_id, permissions))
            for permissions in (ALL_PERMISSIONS - {needed}, [needed])
        ]
        valid = request(name, mine)
        call = partial(contract.send, name, patience=PATIENCE)
        async with unchanged(database.hot):
            without = await call((), valid)
            denied = await call(lacking, valid)
            # Whoever may not call it learns nothing of the request.
            assert await call(lacking, b"\xff\xff") == denied, name
            strange = absent = Answer(StatusCode.OK, "names nobody's")
            if name not in NAMES_NOTHING:
                strange = await call(having, request(name, theirs))
                absent = await call(having, request(name, unknown))
        taken = await contract.send(name, having, valid)
        assert without.reason == "CREDENTIAL_MISSING", name
        assert denied.reason == "PERMISSION_MISSING", name
        assert denied.metadata == {"permission": PERMISSION_NAMES[needed]}, name
        # Another organisation's things look exactly like things that do not exist.
        assert strange.without(theirs.values) == absent.without(unknown.values), name
        assert name in NAMES_NOTHING or strange.code in NOT_THERE, name
        expected = StatusCode.PERMISSION_DENIED if name in OF_OPERATORS else StatusCode.OK
        assert taken.code is expected, (name, taken)
        rows[name] = [without, denied, strange, taken]
    print("\n| RPC | no key | another permission | others' things | the permission |")
    for name, answers in rows.items():
        cells = (f"{answer.code.name} {answer.reason}".strip() for answer in answers)
        print(f"| {name} | {' | '.join(cells)} |")


async def test_a_credential_of_a_disabled_project_does_nothing_at_all(
    contract: Contract, database: Database, own: Tenant
) -> None:
    mine = await things_of(database, contract, own)
    of_project = await insert_key(database.hot, own.organisation_id, project_id=own.project_id)
    bound, all_of_it = bearer(of_project), bearer(own.key)
    requests = {name: request(name, mine) for name in METHODS}
    # What it could see: things of its project, which are named by their ids.
    for name in ("GetApiKey", "RevokeApiKey"):
        requests[name] = message(name, api_key_id=str(key_id(of_project)))
    await database.hot.execute(
        "UPDATE taskforge.projects SET disabled_at = now() WHERE id = $1", own.project_id
    )

    async def both_servers_know() -> bool:
        answers = [
            await contract.send(name, bound, requests[name]) for name in ("GetQueue", "GetJob")
        ]
        return {answer.reason for answer in answers} == {"PROJECT_DISABLED"}

    await eventually(both_servers_know, "both servers know")
    async with unchanged(database.hot):
        for name in METHODS:
            answer = await contract.send(name, bound, requests[name], patience=PATIENCE)
            if answer.code is StatusCode.PERMISSION_DENIED:
                assert name in OF_ORGANISATIONS, (name, answer)
            else:
                assert answer.reason == "PROJECT_DISABLED", (name, answer)
                assert answer.metadata == {"project": str(own.project_id)}, name
    # Whoever manages the whole organisation looks at it, and enables it again.
    seen = await contract.send("GetProject", all_of_it, requests["GetProject"])
    assert seen.code is StatusCode.OK
    enable = message(
        "UpdateProject",
        project_id=mine.project,
        is_enabled=True,
        update_mask={"paths": ["is_enabled"]},
    )
    assert (await contract.send("UpdateProject", all_of_it, enable)).code is StatusCode.OK
    seen = await contract.send("GetProject", bound, requests["GetProject"])
    assert seen.code is StatusCode.OK
