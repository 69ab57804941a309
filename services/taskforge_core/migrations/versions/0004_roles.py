"""What the scheduler does to tables, for a role that does not own them."""

from taskforge_core.migrations.scripts import run_sql_beside

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run the script beside this file."""
    run_sql_beside(__file__)
