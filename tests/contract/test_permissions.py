"""Each RPC of the contract, called by (no key, another permission, another organisation, valid).

The RPCs are found in the descriptors: a new one without a permission, or without a request here,
makes a test fail. `pytest -s -k table` prints the codes.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc import StatusCode
from tests.support.rpcs import (
    FILES,
    MAKE_SESSIONS,
    METHODS,
    NAMES_NOTHING,
    REQUESTS,
    Answer,
    Contract,
    guarded_contract,
    nothing,
    things_of,
)
from tests.support.snapshots import unchanged
from tests.support.tenants import insert_key, insert_tenant

from taskforge.v1 import permission_pb2
from taskforge_core.callers import ALL_PERMISSIONS
from taskforge_core.database import Database
from taskforge_core.settings import Settings

PROTOS = Path(__file__).parents[2] / "protos/taskforge/v1"


@pytest.fixture
async def contract(
    settings: Settings, database: Database, open_folder: Path
) -> AsyncIterator[Contract]:
    async with guarded_contract(settings, database, open_folder) as contract:
        yield contract


def needed(name: str) -> int:
    permission: int = METHODS[name].GetOptions().Extensions[permission_pb2.permission]
    return permission


def test_every_service_of_the_contract_is_looked_at() -> None:
    files = {path.stem for path in PROTOS.glob("*_service.proto")}
    assert files == {file.DESCRIPTOR.name.rpartition("/")[2][: -len(".proto")] for file in FILES}


@pytest.mark.parametrize("name", METHODS)
def test_every_rpc_names_its_permission(name: str) -> None:
    assert needed(name) in ALL_PERMISSIONS


def test_every_rpc_has_a_request_here() -> None:
    assert set(REQUESTS) == set(METHODS)


async def test_the_table_of_who_may_call_what(contract: Contract, database: Database) -> None:
    own = await insert_tenant(database.hot, "own")
    foreign = await insert_tenant(database.hot, "foreign")
    own_things, foreign_things = await things_of(database, own), await things_of(database, foreign)
    rows: dict[str, list[Answer]] = {}
    for name, fields in REQUESTS.items():
        others = ALL_PERMISSIONS - {needed(name)}
        lacking = await insert_key(database.hot, own.organisation_id, others)
        async with unchanged(database.hot):
            without = await contract.call(name, "", {})
            denied = await contract.call(name, lacking, fields(own_things))
        assert (without.code, without.reason) == (
            StatusCode.UNAUTHENTICATED,
            "CREDENTIAL_MISSING",
        ), name
        assert (denied.code, denied.reason) == (
            StatusCode.PERMISSION_DENIED,
            "PERMISSION_MISSING",
        ), name
        rows[name] = [without, denied]
        unknown = nothing()
        async with unchanged(database.hot):
            if name not in NAMES_NOTHING:
                strange = await contract.call(name, own.key, fields(foreign_things))
                absent = await contract.call(name, own.key, fields(unknown))
                # Another organisation's things look exactly like things that do not exist.
                assert strange.without(foreign_things) == absent.without(unknown), name
                assert strange.code in {StatusCode.NOT_FOUND, StatusCode.ABORTED}, name
                rows[name].append(strange)
            else:
                rows[name].append(Answer(StatusCode.OK, "names nobody's"))
    for name, fields in REQUESTS.items():
        valid = await contract.call(name, own.key, fields(own_things))
        assert valid.code not in {StatusCode.UNAUTHENTICATED, StatusCode.INTERNAL}, (name, valid)
        rows[name].append(valid)
        if name != "CreateOrganisation":
            assert valid.code is not StatusCode.PERMISSION_DENIED, (name, valid)
            assert valid.reason != "PROJECT_NOT_FOUND", (name, valid)
    print()
    for name, answers in rows.items():
        cells = (f"{answer.code.name} {answer.reason}".strip() for answer in answers)
        print(f"| {name} | {' | '.join(cells)} |")


async def test_foreign_things_inside_a_project_of_ones_own_do_not_exist(
    contract: Contract, database: Database
) -> None:
    """The project is the caller's, and all other ids are somebody else's."""
    own = await insert_tenant(database.hot, "own")
    foreign = await insert_tenant(database.hot, "foreign")
    foreign_things = await things_of(database, foreign)
    await contract.call("AcquireJobs", foreign.key, REQUESTS["AcquireJobs"](foreign_things))
    for name in sorted(REQUESTS, key=MAKE_SESSIONS.__contains__):
        fields, message = REQUESTS[name], METHODS[name].input_type
        if "project_id" not in message.fields_by_name or name in {"GetProject", "UpdateProject"}:
            continue
        unknown = nothing()
        mine = {"project_id": str(own.project_id)}
        if "organisation_id" in message.fields_by_name:
            mine["organisation_id"] = str(own.organisation_id)
        strange = await contract.call(name, own.key, fields(foreign_things) | mine)
        absent = await contract.call(name, own.key, fields(unknown) | mine)
        assert strange.without(foreign_things) == absent.without(unknown), name
