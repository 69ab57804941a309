"""Making, showing and revoking API keys, over a real server."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from tests.support.administration import Administration
from tests.support.refusals import expect_error
from tests.support.snapshots import unchanged
from tests.support.tenants import (
    ADMIN,
    JOB_WRITE,
    QUEUE_READ,
    QUEUE_WRITE,
    Tenant,
    insert_key,
    key_id,
)
from tests.support.waiting import eventually

from taskforge.v1 import admin_pb2, permission_pb2, queue_service_pb2
from taskforge.v1 import admin_service_pb2 as pb
from taskforge_core.api_keys import parse_api_key
from taskforge_core.database import Database


def creation(permissions: Iterable[int] = (QUEUE_READ,), **fields: Any) -> pb.CreateApiKeyRequest:
    granted = [permission_pb2.Permission.ValueType(each) for each in permissions]
    return pb.CreateApiKeyRequest(**{"name": "deploy", "permissions": granted, **fields})


def in_future(duration: timedelta = timedelta(days=1)) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) + duration)
    return moment


async def make(
    served: Administration, key: str, permissions: Iterable[int] = (QUEUE_READ,), **fields: Any
) -> pb.CreateApiKeyResponse:
    return await served.admin(key).CreateApiKey(creation(permissions, **fields))


async def get(served: Administration, key: str, api_key_id: object) -> admin_pb2.ApiKey:
    request = pb.GetApiKeyRequest(api_key_id=str(api_key_id))
    return (await served.admin(key).GetApiKey(request)).api_key


async def names(served: Administration, key: str, **fields: Any) -> list[str]:
    answer = await served.admin(key).ListApiKeys(pb.ListApiKeysRequest(**fields))
    return [each.name for each in answer.api_keys]


# -- Create and get ------------------------------------------------------------------------------


async def test_a_new_key_does_what_it_may_and_nothing_else(
    served: Administration, acme: Tenant
) -> None:
    expires_at = in_future()
    made = await make(
        served, acme.key, [QUEUE_WRITE, QUEUE_READ], name="für uns ✉", expires_at=expires_at
    )
    info = made.api_key
    assert parse_api_key(made.text) is not None
    assert str(key_id(made.text)) == info.id
    assert info.organisation_id == str(acme.organisation_id)
    assert info.project_id == ""
    assert info.name == "für uns ✉"
    assert list(info.permissions) == [QUEUE_READ, QUEUE_WRITE]
    assert info.certificate_name == ""
    assert info.created_by == f"key {key_id(acme.key)}"
    assert info.expires_at.ToDatetime() == expires_at.ToDatetime()
    assert not info.HasField("revoked_at")
    assert not info.HasField("last_used_at")
    assert await get(served, acme.key, info.id) == info
    queues = served.queues(made.text)
    await queues.CreateQueue(queue_service_pb2.CreateQueueRequest(name="emails"))
    refusal = await expect_error(
        get(served, made.text, info.id), StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"
    )
    assert refusal.metadata == {"permission": "admin"}


async def test_the_text_of_a_key_is_stored_nowhere(
    served: Administration, database: Database, acme: Tenant
) -> None:
    text = (await make(served, acme.key)).text
    secret = text.split("_", 2)[2]
    rows = await database.hot.fetch(
        "SELECT t::text AS row FROM taskforge.api_keys AS t"
        " UNION ALL SELECT t::text FROM taskforge.audit_log AS t"
    )
    assert len(rows) >= 2
    assert not [row for row in rows if secret in row["row"]]


async def test_a_key_for_one_project_is_let_into_no_other(
    served: Administration, acme: Tenant
) -> None:
    made = await make(served, acme.key, project_id=str(acme.other_project_id))
    assert made.api_key.project_id == str(acme.other_project_id)
    queues = served.queues(made.text)
    await queues.ListQueues(queue_service_pb2.ListQueuesRequest())
    await expect_error(
        queues.ListQueues(queue_service_pb2.ListQueuesRequest(project_id=str(acme.project_id))),
        StatusCode.NOT_FOUND,
        "PROJECT_NOT_FOUND",
    )


async def test_a_key_gives_only_what_it_has(
    served: Administration, database: Database, acme: Tenant
) -> None:
    maker = await insert_key(database.hot, acme.organisation_id, [QUEUE_READ, ADMIN])
    await make(served, maker, [ADMIN, QUEUE_READ])
    async with unchanged(database.hot):
        refusal = await expect_error(
            make(served, maker, [QUEUE_READ, JOB_WRITE, QUEUE_WRITE]),
            StatusCode.PERMISSION_DENIED,
            "PERMISSION_MISSING",
        )
    assert refusal.metadata == {"permission": "queue:write"}


async def test_an_operator_gives_a_tenant_what_it_has_not_itself(
    served: Administration, database: Database, operator: Tenant, acme: Tenant
) -> None:
    maker = await insert_key(database.hot, operator.organisation_id, [ADMIN])
    made = await make(
        served, maker, [JOB_WRITE, QUEUE_READ], organisation_id=str(acme.organisation_id)
    )
    assert made.api_key.organisation_id == str(acme.organisation_id)
    await served.queues(made.text).ListQueues(queue_service_pb2.ListQueuesRequest())


async def test_an_operator_sees_no_tenants_queues(
    served: Administration, operator: Tenant, acme: Tenant
) -> None:
    refusal = await expect_error(
        served.queues(operator.key).ListQueues(
            queue_service_pb2.ListQueuesRequest(project_id=str(acme.project_id))
        ),
        StatusCode.NOT_FOUND,
        "PROJECT_NOT_FOUND",
    )
    assert refusal.metadata == {"project": str(acme.project_id)}


async def test_the_project_must_be_one_of_the_organisation(
    served: Administration, database: Database, operator: Tenant, acme: Tenant, rival: Tenant
) -> None:
    mixed: dict[str, Any] = {
        "organisation_id": str(acme.organisation_id),
        "project_id": str(rival.project_id),
    }
    admin = served.admin(operator.key)
    async with unchanged(database.hot):
        for call in (
            admin.CreateApiKey(creation(**mixed)),
            admin.CreateApiKey(creation(project_id=mixed["project_id"])),
            admin.ListApiKeys(pb.ListApiKeysRequest(**mixed)),
            admin.ListAuditEntries(pb.ListAuditEntriesRequest(**mixed)),
        ):
            await expect_error(call, StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")


async def test_a_key_of_one_project_makes_keys_for_that_project_alone(
    served: Administration, acme: Tenant, bound_key: str
) -> None:
    for project_id in ("", str(acme.project_id)):
        made = await make(served, bound_key, [ADMIN], project_id=project_id)
        assert made.api_key.project_id == str(acme.project_id)


async def test_a_certificates_key_has_no_text_and_takes_an_operator(
    served: Administration, database: Database, operator: Tenant, acme: Tenant
) -> None:
    named: dict[str, Any] = {"certificate_name": "worker.acme.example"}
    async with unchanged(database.hot):
        refusal = await expect_error(
            make(served, acme.key, **named), StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"
        )
    assert refusal.metadata == {"permission": "operator"}
    of_acme: dict[str, Any] = {"organisation_id": str(acme.organisation_id), **named}
    made = await make(served, operator.key, **of_acme)
    assert made.text == ""
    assert made.api_key.certificate_name == "worker.acme.example"
    refusal = await expect_error(
        make(served, operator.key, **named), StatusCode.ALREADY_EXISTS, "CERTIFICATE_NAME_TAKEN"
    )
    assert refusal.metadata == {"certificate_name": "worker.acme.example"}
    await served.admin(acme.key).RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=made.api_key.id))
    again = await make(served, operator.key, **of_acme)
    assert again.api_key.id != made.api_key.id


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "x" * 101}),
        ("name", {"name": "two\nlines"}),
        ("name", {"name": "\0"}),
        ("permissions", {"permissions": []}),
        ("permissions", {"permissions": [1, 1]}),
        ("permissions[0]", {"permissions": [0]}),
        ("permissions[0]", {"permissions": [6]}),
        ("expires_at", {"expires_at": in_future(timedelta(seconds=-1))}),
        ("expires_at", {"expires_at": Timestamp(seconds=-1)}),
        ("expires_at", {"expires_at": Timestamp(seconds=2**40)}),
        ("certificate_name", {"certificate_name": "two words"}),
        ("certificate_name", {"certificate_name": "x" * 254}),
        ("organisation_id", {"organisation_id": "acme"}),
        ("project_id", {"project_id": "default"}),
    ],
)
async def test_a_field_beyond_its_limit_is_named(
    served: Administration,
    database: Database,
    operator: Tenant,
    field: str,
    fields: dict[str, Any],
) -> None:
    async with unchanged(database.hot):
        refusal = await expect_error(
            make(served, operator.key, **fields), StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
        )
    assert list(refusal.field_violations) == [field]


async def test_another_organisations_key_is_answered_as_one_that_does_not_exist(
    served: Administration, database: Database, acme: Tenant, rival: Tenant, bound_key: str
) -> None:
    sought = [(acme.key, key_id(rival.key)), (acme.key, uuid4()), (bound_key, key_id(acme.key))]
    async with unchanged(database.hot):
        for key, api_key_id in sought:
            admin, named = served.admin(key), {"api_key_id": str(api_key_id)}
            for call in (
                admin.GetApiKey(pb.GetApiKeyRequest(**named)),
                admin.RevokeApiKey(pb.RevokeApiKeyRequest(**named)),
            ):
                refusal = await expect_error(call, StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")
                assert refusal.metadata == {"api_key": str(api_key_id)}
                assert refusal.message == f"there is no api key {api_key_id}"


# -- List ----------------------------------------------------------------------------------------


async def test_a_list_has_the_newest_keys_first(
    served: Administration, operator: Tenant, acme: Tenant, bound_key: str
) -> None:
    for name in ("a", "b", "c"):
        await make(served, acme.key, name=name)
    await make(served, acme.key, name="other", project_id=str(acme.other_project_id))
    admin = served.admin(acme.key)
    first = await admin.ListApiKeys(pb.ListApiKeysRequest(page_size=3))
    second = await admin.ListApiKeys(
        pb.ListApiKeysRequest(page_size=3, page_token=first.next_page_token)
    )
    assert [each.name for each in first.api_keys] == ["other", "c", "b"]
    assert [each.name for each in second.api_keys] == ["a", "test", "test"]
    assert not second.next_page_token
    assert await names(served, acme.key, project_id=str(acme.other_project_id)) == ["other"]
    assert await names(served, bound_key) == ["test"]
    of_acme = await names(served, operator.key, organisation_id=str(acme.organisation_id))
    assert len(of_acme) == 6
    assert await names(served, operator.key) == ["test"]


async def test_a_page_token_of_another_list_is_refused(
    served: Administration, acme: Tenant
) -> None:
    admin = served.admin(acme.key)
    await make(served, acme.key)
    keys = (await admin.ListApiKeys(pb.ListApiKeysRequest(page_size=1))).next_page_token
    projects = (await admin.ListProjects(pb.ListProjectsRequest(page_size=1))).next_page_token
    await make(served, acme.key)
    entries = (
        await admin.ListAuditEntries(pb.ListAuditEntriesRequest(page_size=1))
    ).next_page_token
    assert keys
    assert projects
    assert entries
    own = str(acme.organisation_id)
    for call in (
        admin.ListApiKeys(pb.ListApiKeysRequest(page_token=entries)),
        admin.ListApiKeys(pb.ListApiKeysRequest(page_token=keys, organisation_id=own)),
        admin.ListAuditEntries(pb.ListAuditEntriesRequest(page_token=keys)),
        admin.ListProjects(pb.ListProjectsRequest(page_token=keys)),
        admin.ListOrganisations(pb.ListOrganisationsRequest(page_token=projects)),
        admin.ListOrganisations(pb.ListOrganisationsRequest(page_token="x")),
    ):
        await expect_error(call, StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")


# -- Revoke --------------------------------------------------------------------------------------


async def test_a_revoked_key_is_refused(served: Administration, acme: Tenant) -> None:
    made = await make(served, acme.key)
    queues = served.queues(made.text)
    await queues.ListQueues(queue_service_pb2.ListQueuesRequest())
    request = pb.RevokeApiKeyRequest(api_key_id=made.api_key.id)
    revoked = (await served.admin(acme.key).RevokeApiKey(request)).api_key
    assert revoked.HasField("revoked_at")
    assert revoked == await get(served, acme.key, made.api_key.id)

    async def refused() -> bool:
        call = queues.ListQueues(queue_service_pb2.ListQueuesRequest())
        return await call.code() is StatusCode.UNAUTHENTICATED

    await eventually(refused, "the key is refused")
    await expect_error(
        queues.ListQueues(queue_service_pb2.ListQueuesRequest()),
        StatusCode.UNAUTHENTICATED,
        "CREDENTIAL_REVOKED",
    )


async def test_revoking_a_key_twice_changes_nothing(
    served: Administration, database: Database, acme: Tenant
) -> None:
    request = pb.RevokeApiKeyRequest(api_key_id=(await make(served, acme.key)).api_key.id)
    first = await served.admin(acme.key).RevokeApiKey(request)
    async with unchanged(database.hot):
        assert await served.admin(acme.key).RevokeApiKey(request) == first


async def test_a_key_of_one_project_revokes_keys_of_that_project(
    served: Administration, acme: Tenant, bound_key: str
) -> None:
    made = await make(served, bound_key)
    request = pb.RevokeApiKeyRequest(api_key_id=made.api_key.id)
    assert (await served.admin(bound_key).RevokeApiKey(request)).api_key.HasField("revoked_at")
