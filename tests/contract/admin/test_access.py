"""Who is let in: every RPC of AdminService, also those to come, asks for the permission."""

from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode
from tests.support.administration import Administration
from tests.support.refusals import expect_error
from tests.support.snapshots import unchanged
from tests.support.tenants import Tenant, insert_key

from taskforge.v1 import admin_service_pb2
from taskforge_core.callers import ALL_PERMISSIONS, PERMISSION_NAMES
from taskforge_core.database import Database

METHODS = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].methods
ADMIN = next(number for number, name in PERMISSION_NAMES.items() if name == "admin")


@pytest.fixture(params=METHODS, ids=lambda method: str(method.name))
def method(request: pytest.FixtureRequest) -> Any:
    return request.param


def call(served: Administration, key: str, method: Any) -> Any:
    return getattr(served.admin(key), method.name)(GetMessageClass(method.input_type)())


async def test_without_a_key_nothing_is_answered(
    served: Administration, database: Database, method: Any
) -> None:
    async with unchanged(database.hot):
        await expect_error(
            call(served, "", method), StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING"
        )


async def test_the_permission_admin_is_needed(
    served: Administration, database: Database, operator: Tenant, method: Any
) -> None:
    key = await insert_key(database.hot, operator.organisation_id, ALL_PERMISSIONS - {ADMIN})
    async with unchanged(database.hot):
        refusal = await expect_error(
            call(served, key, method), StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"
        )
    assert refusal.metadata == {"permission": "admin"}
