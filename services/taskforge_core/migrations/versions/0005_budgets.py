"""What holds a project's quotas: its budget of new jobs, and its open streams by an index."""

from taskforge_core.migrations.scripts import run_sql_beside

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Run the script beside this file."""
    run_sql_beside(__file__)
