"""An operator and two tenants, and a server that asks each caller for a key."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.administration import Administration, administration
from tests.support.tenants import Tenant, insert_key, insert_tenant

from taskforge_core.database import Database
from taskforge_core.settings import Settings


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings that name the test's own database; authentication is on."""
    return Settings(database_url=database_url, listen_url=None, authentication="on")


@pytest.fixture
async def operator(database: Database) -> Tenant:
    return await insert_tenant(database.hot, "operator", is_operator=True)


@pytest.fixture
async def acme(database: Database) -> Tenant:
    return await insert_tenant(database.hot, "acme")


@pytest.fixture
async def rival(database: Database) -> Tenant:
    return await insert_tenant(database.hot, "rival")


@pytest.fixture
async def bound_key(database: Database, acme: Tenant) -> str:
    """A key of acme with all permissions in its project `default` alone."""
    return await insert_key(database.hot, acme.organisation_id, project_id=acme.project_id)


@pytest.fixture
async def served(database: Database, open_folder: Path) -> AsyncIterator[Administration]:
    async with administration(database, open_folder) as served:
        yield served
