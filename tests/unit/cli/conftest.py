"""The command over a client whose answers the test writes."""

from typing import Any
from unittest.mock import create_autospec

import pytest
from tests.unit.cli.building import Outcome, Taskforge

from taskforge_cli import application, connecting
from taskforge_sdk import BlockingClient


@pytest.fixture(autouse=True)
def _logs_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that runs in this process must not set up the logs of the tests behind it."""
    monkeypatch.setattr("taskforge_core.logs.configure_logging", lambda *_: None)


@pytest.fixture
def taskforge(capsys: pytest.CaptureFixture[str]) -> Taskforge:
    """Runs one command line in this process."""

    def run(*arguments: str) -> Outcome:
        code = application.run(arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The client that commands get; its calls have the signatures of the real one."""
    stub = create_autospec(BlockingClient, instance=True)
    stub.__enter__.return_value = stub
    monkeypatch.setattr(connecting, "make_client", lambda *_: stub)
    return stub
