"""Making, showing and changing organisations, over a real server."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc import StatusCode
from tests.support.administration import Administration, update_organisation
from tests.support.refusals import expect_error
from tests.support.snapshots import unchanged
from tests.support.tenants import QUEUE_READ, Tenant, insert_key, insert_tenant
from tests.support.waiting import eventually

from taskforge.v1 import admin_pb2, queue_service_pb2
from taskforge.v1 import admin_service_pb2 as pb
from taskforge_core.database import Database


async def organisation(
    served: Administration, key: str, organisation_id: object = ""
) -> admin_pb2.Organisation:
    request = pb.GetOrganisationRequest(organisation_id=str(organisation_id))
    return (await served.admin(key).GetOrganisation(request)).organisation


# -- Create and get ------------------------------------------------------------------------------


async def test_an_operator_makes_an_organisation(served: Administration, operator: Tenant) -> None:
    request = pb.CreateOrganisationRequest(name="a/b:c.d_e-F9")
    made = (await served.admin(operator.key).CreateOrganisation(request)).organisation
    assert made.name == "a/b:c.d_e-F9"
    assert UUID(made.id).version == 7
    assert made.is_enabled
    assert not made.is_operator
    assert not made.HasField("disabled_at")
    age = made.updated_at.ToDatetime() - made.created_at.ToDatetime()
    assert timedelta(0) <= age < timedelta(seconds=1)
    assert await organisation(served, operator.key, made.id) == made
    assert await organisation(served, operator.key, made.id.upper()) == made


async def test_nobody_else_makes_one(
    served: Administration, database: Database, acme: Tenant, operator: Tenant
) -> None:
    bound = await insert_key(database.hot, operator.organisation_id, project_id=operator.project_id)
    async with unchanged(database.hot):
        for key in (acme.key, bound):
            refusal = await expect_error(
                served.admin(key).CreateOrganisation(pb.CreateOrganisationRequest(name="new")),
                StatusCode.PERMISSION_DENIED,
                "PERMISSION_MISSING",
            )
            assert refusal.metadata == {"permission": "operator"}


async def test_a_second_organisation_of_a_name_is_refused(
    served: Administration, database: Database, operator: Tenant, acme: Tenant
) -> None:
    async with unchanged(database.hot):
        for call in (
            served.admin(operator.key).CreateOrganisation(
                pb.CreateOrganisationRequest(name="acme")
            ),
            served.admin(operator.key).UpdateOrganisation(update_organisation("name", name="acme")),
        ):
            refusal = await expect_error(call, StatusCode.ALREADY_EXISTS, "ORGANISATION_NAME_TAKEN")
            assert refusal.metadata == {"organisation": "acme"}


@pytest.mark.parametrize(
    "name", ["", "-acme", "two words", "x" * 101, "acme\n", "0" * 8 + "-0000-0000-0000-" + "0" * 12]
)
async def test_what_is_no_name_is_refused(
    served: Administration, database: Database, operator: Tenant, name: str
) -> None:
    admin = served.admin(operator.key)
    async with unchanged(database.hot):
        for call in (
            admin.CreateOrganisation(pb.CreateOrganisationRequest(name=name)),
            admin.UpdateOrganisation(update_organisation("name", name=name)),
            admin.CreateProject(pb.CreateProjectRequest(name=name)),
        ):
            refusal = await expect_error(call, StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
            assert list(refusal.field_violations) == ["name"]


async def test_an_organisation_that_is_not_named_is_the_callers(
    served: Administration, acme: Tenant, bound_key: str
) -> None:
    for key in (acme.key, bound_key):
        own = await organisation(served, key)
        assert own.name == "acme"
        assert own == await organisation(served, key, acme.organisation_id)


async def test_another_organisation_is_answered_as_one_that_does_not_exist(
    served: Administration, database: Database, acme: Tenant, rival: Tenant, operator: Tenant
) -> None:
    admin = served.admin(acme.key)
    unknown = uuid4()
    foreign = (rival.organisation_id, operator.organisation_id, unknown)
    async with unchanged(database.hot):
        for organisation_id in map(str, foreign):
            for call in (
                admin.GetOrganisation(pb.GetOrganisationRequest(organisation_id=organisation_id)),
                admin.UpdateOrganisation(
                    update_organisation("name", organisation_id=organisation_id, name="mine")
                ),
                admin.UpdateOrganisation(
                    update_organisation("is_enabled", organisation_id=organisation_id)
                ),
                admin.CreateProject(
                    pb.CreateProjectRequest(organisation_id=organisation_id, name="p")
                ),
                admin.ListProjects(pb.ListProjectsRequest(organisation_id=organisation_id)),
                admin.CreateApiKey(
                    pb.CreateApiKeyRequest(
                        organisation_id=organisation_id, name="k", permissions=[QUEUE_READ]
                    )
                ),
                admin.ListApiKeys(pb.ListApiKeysRequest(organisation_id=organisation_id)),
                admin.ListAuditEntries(pb.ListAuditEntriesRequest(organisation_id=organisation_id)),
            ):
                refusal = await expect_error(call, StatusCode.NOT_FOUND, "ORGANISATION_NOT_FOUND")
                assert refusal.metadata == {"organisation": organisation_id}
                assert refusal.message == f"there is no organisation {organisation_id}"
        # An operator is told the same of what is not there.
        await expect_error(
            organisation(served, operator.key, unknown),
            StatusCode.NOT_FOUND,
            "ORGANISATION_NOT_FOUND",
        )


# -- List ----------------------------------------------------------------------------------------


async def test_an_operator_lists_all_by_name_and_a_tenant_its_own(
    served: Administration, database: Database, operator: Tenant, acme: Tenant, bound_key: str
) -> None:
    for name in ("c", "b", "a"):
        await insert_tenant(database.hot, name)
    names: list[list[str]] = []
    token = ""
    while True:
        answer = await served.admin(operator.key).ListOrganisations(
            pb.ListOrganisationsRequest(page_size=2, page_token=token)
        )
        names.append([each.name for each in answer.organisations])
        token = answer.next_page_token
        if not token:
            break
    assert names == [["a", "acme"], ["b", "c"], ["default", "operator"]]
    for key in (acme.key, bound_key):
        answer = await served.admin(key).ListOrganisations(pb.ListOrganisationsRequest())
        assert [each.name for each in answer.organisations] == ["acme"]


# -- Update --------------------------------------------------------------------------------------


async def test_a_tenant_renames_itself(served: Administration, acme: Tenant) -> None:
    before = await organisation(served, acme.key)
    admin = served.admin(acme.key)
    request = update_organisation("name", name="acme-2", is_enabled=False)
    changed = (await admin.UpdateOrganisation(request)).organisation
    assert changed.name == "acme-2"
    assert changed.is_enabled, "the mask did not name it"
    assert changed.updated_at.ToDatetime() > before.updated_at.ToDatetime()
    assert await organisation(served, acme.key) == changed


async def test_a_disabled_organisation_is_shut_out_until_it_is_enabled(
    served: Administration, operator: Tenant, acme: Tenant
) -> None:
    await organisation(served, acme.key)
    admin = served.admin(operator.key)
    named = {"organisation_id": str(acme.organisation_id)}
    disabled = (
        await admin.UpdateOrganisation(update_organisation("is_enabled", **named))
    ).organisation
    assert not disabled.is_enabled
    assert disabled.disabled_at == disabled.updated_at

    async def refused() -> bool:
        call = served.queues(acme.key).ListQueues(queue_service_pb2.ListQueuesRequest())
        return await call.code() is StatusCode.UNAUTHENTICATED

    await eventually(refused, "the tenant is shut out")
    await expect_error(
        organisation(served, acme.key), StatusCode.UNAUTHENTICATED, "CREDENTIAL_REVOKED"
    )
    enabled = (
        await admin.UpdateOrganisation(update_organisation("is_enabled", is_enabled=True, **named))
    ).organisation
    assert enabled.is_enabled
    assert not enabled.HasField("disabled_at")

    async def let_in() -> bool:
        return not await refused()

    await eventually(let_in, "the tenant is let in again")


async def test_nobody_locks_itself_out(
    served: Administration, database: Database, operator: Tenant, acme: Tenant
) -> None:
    async with unchanged(database.hot):
        for key, own in ((operator.key, operator), (acme.key, acme)):
            for organisation_id in ("", str(own.organisation_id)):
                request = update_organisation("is_enabled", organisation_id=organisation_id)
                refusal = await expect_error(
                    served.admin(key).UpdateOrganisation(request),
                    StatusCode.INVALID_ARGUMENT,
                    "INVALID_REQUEST",
                )
                assert refusal.field_violations == {
                    "is_enabled": "an organisation cannot disable itself"
                }


async def test_what_is_so_already_is_no_change(
    served: Administration, database: Database, acme: Tenant
) -> None:
    async with unchanged(database.hot):
        request = update_organisation("name", "is_enabled", name="acme", is_enabled=True)
        answer = await served.admin(acme.key).UpdateOrganisation(request)
    assert (answer.organisation.name, answer.organisation.is_enabled) == ("acme", True)


async def test_a_key_of_one_project_changes_no_organisation_and_no_project(
    served: Administration, database: Database, acme: Tenant, bound_key: str
) -> None:
    admin = served.admin(bound_key)
    async with unchanged(database.hot):
        for call in (
            admin.UpdateOrganisation(update_organisation("name", name="mine")),
            admin.CreateProject(pb.CreateProjectRequest(name="mine")),
            admin.UpdateProject(
                pb.UpdateProjectRequest(
                    project_id=str(acme.project_id), update_mask=FieldMask(paths=["is_enabled"])
                )
            ),
        ):
            refusal = await expect_error(call, StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
            assert refusal.metadata == {"permission": "admin"}


@pytest.mark.parametrize(
    ("paths", "path"), [([], ""), (["id"], "id"), (["name", "is_operator"], "is_operator")]
)
async def test_a_mask_that_names_nothing_or_what_cannot_be_changed_is_refused(
    served: Administration, database: Database, acme: Tenant, paths: list[str], path: str
) -> None:
    async with unchanged(database.hot):
        refusal = await expect_error(
            served.admin(acme.key).UpdateOrganisation(update_organisation(*paths, name="new")),
            StatusCode.INVALID_ARGUMENT,
            "INVALID_UPDATE_MASK",
        )
    assert refusal.metadata == {"path": path}


async def test_a_mask_is_needed_and_may_not_be_long(served: Administration, acme: Tenant) -> None:
    for request in (pb.UpdateOrganisationRequest(name="new"), update_organisation(*["name"] * 21)):
        refusal = await expect_error(
            served.admin(acme.key).UpdateOrganisation(request),
            StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
        )
        assert list(refusal.field_violations) == ["update_mask"]
