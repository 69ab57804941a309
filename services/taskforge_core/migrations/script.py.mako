"""${message}."""

from taskforge_core.migrations.scripts import run_sql_beside

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Run the script beside this file."""
    run_sql_beside(__file__)
