"""The tenants that abuse both servers, and what those have logged."""

from collections.abc import Iterator

import pytest
from tests.support.abuse.watching import Log, watched_log
from tests.support.tenants import Tenant, insert_tenant

from taskforge_core.database import Database


@pytest.fixture
async def own(database: Database) -> Tenant:
    return await insert_tenant(database.hot, "own")


@pytest.fixture
async def foreign(database: Database) -> Tenant:
    return await insert_tenant(database.hot, "foreign")


@pytest.fixture
async def operator(database: Database) -> Tenant:
    return await insert_tenant(database.hot, "operator", is_operator=True)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    """Whatever a test sends, nothing may be logged as an error."""
    with watched_log(caplog) as log:
        yield log
