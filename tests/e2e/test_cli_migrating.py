"""`taskforge migrate --runtime-role`: what the owner of a database runs for the services' role."""

import signal
import subprocess

from tests.support.dev_system import Command, command_line, environment
from tests.support.processes import PATIENCE
from tests.support.runtime_roles import as_role, role


def _migrate(database_url: str, runtime_role: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line("migrate", "--database-url", database_url, "--runtime-role", runtime_role),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
        check=False,
    )


async def test_a_database_is_migrated_for_a_role_that_the_services_run_as(
    empty_database_url: str,
) -> None:
    async with role(empty_database_url) as name:
        migrated = _migrate(empty_database_url, name)
        assert (migrated.returncode, migrated.stderr.count("error")) == (0, 0)
        assert migrated.stdout.endswith(f"\nThe services may run as {name}.\n")
        with Command(
            "serve", "scheduler", "--database-url", as_role(empty_database_url, name)
        ) as scheduler:
            scheduler.until_says("leading")
            assert scheduler.stop(signal.SIGTERM) == 0
    refused = _migrate(empty_database_url, name)
    assert refused.returncode == 1
    last_line = refused.stderr.splitlines()[-1]
    assert last_line.startswith(f"error: the database is migrated, but there is no role {name}")
