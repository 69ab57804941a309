"""Tenants' state and quotas, API keys, and the record of administrative changes."""

from taskforge_core.migrations.scripts import run_sql_beside

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run the script beside this file."""
    run_sql_beside(__file__)
