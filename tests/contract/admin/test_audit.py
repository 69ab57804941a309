"""The audit log: what is in it, and who may read it."""

import json
from typing import Any

import asyncpg
import pytest
from grpc import StatusCode
from tests.support.administration import Administration, update_organisation, update_project
from tests.support.refusals import expect_error
from tests.support.snapshots import unchanged
from tests.support.tenants import ADMIN, QUEUE_READ, Tenant, bearer, insert_key, key_id

from taskforge.v1 import admin_pb2, queue_service_pb2
from taskforge.v1 import admin_service_pb2 as pb
from taskforge_core.database import Database


async def entries(served: Administration, key: str, **fields: Any) -> list[admin_pb2.AuditEntry]:
    """The latest first."""
    request = pb.ListAuditEntriesRequest(**fields)
    return list((await served.admin(key).ListAuditEntries(request)).entries)


def told(entry: admin_pb2.AuditEntry) -> tuple[str, str, Any]:
    return entry.action, entry.target, json.loads(entry.detail)


async def test_every_change_leaves_who_did_what(
    served: Administration, operator: Tenant, acme: Tenant
) -> None:
    admin = served.admin(operator.key)
    made = (await admin.CreateOrganisation(pb.CreateOrganisationRequest(name="new"))).organisation
    named: dict[str, Any] = {"organisation_id": made.id}
    await admin.UpdateOrganisation(
        update_organisation("name", "is_enabled", name="newer", is_enabled=True, **named)
    )
    await admin.UpdateOrganisation(update_organisation("is_enabled", **named))
    await admin.UpdateOrganisation(update_organisation("max_projects", max_projects=3, **named))
    await admin.UpdateOrganisation(update_organisation("max_projects", **named))
    quotas = admin_pb2.ProjectQuotas(max_queues=3)
    project = (
        await admin.CreateProject(pb.CreateProjectRequest(name="p", quotas=quotas, **named))
    ).project
    quotas.max_lease_streams = 5
    await admin.UpdateProject(
        update_project(project.id, "name", "is_enabled", "quotas", name="q", quotas=quotas)
    )
    key = (
        await admin.CreateApiKey(
            pb.CreateApiKeyRequest(
                name="k", permissions=[ADMIN, QUEUE_READ], project_id=project.id, **named
            )
        )
    ).api_key
    await admin.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=key.id))

    left = await entries(served, operator.key, **named)
    assert [told(entry) for entry in reversed(left)] == [
        ("CreateOrganisation", f"organisations/{made.id}", {"name": "new"}),
        ("UpdateOrganisation", f"organisations/{made.id}", {"name": "newer"}),
        ("UpdateOrganisation", f"organisations/{made.id}", {"is_enabled": False}),
        ("UpdateOrganisation", f"organisations/{made.id}", {"max_projects": 3}),
        ("UpdateOrganisation", f"organisations/{made.id}", {"max_projects": None}),
        ("CreateProject", f"projects/{project.id}", {"name": "p", "max_queues": 3}),
        (
            "UpdateProject",
            f"projects/{project.id}",
            {"name": "q", "is_enabled": False, "max_lease_streams": 5},
        ),
        (
            "CreateApiKey",
            f"api_keys/{key.id}",
            {"name": "k", "permissions": ["queue:read", "admin"]},
        ),
        ("RevokeApiKey", f"api_keys/{key.id}", {"name": "k"}),
    ]
    assert {entry.actor for entry in left} == {f"key {key_id(operator.key)}"}
    assert {entry.organisation_id for entry in left} == {made.id}
    assert [entry.project_id for entry in reversed(left)] == [""] * 5 + [project.id] * 4
    assert all(entry.request_id for entry in left)
    ids = [entry.id for entry in left]
    assert ids == sorted(ids, reverse=True)
    # The caller's own organisation has no part in it.
    assert await entries(served, operator.key) == []
    assert await entries(served, acme.key) == []


async def test_a_change_of_a_queue_is_in_the_log_of_its_organisation(
    served: Administration, operator: Tenant, acme: Tenant, rival: Tenant, bound_key: str
) -> None:
    request = queue_service_pb2.CreateQueueRequest(name="emails")
    queue = (await served.queues(bound_key).CreateQueue(request)).queue
    other: dict[str, Any] = {"project_id": str(acme.other_project_id)}
    request = queue_service_pb2.CreateQueueRequest(name="other", **other)
    await served.queues(acme.key).CreateQueue(request)
    [entry] = await entries(served, bound_key)
    assert told(entry) == (
        "CreateQueue",
        f"queues/{queue.id}",
        {"name": "emails", "priority": 0},
    )
    assert entry.actor == f"key {key_id(bound_key)}"
    assert entry.organisation_id == str(acme.organisation_id)
    assert entry.project_id == str(acme.project_id)
    assert len(await entries(served, acme.key)) == 2
    assert len(await entries(served, acme.key, **other)) == 1
    of_acme = {"organisation_id": str(acme.organisation_id)}
    assert await entries(served, operator.key, **of_acme) == await entries(served, acme.key)
    assert await entries(served, rival.key) == []


async def test_the_log_knows_the_callers_request_id(served: Administration, acme: Tenant) -> None:
    metadata = (*bearer(acme.key), ("x-request-id", "from-me"))
    request = pb.CreateProjectRequest(name="p")
    await served.admin("").CreateProject(request, metadata=metadata)
    [entry] = await entries(served, acme.key)
    assert entry.request_id == "from-me"


async def test_a_refused_change_leaves_nothing(
    served: Administration, database: Database, acme: Tenant
) -> None:
    async with unchanged(database.hot):
        await expect_error(
            served.admin(acme.key).CreateProject(pb.CreateProjectRequest(name="default")),
            StatusCode.ALREADY_EXISTS,
            "PROJECT_NAME_TAKEN",
        )
        await expect_error(
            served.queues(acme.key).PauseQueue(queue_service_pb2.PauseQueueRequest(queue="q")),
            StatusCode.NOT_FOUND,
            "QUEUE_NOT_FOUND",
        )


async def test_pages_of_the_log_are_the_whole_log(served: Administration, acme: Tenant) -> None:
    for name in "abcde":
        await served.admin(acme.key).CreateProject(pb.CreateProjectRequest(name=name))
    found: list[str] = []
    sizes: list[int] = []
    token = ""
    while True:
        request = pb.ListAuditEntriesRequest(page_size=2, page_token=token)
        answer = await served.admin(acme.key).ListAuditEntries(request)
        found += [json.loads(entry.detail)["name"] for entry in answer.entries]
        sizes.append(len(answer.entries))
        token = answer.next_page_token
        if not token:
            break
    assert found == ["e", "d", "c", "b", "a"]
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE taskforge.audit_log SET actor = 'nobody'",
        "DELETE FROM taskforge.audit_log",
        "TRUNCATE taskforge.audit_log",
    ],
)
async def test_the_log_cannot_be_changed(
    served: Administration, database: Database, acme: Tenant, statement: str
) -> None:
    await served.admin(acme.key).CreateProject(pb.CreateProjectRequest(name="p"))
    async with unchanged(database.hot):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await database.hot.execute(statement)


async def test_a_key_without_the_permission_reads_no_log(
    served: Administration, database: Database, acme: Tenant
) -> None:
    key = await insert_key(database.hot, acme.organisation_id, {1, 2, 3, 4})
    refusal = await expect_error(
        entries(served, key), StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"
    )
    assert refusal.metadata == {"permission": "admin"}
