"""Making, showing and changing projects and their quotas, over a real server."""

from collections.abc import Awaitable
from typing import Any
from uuid import UUID, uuid4

import pytest
from grpc import StatusCode
from tests.support.administration import Administration, update_project
from tests.support.refusals import expect_error
from tests.support.snapshots import unchanged
from tests.support.tenants import QUEUE_READ, Tenant
from tests.support.waiting import eventually

from taskforge.v1 import admin_pb2, queue_service_pb2
from taskforge.v1 import admin_service_pb2 as pb
from taskforge_core.database import Database

QUOTAS = {
    "max_jobs_per_second": 1_000_000,
    "max_unfinished_jobs": 1_000_000_000,
    "max_queues": 100_000,
    "max_lease_streams": 1,
    "max_request_bytes": 1024,
}


async def project(served: Administration, key: str, project_id: object) -> admin_pb2.Project:
    request = pb.GetProjectRequest(project_id=str(project_id))
    return (await served.admin(key).GetProject(request)).project


async def make(served: Administration, key: str, name: str, **fields: Any) -> admin_pb2.Project:
    request = pb.CreateProjectRequest(name=name, **fields)
    return (await served.admin(key).CreateProject(request)).project


async def set_quotas(
    served: Administration, key: str, project_id: object, *paths: str, **quotas: int
) -> admin_pb2.Project:
    request = update_project(project_id, *paths, quotas=admin_pb2.ProjectQuotas(**quotas))
    return (await served.admin(key).UpdateProject(request)).project


# -- Create and get ------------------------------------------------------------------------------


async def test_a_tenant_makes_a_project_and_uses_it(served: Administration, acme: Tenant) -> None:
    made = await make(served, acme.key, "reports")
    assert made.name == "reports"
    assert UUID(made.id).version == 7
    assert made.organisation_id == str(acme.organisation_id)
    assert made.is_enabled
    assert not made.HasField("disabled_at")
    assert made.quotas == admin_pb2.ProjectQuotas()
    assert await project(served, acme.key, made.id) == made
    request = queue_service_pb2.CreateQueueRequest(project_id=made.id, name="emails")
    queue = (await served.queues(acme.key).CreateQueue(request)).queue
    assert queue.project_id == made.id


async def test_an_operator_makes_a_tenants_project_with_quotas(
    served: Administration, operator: Tenant, acme: Tenant
) -> None:
    made = await make(
        served,
        operator.key,
        "reports",
        organisation_id=str(acme.organisation_id),
        quotas=admin_pb2.ProjectQuotas(**QUOTAS),
    )
    assert made.organisation_id == str(acme.organisation_id)
    assert made.quotas == admin_pb2.ProjectQuotas(**QUOTAS)
    assert await project(served, acme.key, made.id) == made


async def test_a_project_that_a_tenant_makes_has_its_strictest_quotas(
    served: Administration, operator: Tenant, acme: Tenant, rival: Tenant
) -> None:
    quotas = ("quotas.max_queues", "quotas.max_jobs_per_second")
    first, second = acme.project_id, acme.other_project_id
    await set_quotas(served, operator.key, first, *quotas, max_queues=7, max_jobs_per_second=9)
    await set_quotas(served, operator.key, second, *quotas, max_queues=8)
    await set_quotas(served, operator.key, rival.project_id, *quotas, max_queues=1)
    made = await make(served, acme.key, "reports")
    assert made.quotas == admin_pb2.ProjectQuotas(max_queues=7, max_jobs_per_second=9)


async def test_a_tenant_sets_no_quotas(
    served: Administration, database: Database, acme: Tenant
) -> None:
    admin = served.admin(acme.key)
    quotas = admin_pb2.ProjectQuotas(max_queues=5)
    async with unchanged(database.hot):
        for call in (
            admin.CreateProject(pb.CreateProjectRequest(name="reports", quotas=quotas)),
            admin.UpdateProject(update_project(acme.project_id, "quotas", quotas=quotas)),
            admin.UpdateProject(
                update_project(acme.project_id, "name", "quotas.max_queues", name="x")
            ),
        ):
            refusal = await expect_error(call, StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
            assert refusal.metadata == {"permission": "operator"}


async def test_names_are_unique_within_an_organisation(
    served: Administration, database: Database, acme: Tenant, rival: Tenant
) -> None:
    await make(served, rival.key, "reports")
    await make(served, acme.key, "reports")
    async with unchanged(database.hot):
        for call in (
            make(served, acme.key, "reports"),
            served.admin(acme.key).UpdateProject(
                update_project(acme.project_id, "name", name="reports")
            ),
        ):
            refusal = await expect_error(call, StatusCode.ALREADY_EXISTS, "PROJECT_NAME_TAKEN")
            assert refusal.metadata == {"project": "reports"}


async def test_another_organisations_project_is_answered_as_one_that_does_not_exist(
    served: Administration, database: Database, acme: Tenant, rival: Tenant, bound_key: str
) -> None:
    sought = [(acme.key, rival.project_id), (acme.key, uuid4()), (bound_key, rival.project_id)]
    async with unchanged(database.hot):
        for key, project_id in [*sought, (bound_key, acme.other_project_id)]:
            admin = served.admin(key)
            named: dict[str, Any] = {"project_id": str(project_id)}
            calls: list[Awaitable[Any]] = [
                admin.GetProject(pb.GetProjectRequest(**named)),
                admin.CreateApiKey(
                    pb.CreateApiKeyRequest(name="k", permissions=[QUEUE_READ], **named)
                ),
                admin.ListApiKeys(pb.ListApiKeysRequest(**named)),
                admin.ListAuditEntries(pb.ListAuditEntriesRequest(**named)),
            ]
            if key != bound_key:
                calls.append(admin.UpdateProject(update_project(project_id, "name", name="mine")))
            for call in calls:
                refusal = await expect_error(call, StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")
                assert refusal.metadata == {"project": str(project_id)}
                assert refusal.message == f"there is no project {project_id}"


@pytest.mark.parametrize("project_id", ["", "default", "0"])
async def test_a_project_is_named_by_its_id(
    served: Administration, acme: Tenant, project_id: str
) -> None:
    admin = served.admin(acme.key)
    for call in (
        admin.GetProject(pb.GetProjectRequest(project_id=project_id)),
        admin.UpdateProject(update_project(project_id, "is_enabled")),
    ):
        refusal = await expect_error(call, StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert list(refusal.field_violations) == ["project_id"]


@pytest.mark.parametrize(
    ("quota", "limit"),
    [
        ("max_jobs_per_second", 0),
        ("max_jobs_per_second", 1_000_001),
        ("max_unfinished_jobs", 0),
        ("max_unfinished_jobs", 1_000_000_001),
        ("max_queues", -1),
        ("max_queues", 100_001),
        ("max_lease_streams", 0),
        ("max_lease_streams", 100_001),
        ("max_request_bytes", 1023),
        ("max_request_bytes", 67_108_865),
    ],
)
async def test_a_quota_beyond_its_limits_is_named(
    served: Administration, operator: Tenant, quota: str, limit: int
) -> None:
    quotas = admin_pb2.ProjectQuotas(**{quota: limit})
    admin = served.admin(operator.key)
    for call in (
        admin.CreateProject(pb.CreateProjectRequest(name="p", quotas=quotas)),
        admin.UpdateProject(update_project(operator.project_id, "quotas", quotas=quotas)),
    ):
        refusal = await expect_error(call, StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert list(refusal.field_violations) == [f"quotas.{quota}"]


# -- List ----------------------------------------------------------------------------------------


async def test_a_list_has_the_organisations_projects_by_name(
    served: Administration, operator: Tenant, acme: Tenant, rival: Tenant, bound_key: str
) -> None:
    await make(served, acme.key, "a")
    admin = served.admin(acme.key)
    first = await admin.ListProjects(pb.ListProjectsRequest(page_size=2))
    second = await admin.ListProjects(
        pb.ListProjectsRequest(page_size=2, page_token=first.next_page_token)
    )
    names = [[each.name for each in page.projects] for page in (first, second)]
    assert names == [["a", "default"], ["other"]]
    assert not second.next_page_token
    of_rival = await served.admin(operator.key).ListProjects(
        pb.ListProjectsRequest(organisation_id=str(rival.organisation_id))
    )
    ids = {str(rival.project_id), str(rival.other_project_id)}
    assert {each.id for each in of_rival.projects} == ids
    visible = await served.admin(bound_key).ListProjects(pb.ListProjectsRequest())
    assert [each.id for each in visible.projects] == [str(acme.project_id)]


# -- Update --------------------------------------------------------------------------------------


async def test_a_tenant_renames_and_disables_its_project(
    served: Administration, acme: Tenant
) -> None:
    admin = served.admin(acme.key)
    request = update_project(acme.project_id, "name", "is_enabled", name="main")
    changed = (await admin.UpdateProject(request)).project
    assert (changed.name, changed.is_enabled) == ("main", False)
    assert changed.disabled_at == changed.updated_at
    assert await project(served, acme.key, acme.project_id) == changed

    async def refused() -> bool:
        call = served.queues(acme.key).ListQueues(
            queue_service_pb2.ListQueuesRequest(project_id=str(acme.project_id))
        )
        return await call.code() is StatusCode.FAILED_PRECONDITION

    await eventually(refused, "the project is refused")
    refusal = await expect_error(
        served.queues(acme.key).CreateQueue(
            queue_service_pb2.CreateQueueRequest(project_id=str(acme.project_id), name="q")
        ),
        StatusCode.FAILED_PRECONDITION,
        "PROJECT_DISABLED",
    )
    assert refusal.metadata == {"project": str(acme.project_id)}
    request = update_project(acme.project_id, "is_enabled", is_enabled=True)
    assert (await admin.UpdateProject(request)).project.is_enabled


async def test_the_mask_says_which_quotas_change(
    served: Administration, operator: Tenant, acme: Tenant
) -> None:
    project_id = acme.project_id
    changed = await set_quotas(served, operator.key, project_id, "quotas", **QUOTAS)
    assert changed.quotas == admin_pb2.ProjectQuotas(**QUOTAS)
    changed = await set_quotas(
        served, operator.key, project_id, "quotas.max_queues", "quotas.max_lease_streams",
        max_queues=3, max_request_bytes=2048,
    )  # fmt: skip
    kept = ("max_jobs_per_second", "max_unfinished_jobs", "max_request_bytes")
    expected = {name: QUOTAS[name] for name in kept}
    assert changed.quotas == admin_pb2.ProjectQuotas(max_queues=3, **expected)
    changed = await set_quotas(served, operator.key, project_id, "quotas", max_queues=4)
    assert changed.quotas == admin_pb2.ProjectQuotas(max_queues=4)


async def test_what_is_so_already_is_no_change(
    served: Administration, database: Database, operator: Tenant
) -> None:
    async with unchanged(database.hot):
        request = update_project(
            operator.project_id, "name", "is_enabled", "quotas", name="default", is_enabled=True
        )
        answer = await served.admin(operator.key).UpdateProject(request)
    assert (answer.project.name, answer.project.is_enabled) == ("default", True)


@pytest.mark.parametrize(
    "path", ["", "id", "organisation_id", "quotas.", "quotas.max", "disabled_at"]
)
async def test_a_mask_that_names_what_cannot_be_changed_is_refused(
    served: Administration, database: Database, operator: Tenant, path: str
) -> None:
    async with unchanged(database.hot):
        refusal = await expect_error(
            served.admin(operator.key).UpdateProject(update_project(operator.project_id, path)),
            StatusCode.INVALID_ARGUMENT,
            "INVALID_UPDATE_MASK",
        )
    assert refusal.metadata == {"path": path}
