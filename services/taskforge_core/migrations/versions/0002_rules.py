"""Limits, dead letters, delays by priority, and pauses that end by themselves."""

from taskforge_core.migrations.scripts import run_sql_beside

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run the script beside this file."""
    run_sql_beside(__file__)
