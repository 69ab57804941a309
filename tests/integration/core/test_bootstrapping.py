"""The first key of a deployment."""

import json

import pytest
from tests.support.snapshots import unchanged
from tests.support.tenants import insert_key, insert_tenant, key_id

from taskforge_core.api_keys import parse_api_key
from taskforge_core.authentication import CredentialAuthenticator
from taskforge_core.bootstrapping import CannotBootstrap, FirstKey, bootstrap
from taskforge_core.callers import ALL_PERMISSIONS, Caller
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_ORGANISATION_ID


async def caller_of(database: Database, key: FirstKey) -> Caller:
    return await CredentialAuthenticator(database).authenticate(f"Bearer {key.text}", ())


async def test_the_first_key_may_do_everything(database: Database, database_url: str) -> None:
    key = await bootstrap(database_url)
    assert (key.organisation, key.project) == ("default", "default")
    caller = await caller_of(database, key)
    assert caller.organisation_id == DEFAULT_ORGANISATION_ID
    assert caller.project_id is None
    assert caller.permissions == ALL_PERMISSIONS
    assert caller.is_operator
    [entry] = await database.hot.fetch("SELECT * FROM taskforge.audit_log")
    assert (entry["actor"], entry["action"]) == ("bootstrap", "Bootstrap")
    assert json.loads(entry["detail"]) == {
        "organisation": "default",
        "project": "default",
        "api_key": str(key_id(key.text)),
    }


async def test_the_organisation_and_its_project_are_made_where_they_are_not_there(
    database: Database, database_url: str
) -> None:
    key = await bootstrap(database_url, organisation="acme", project="main")
    caller = await caller_of(database, key)
    name = "SELECT name FROM taskforge.organisations WHERE id = $1 AND is_operator"
    assert await database.hot.fetchval(name, caller.organisation_id) == "acme"
    project = "SELECT name FROM taskforge.projects WHERE organisation_id = $1"
    assert await database.hot.fetchval(project, caller.organisation_id) == "main"


async def test_a_second_time_is_refused_unless_it_is_wanted(
    database: Database, database_url: str
) -> None:
    first = await bootstrap(database_url, organisation="acme")
    async with unchanged(database.hot):
        with pytest.raises(CannotBootstrap, match="--again"):
            await bootstrap(database_url)
    again = await bootstrap(database_url, again=True)
    assert again.organisation == "acme", "the present operator"
    assert again.text != first.text
    assert (await caller_of(database, again)).is_operator


@pytest.mark.parametrize("change", ["revoked_at = now()", "expires_at = now()"])
async def test_where_no_key_is_good_any_more_another_is_made(
    database: Database, database_url: str, change: str
) -> None:
    await bootstrap(database_url)
    await database.hot.execute(f"UPDATE taskforge.api_keys SET {change}")
    assert (await caller_of(database, await bootstrap(database_url))).is_operator


async def test_a_tenants_keys_get_no_power_over_others(
    database: Database, database_url: str
) -> None:
    await insert_tenant(database.hot, "acme")
    async with unchanged(database.hot):
        with pytest.raises(CannotBootstrap, match="acme is a tenant"):
            await bootstrap(database_url, organisation="acme")


async def test_the_default_organisation_may_have_a_local_key(
    database: Database, database_url: str
) -> None:
    await insert_key(database.hot, DEFAULT_ORGANISATION_ID)
    assert (await caller_of(database, await bootstrap(database_url))).is_operator


async def test_the_default_organisation_is_a_tenant_like_others_where_there_is_an_operator(
    database: Database, database_url: str
) -> None:
    await insert_key(database.hot, DEFAULT_ORGANISATION_ID)
    await bootstrap(database_url, organisation="acme")
    async with unchanged(database.hot):
        with pytest.raises(CannotBootstrap, match="default is a tenant"):
            await bootstrap(database_url, organisation="default", again=True)


async def disable(database: Database, table: str, name: str) -> None:
    await database.hot.execute(
        f"UPDATE taskforge.{table} SET disabled_at = now() WHERE name = $1", name
    )


@pytest.mark.parametrize("organisation", [None, "acme"])
@pytest.mark.parametrize("again", [False, True])
async def test_a_disabled_operator_stays_disabled_and_another_can_be_made(
    database: Database, database_url: str, organisation: str | None, again: bool
) -> None:
    await bootstrap(database_url, organisation="acme")
    await disable(database, "organisations", "acme")
    async with unchanged(database.hot):
        with pytest.raises(CannotBootstrap, match="acme is disabled: name another"):
            await bootstrap(database_url, organisation=organisation, again=again)
    other = await bootstrap(database_url, organisation="rescue", again=again)
    assert (await caller_of(database, other)).is_operator
    still = "SELECT disabled_at IS NOT NULL FROM taskforge.organisations WHERE name = 'acme'"
    assert await database.hot.fetchval(still)


async def test_an_enabled_operator_is_chosen_though_a_disabled_one_is_older(
    database: Database, database_url: str
) -> None:
    await bootstrap(database_url, organisation="older")
    await bootstrap(database_url, organisation="younger", again=True)
    await disable(database, "organisations", "older")
    assert (await bootstrap(database_url, again=True)).organisation == "younger"
    still = "SELECT disabled_at IS NOT NULL FROM taskforge.organisations WHERE name = 'older'"
    assert await database.hot.fetchval(still)


async def test_a_disabled_project_stays_disabled(database: Database, database_url: str) -> None:
    await bootstrap(database_url)
    await disable(database, "projects", "default")
    async with unchanged(database.hot):
        with pytest.raises(CannotBootstrap, match="is disabled: name another"):
            await bootstrap(database_url, again=True)
    assert (await bootstrap(database_url, project="main", again=True)).project == "main"


@pytest.mark.parametrize(
    "name", ["two words", "x" * 101, "a\n", "-a", str(DEFAULT_ORGANISATION_ID)]
)
async def test_what_is_no_name_is_refused(database: Database, database_url: str, name: str) -> None:
    async with unchanged(database.hot):
        with pytest.raises(CannotBootstrap, match="is no name"):
            await bootstrap(database_url, organisation=name)
        with pytest.raises(CannotBootstrap, match="is no name"):
            await bootstrap(database_url, project=name)


async def test_a_database_that_was_not_migrated_is_refused(empty_database_url: str) -> None:
    with pytest.raises(CannotBootstrap, match="taskforge migrate"):
        await bootstrap(empty_database_url)


async def test_the_key_shows_in_no_representation(database_url: str) -> None:
    key = await bootstrap(database_url)
    parsed = parse_api_key(key.text)
    assert parsed is not None
    assert parsed.secret not in repr(key)
    assert parsed.secret not in repr(parsed)
