"""How many projects an organisation may have."""

from taskforge_core.migrations.scripts import run_sql_beside

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run the script beside this file."""
    run_sql_beside(__file__)
