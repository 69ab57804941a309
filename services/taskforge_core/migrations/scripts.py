"""How a revision runs the `.sql` file beside it."""

from pathlib import Path
from typing import Any

from alembic import op


def run_sql_beside(revision_file: str) -> None:
    """Execute the script with the revision's name, inside the revision's transaction.

    It goes to Postgres by the simple-query protocol, so it may hold any number of statements.

    Args:
        revision_file: `__file__` of the revision.
    """
    script = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    bind = op.get_bind()
    # SQLAlchemy opens the transaction at its first statement, and the script must run inside it.
    bind.exec_driver_sql("SELECT 1")
    driver: Any = bind.connection.dbapi_connection
    driver.run_async(lambda connection: connection.execute(script))
