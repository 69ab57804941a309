"""How many projects an organisation may have, over a real server."""

import asyncio
from typing import Any

import pytest
from grpc import StatusCode
from tests.support.administration import Administration, update_organisation, update_project
from tests.support.refusals import expect_error
from tests.support.snapshots import unchanged
from tests.support.tenants import Tenant, insert_key
from tests.support.waiting import until_blocked

from taskforge.v1 import admin_pb2
from taskforge.v1 import admin_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ids import uuid7


async def allow(
    served: Administration, operator: Tenant, tenant: Tenant, **limit: int
) -> admin_pb2.Organisation:
    """Set the tenant's quota; lift it where no limit is given."""
    request = update_organisation(
        "max_projects", organisation_id=str(tenant.organisation_id), **limit
    )
    return (await served.admin(operator.key).UpdateOrganisation(request)).organisation


async def make(served: Administration, key: str, name: str, **fields: Any) -> admin_pb2.Project:
    request = pb.CreateProjectRequest(name=name, **fields)
    return (await served.admin(key).CreateProject(request)).project


async def count(served: Administration, key: str) -> int:
    answer = await served.admin(key).ListProjects(pb.ListProjectsRequest(page_size=1000))
    return len(answer.projects)


async def test_a_project_too_many_is_refused_with_the_limit(
    served: Administration, database: Database, operator: Tenant, acme: Tenant, rival: Tenant
) -> None:
    assert (await allow(served, operator, acme, max_projects=3)).max_projects == 3
    own = pb.GetOrganisationRequest()
    assert (await served.admin(acme.key).GetOrganisation(own)).organisation.max_projects == 3
    await make(served, acme.key, "third")
    of_acme = str(acme.organisation_id)
    async with unchanged(database.hot):
        for key in (acme.key, operator.key):
            refusal = await expect_error(
                make(served, key, "fourth", organisation_id=of_acme),
                StatusCode.RESOURCE_EXHAUSTED,
                "TOO_MANY_PROJECTS",
            )
            assert refusal.metadata == {"limit": "3"}
            assert refusal.retry_info is None
    await make(served, rival.key, "third")


async def test_unless_an_operator_sets_one_there_is_no_limit(
    served: Administration, operator: Tenant, acme: Tenant
) -> None:
    request = pb.CreateOrganisationRequest(name="new")
    made = (await served.admin(operator.key).CreateOrganisation(request)).organisation
    assert not made.HasField("max_projects")
    await allow(served, operator, acme, max_projects=2)
    assert not (await allow(served, operator, acme)).HasField("max_projects")
    await make(served, acme.key, "third")


async def test_a_tenant_does_not_set_its_quota(
    served: Administration, database: Database, operator: Tenant, acme: Tenant
) -> None:
    bound = await insert_key(database.hot, operator.organisation_id, project_id=operator.project_id)
    await allow(served, operator, acme, max_projects=2)
    async with unchanged(database.hot):
        for key, permission in ((acme.key, "operator"), (bound, "admin")):
            for limit in ({}, {"max_projects": 2}, {"max_projects": 100}):
                request = update_organisation("name", "max_projects", name="new", **limit)
                refusal = await expect_error(
                    served.admin(key).UpdateOrganisation(request),
                    StatusCode.PERMISSION_DENIED,
                    "PERMISSION_MISSING",
                )
                assert refusal.metadata == {"permission": permission}


async def test_a_lower_quota_takes_no_project_away_and_a_disabled_one_makes_no_room(
    served: Administration, operator: Tenant, acme: Tenant
) -> None:
    await allow(served, operator, acme, max_projects=1)
    await served.admin(acme.key).UpdateProject(update_project(acme.other_project_id, "is_enabled"))
    await expect_error(
        make(served, acme.key, "third"), StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_PROJECTS"
    )
    assert await count(served, acme.key) == 2


async def test_projects_that_are_made_at_once_are_no_more_than_may_be(
    served: Administration, operator: Tenant, acme: Tenant
) -> None:
    await allow(served, operator, acme, max_projects=7)
    outcomes = await asyncio.gather(
        *(make(served, acme.key, f"p{i}") for i in range(30)), return_exceptions=True
    )
    assert len([each for each in outcomes if not isinstance(each, BaseException)]) == 5
    assert await count(served, acme.key) == 7


async def test_a_project_that_is_being_made_counts(
    served: Administration, database: Database, operator: Tenant, acme: Tenant
) -> None:
    await allow(served, operator, acme, max_projects=3)
    async with database.hot.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        # As far as another creation has come: it has its room, and is not committed.
        await other.execute(
            "SELECT FROM taskforge.organisations WHERE id = $1 FOR NO KEY UPDATE",
            acme.organisation_id,
        )
        await other.execute(
            "INSERT INTO taskforge.projects (id, organisation_id, name) VALUES ($1, $2, 'third')",
            uuid7(),
            acme.organisation_id,
        )
        late = asyncio.create_task(
            expect_error(
                make(served, acme.key, "fourth"),
                StatusCode.RESOURCE_EXHAUSTED,
                "TOO_MANY_PROJECTS",
            )
        )
        await until_blocked(database.hot, other.get_server_pid())
        await transaction.commit()
        await late
    assert await count(served, acme.key) == 3


@pytest.mark.parametrize("limit", [0, -1, 100_001])
async def test_a_quota_beyond_its_limits_is_refused(
    served: Administration, database: Database, operator: Tenant, acme: Tenant, limit: int
) -> None:
    async with unchanged(database.hot):
        refusal = await expect_error(
            allow(served, operator, acme, max_projects=limit),
            StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
        )
    assert list(refusal.field_violations) == ["max_projects"]
