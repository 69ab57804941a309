"""The systems that are measured beside ours, and the two limits."""

from dataclasses import dataclass
from enum import Enum

from tests.benchmarks.peers.installing import FOLDER, CannotInstall, Toolchain

from taskforge_cli.processes import python_command


class Runtime(Enum):
    """What runs a load script."""

    OURS = "the Python that runs TaskForge"
    PYTHON = "the peers' own Python"
    NODE = "Node.js"


@dataclass(frozen=True, slots=True)
class System:
    """A system with a load script."""

    name: str
    """What tables call it."""
    folder: str
    """Where its script is."""
    runtime: Runtime
    has_database: bool = True
    """It works on a database of its own; else on our job_service."""

    def command(self, toolchain: Toolchain) -> list[str]:
        """What starts its script.

        Raises:
            CannotInstall: What runs it is not there.
        """
        module = f"{__package__}.{self.folder}.load"
        match self.runtime:
            case Runtime.OURS:
                return python_command(module)
            case Runtime.PYTHON:
                return [_need(toolchain.python), "-m", module]
            case Runtime.NODE:
                return [_need(toolchain.node), str(FOLDER / self.folder / "load.mjs")]


PGQUEUER = System("pgqueuer", "pgqueuer", Runtime.PYTHON)
GRAPHILE_WORKER = System("graphile-worker", "graphile_worker", Runtime.NODE)
PG_BOSS = System("pg-boss", "pg_boss", Runtime.NODE)
RAW_SQL = System("raw SQL cycle", "raw_sql", Runtime.OURS)
EMPTY_CALL = System("empty call", "empty_call", Runtime.OURS, has_database=False)


def _need(program: str | CannotInstall) -> str:
    if isinstance(program, CannotInstall):
        raise program
    return program
