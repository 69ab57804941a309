"""Which project a call is about, and which projects its caller may see."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from tests.support.rows import insert_project
from tests.support.tenants import Tenant, insert_tenant

from taskforge_core import projects as module
from taskforge_core import queries
from taskforge_core.callers import ALL_PERMISSIONS, Call, Caller, enter
from taskforge_core.database import Database
from taskforge_core.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.projects import Projects


@contextmanager
def lookups() -> Iterator[list[list[UUID | None]]]:
    """Collects the projects of each statement that looks for some."""
    seen: list[list[UUID | None]] = []
    original = queries.find_projects

    async def find(executor: object, organisations: object, ids: list[UUID | None]) -> object:
        seen.append(ids)
        return await original(executor, organisations, ids)  # type: ignore[arg-type]

    with patch.object(module, "find_projects", find):
        yield seen


def call_as(tenant: Tenant, project_id: UUID | None = None, request_bytes: int = 0) -> Call:
    """Make the rest of the test a call by a tenant's credential."""
    caller = Caller("test", tenant.organisation_id, project_id, ALL_PERMISSIONS)
    call = Call("test", caller, request_bytes=request_bytes)
    enter(call)
    return call


@pytest.fixture
def guarded(database: Database) -> Projects:
    """Projects of a process that authenticates."""
    database.settings = database.settings.model_copy(update={"authentication": "on"})
    return Projects(database)


# -- Authentication is off ----------------------------------------------------------------------


async def test_without_authentication_everybody_sees_every_project(database: Database) -> None:
    projects, other = Projects(database), await insert_project(database.hot)
    assert await projects.resolve("") == DEFAULT_PROJECT_ID
    assert await projects.visible("") == [DEFAULT_PROJECT_ID]
    assert await projects.resolve(str(other)) == other


async def test_a_project_is_looked_up_once(database: Database) -> None:
    projects, other = Projects(database), await insert_project(database.hot)
    with lookups() as seen:
        assert await projects.resolve(str(other)) == other
        assert await projects.resolve(str(other).upper()) == other
        assert await projects.visible(str(other)) == [other]
    assert seen == [[other]]


async def test_a_project_that_is_not_there_is_looked_up_each_time(database: Database) -> None:
    projects = Projects(database)
    unknown = uuid4()
    for text in (str(unknown), str(unknown), "no id"):
        with pytest.raises(NotFound) as caught:
            await projects.resolve(text)
        assert caught.value.reason == "PROJECT_NOT_FOUND"
        assert caught.value.metadata == {"project": text}
    await database.hot.execute(
        "INSERT INTO taskforge.projects (id, organisation_id, name)"
        " SELECT $1, organisation_id, 'late' FROM taskforge.projects",
        unknown,
    )
    assert await projects.visible(str(unknown)) == [unknown]


# -- Authentication is on -----------------------------------------------------------------------


async def test_a_credential_of_an_organisation_sees_all_its_projects_and_no_other(
    guarded: Projects, database: Database
) -> None:
    own, foreign = await insert_tenant(database.hot, "own"), await insert_tenant(database.hot, "f")
    call_as(own)
    assert await guarded.resolve("") == own.project_id
    assert await guarded.resolve(str(own.other_project_id)) == own.other_project_id
    assert await guarded.visible("") == sorted([own.project_id, own.other_project_id])
    assert await guarded.sees(own.project_id)
    assert not await guarded.sees(foreign.project_id)
    with pytest.raises(NotFound):
        await guarded.resolve(str(foreign.project_id))


async def test_a_credential_of_a_project_sees_that_one_alone(
    guarded: Projects, database: Database
) -> None:
    own = await insert_tenant(database.hot, "own")
    call_as(own, own.other_project_id)
    assert await guarded.resolve("") == own.other_project_id
    assert await guarded.visible("") == [own.other_project_id]
    with pytest.raises(NotFound):
        await guarded.resolve(str(own.project_id))


async def test_a_foreign_project_takes_the_same_way_as_one_that_does_not_exist(
    guarded: Projects, database: Database
) -> None:
    own, foreign = await insert_tenant(database.hot, "own"), await insert_tenant(database.hot, "f")
    call_as(foreign)
    await guarded.resolve(str(foreign.project_id))
    for bound in (None, own.project_id):
        call_as(own, bound)
        for sought in (foreign.project_id, uuid4()):
            with lookups() as seen:
                for _ in range(2):
                    with pytest.raises(NotFound) as caught:
                        await guarded.resolve(str(sought))
                    assert caught.value.metadata == {"project": str(sought)}
            assert seen == [[sought], [sought]]


async def test_what_runs_outside_of_any_call_sees_nothing(guarded: Projects) -> None:
    with pytest.raises(NotFound):
        await guarded.resolve(str(DEFAULT_PROJECT_ID))
    with pytest.raises(InvalidArgument):
        await guarded.resolve("")
    assert await guarded.visible("") == []


async def test_without_a_project_default_the_call_must_name_one(
    guarded: Projects, database: Database
) -> None:
    own = await insert_tenant(database.hot, "own")
    await database.hot.execute(
        "UPDATE taskforge.projects SET name = 'main' WHERE id = $1", own.project_id
    )
    call_as(own)
    with pytest.raises(InvalidArgument) as refused:
        await guarded.resolve("")
    assert [violation.field for violation in refused.value.field_violations] == ["project_id"]


async def test_a_disabled_project_is_refused_and_left_out_of_lists_until_it_is_enabled(
    guarded: Projects, database: Database
) -> None:
    own = await insert_tenant(database.hot, "own")
    call = call_as(own)
    await guarded.resolve(str(own.project_id))
    assert guarded.objection(call) is None
    change = "UPDATE taskforge.projects SET disabled_at = {} WHERE id = $1"
    await database.hot.execute(change.format("now()"), own.project_id)
    await guarded.refresh()
    with pytest.raises(FailedPrecondition, match="PROJECT_DISABLED"):
        await guarded.resolve(str(own.project_id))
    assert guarded.objection(call) is not None
    assert await guarded.visible("") == [own.other_project_id]
    await database.hot.execute(change.format("NULL"), own.project_id)
    await guarded.refresh()
    assert await guarded.resolve(str(own.project_id)) == own.project_id
    assert guarded.objection(call) is None


async def test_a_request_may_be_as_large_as_its_project_allows_and_no_larger(
    guarded: Projects, database: Database
) -> None:
    own = await insert_tenant(database.hot, "own")
    await database.hot.execute(
        "UPDATE taskforge.projects SET max_request_bytes = 2000 WHERE id = $1", own.project_id
    )
    call_as(own, request_bytes=2000)
    await guarded.resolve("")
    call_as(own, request_bytes=2001)
    with pytest.raises(ResourceExhausted) as refused:
        await guarded.resolve("")
    assert refused.value.metadata == {"limit": "2000", "request_bytes": "2001"}
    # The other project has no such limit.
    assert await guarded.resolve(str(own.other_project_id)) == own.other_project_id
