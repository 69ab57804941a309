"""Real processes on real files."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.dev_system import DevSystem


@pytest.fixture(scope="session")
def dev() -> Iterator[DevSystem]:
    """A running `taskforge dev`, for tests that leave it running; each makes queues of its own."""
    folder = Path(tempfile.mkdtemp(prefix="taskforge-test-"))
    folder.chmod(0o755)
    try:
        with DevSystem(folder / "data") as system:
            yield system
    finally:
        shutil.rmtree(folder, ignore_errors=True)
