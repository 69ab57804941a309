"""The schema that everything stands on."""

from taskforge_core.migrations.scripts import run_sql_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run the script beside this file."""
    run_sql_beside(__file__)
