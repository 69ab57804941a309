"""What the clients ask of AdminService, without a transport."""

from datetime import datetime
from typing import Any

import pytest

from taskforge.v1 import admin_pb2
from taskforge.v1 import admin_service_pb2 as pb
from taskforge_sdk import InvalidRequest, NewKey, Permission, ProjectQuotas
from taskforge_sdk.requests import admin
from taskforge_sdk.tenant_conversion import key_info, new_key, organisation, project


def test_an_update_names_what_is_given_and_nothing_else() -> None:
    request: Any = admin.update_organisation("p", "o", is_enabled=False).request
    assert list(request.update_mask.paths) == ["is_enabled"]
    assert request.organisation_id == "o"
    request = admin.update_project("p", "q", name="new").request
    assert list(request.update_mask.paths) == ["name"]
    assert request.project_id == "q"


def test_an_organisations_quota_is_set_and_lifted() -> None:
    request: Any = admin.update_organisation("p", "o", max_projects=3).request
    assert list(request.update_mask.paths) == ["max_projects"]
    assert request.max_projects == 3
    request = admin.update_organisation("p", "o", max_projects=None).request
    assert list(request.update_mask.paths) == ["max_projects"]
    assert not request.HasField("max_projects")
    assert organisation(admin_pb2.Organisation()).max_projects is None
    assert organisation(admin_pb2.Organisation(max_projects=3)).max_projects == 3


def test_quotas_replace_all_quotas_or_change_those_that_are_named() -> None:
    request: Any = admin.update_project("p", "q", quotas=ProjectQuotas(max_queues=3)).request
    assert list(request.update_mask.paths) == ["quotas"]
    assert request.quotas == admin_pb2.ProjectQuotas(max_queues=3)
    request = admin.update_project(
        "p", "q", quotas={"max_queues": 3, "max_lease_streams": None}
    ).request
    assert list(request.update_mask.paths) == ["quotas.max_queues", "quotas.max_lease_streams"]
    assert request.quotas == admin_pb2.ProjectQuotas(max_queues=3)


def test_a_quota_that_does_not_exist_is_refused() -> None:
    unknown: Any = {"max_jobs": 3}
    with pytest.raises(InvalidRequest):
        admin.update_project("p", "q", quotas=unknown)


def test_permissions_are_asked_for_once_each() -> None:
    wanted = [Permission.ADMIN, Permission.QUEUE_READ, Permission.ADMIN]
    request: Any = admin.create_api_key("p", "k", wanted).request
    assert list(request.permissions) == [1, 5]
    assert not request.project_id, "the client's own project says nothing"
    assert not request.HasField("expires_at")


def test_a_time_without_an_offset_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        admin.create_api_key("p", "k", [Permission.ADMIN], expires_at=datetime(2999, 1, 1))  # noqa: DTZ001


def test_what_is_not_set_is_none() -> None:
    newer: Any = [1, 77]
    info = key_info(admin_pb2.ApiKey(id="k", permissions=newer))
    unset = [info.project_id, info.certificate_name, info.expires_at, info.revoked_at]
    assert unset == [None] * 4
    assert info.permissions == (Permission.QUEUE_READ, Permission.UNSPECIFIED)
    found = project(admin_pb2.Project(quotas=admin_pb2.ProjectQuotas(max_queues=3)))
    assert found.quotas == ProjectQuotas(max_queues=3)
    assert found.disabled_at is None


def test_a_new_keys_text_shows_in_no_representation() -> None:
    made = new_key(pb.CreateApiKeyResponse(text="tfk_secret"))
    assert made.text == "tfk_secret"
    assert "tfk_secret" not in repr(made)
    assert new_key(pb.CreateApiKeyResponse()) == NewKey(key_info(admin_pb2.ApiKey()), None)


def test_permissions_are_written_as_people_do() -> None:
    written = [permission.written for permission in Permission if permission]
    assert written == ["queue:read", "queue:write", "job:read", "job:write", "admin"]
