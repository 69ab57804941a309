"""`taskforge admin bootstrap`: what it asks of the database, and what it prints."""

from unittest.mock import AsyncMock

import pytest
from tests.unit.cli.building import Taskforge

from taskforge_core.bootstrapping import CannotBootstrap, FirstKey

TEXT = "tfk_0192a000000070008000000000000fee_secret"


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch) -> AsyncMock:
    """What goes to the database."""
    made = AsyncMock(return_value=FirstKey("acme", "main", TEXT))
    monkeypatch.setattr("taskforge_core.bootstrapping.bootstrap", made)
    return made


def test_bootstrap_prints_the_key_alone(bootstrap: AsyncMock, taskforge: Taskforge) -> None:
    url = "postgresql://somewhere/db"
    outcome = taskforge("admin", "bootstrap", "--database-url", url, "--again")
    assert outcome.out == f"{TEXT}\n"
    assert outcome.err == (
        "Made a key of the operator acme, whose project is main. It cannot be shown again:\n"
    )
    bootstrap.assert_awaited_once_with(url, organisation=None, project="default", again=True)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CannotBootstrap("an operator has a key already"), 1, "an operator has a key already"),
        (ConnectionRefusedError("refused"), 3, "cannot reach the database: refused"),
    ],
)
def test_a_bootstrap_that_fails_is_one_line(
    bootstrap: AsyncMock, taskforge: Taskforge, error: Exception, code: int, line: str
) -> None:
    bootstrap.side_effect = error
    outcome = taskforge("admin", "bootstrap", "--database-url", "postgresql://somewhere/db")
    assert (outcome.code, outcome.out, outcome.err) == (code, "", f"error: {line}\n")


def test_bootstrap_needs_a_database(
    bootstrap: AsyncMock, taskforge: Taskforge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TASKFORGE_DATABASE_URL", raising=False)
    outcome = taskforge("admin", "bootstrap")
    assert outcome.code == 2
    assert "TASKFORGE_DATABASE_URL is not set" in outcome.err
    bootstrap.assert_not_awaited()
