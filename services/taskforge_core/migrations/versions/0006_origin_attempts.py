"""How many attempts a dead-lettered job had, for its way back; audit lists of one project."""

from taskforge_core.migrations.scripts import run_sql_beside

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Run the script beside this file."""
    run_sql_beside(__file__)
