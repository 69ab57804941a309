"""Which project a call is about."""

from uuid import uuid4

import pytest
from tests.support.plans import statements_of
from tests.support.rows import insert_project

from taskforge_core.database import Database
from taskforge_core.errors import NotFound
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.projects import Projects


async def test_the_default_project_needs_no_query(database: Database) -> None:
    projects = Projects(database)
    with statements_of(database.engine) as statements:
        assert await projects.resolve("") == DEFAULT_PROJECT_ID
        assert await projects.resolve(str(DEFAULT_PROJECT_ID)) == DEFAULT_PROJECT_ID
        assert await projects.visible("") == [DEFAULT_PROJECT_ID]
    assert not statements


async def test_another_project_is_looked_up_once(database: Database) -> None:
    project_id = await insert_project(database.hot)
    projects = Projects(database)
    with statements_of(database.engine) as statements:
        assert await projects.resolve(str(project_id)) == project_id
        assert await projects.resolve(str(project_id).upper()) == project_id
        assert await projects.visible(str(project_id)) == [project_id]
    assert len(statements) == 1


async def test_a_project_that_is_not_there_is_looked_up_each_time(database: Database) -> None:
    projects = Projects(database)
    unknown = uuid4()
    for text in (str(unknown), str(unknown), "no id"):
        with pytest.raises(NotFound) as caught:
            await projects.resolve(text)
        assert caught.value.reason == "PROJECT_NOT_FOUND"
        assert caught.value.metadata == {"project": text}
    await database.hot.execute(
        "INSERT INTO taskforge.projects SELECT $1, organisation_id, 'late', created_at"
        " FROM taskforge.projects",
        unknown,
    )
    assert await projects.visible(str(unknown)) == [unknown]
