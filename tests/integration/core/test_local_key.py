"""The key that `taskforge dev` makes: recorded, and never in a database that others use."""

import json
from pathlib import Path

import asyncpg
import pytest
from tests.support.snapshots import unchanged
from tests.support.tenants import insert_key, key_id

from taskforge_core.bootstrapping import bootstrap
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_ORGANISATION_ID
from taskforge_core.local_key import KeyRefused, ensure_local_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the key is kept."""
    return tmp_path / "local.key"


def kept_in(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def keep(key: str, file: Path) -> None:
    file.write_text(f"{key}\n")


@pytest.mark.parametrize("shared", [False, True])
async def test_a_key_that_is_made_stands_in_the_audit_log(
    database: Database, database_url: str, file: Path, shared: bool
) -> None:
    made = await ensure_local_key(database_url, file, shared=shared)
    assert kept_in(file) == f"{made}\n"
    [entry] = await database.hot.fetch("SELECT * FROM taskforge.audit_log")
    assert (entry["actor"], entry["action"]) == ("taskforge dev", "CreateApiKey")
    assert entry["target"] == f"api_keys/{key_id(made)}"
    assert entry["organisation_id"] == DEFAULT_ORGANISATION_ID
    assert json.loads(entry["detail"]) == {"name": "local"}
    makers = await database.hot.fetch("SELECT created_by FROM taskforge.api_keys")
    assert [row["created_by"] for row in makers] == ["taskforge dev"]


@pytest.mark.parametrize("shared", [False, True])
async def test_a_key_that_is_good_is_used_on(
    database: Database, database_url: str, file: Path, shared: bool
) -> None:
    made = await ensure_local_key(database_url, file, shared=shared)
    async with unchanged(database.hot):
        assert await ensure_local_key(database_url, file, shared=shared) == made


async def test_an_operator_of_a_shared_database_gets_no_key_by_the_way(
    database: Database, database_url: str, file: Path
) -> None:
    await bootstrap(database_url)
    async with unchanged(database.hot):
        with pytest.raises(KeyRefused, match="default of this database manages all others"):
            await ensure_local_key(database_url, file, shared=True)
    assert kept_in(file) == ""
    # Nobody else gets into the embedded one.
    await ensure_local_key(database_url, file)


async def test_an_organisation_that_others_have_keys_of_gets_none_by_the_way(
    database: Database, database_url: str, file: Path
) -> None:
    others = await insert_key(database.hot, DEFAULT_ORGANISATION_ID)
    async with unchanged(database.hot):
        with pytest.raises(KeyRefused, match="others have keys"):
            await ensure_local_key(database_url, file, shared=True)
    keep(others, file)
    async with unchanged(database.hot):
        assert await ensure_local_key(database_url, file, shared=True) == others


async def test_a_key_of_another_dev_is_no_hindrance(database_url: str, file: Path) -> None:
    first = await ensure_local_key(database_url, file.with_name("other"), shared=True)
    assert await ensure_local_key(database_url, file, shared=True) != first


async def test_a_key_that_cannot_be_kept_is_not_made(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("")
    async with unchanged(database.hot):
        with pytest.raises(NotADirectoryError):
            await ensure_local_key(database_url, tmp_path / "taken" / "local.key")


async def test_a_key_that_is_not_recorded_is_not_made(
    database: Database, database_url: str, file: Path
) -> None:
    await database.hot.execute("ALTER TABLE taskforge.audit_log ADD CHECK (action = 'never')")
    async with unchanged(database.hot):
        with pytest.raises(asyncpg.CheckViolationError):
            await ensure_local_key(database_url, file)
    assert kept_in(file) == ""
