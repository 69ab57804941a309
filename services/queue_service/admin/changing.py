"""Changes organisations and projects: the fields of a row that are to be others than they are."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping, Table, func, update
from sqlalchemy.ext.asyncio import AsyncConnection


async def change(
    connection: AsyncConnection, table: Table, before: RowMapping, wanted: Mapping[str, Any]
) -> tuple[RowMapping, dict[str, Any]]:
    """Give a locked row the wanted values; do nothing at all where it holds them already.

    Args:
        connection: In whose transaction the row is locked.
        table: Its table, which has `disabled_at` and `updated_at`.
        before: The row.
        wanted: New values by column; `is_enabled` stands for `disabled_at`.

    Returns:
        The row as it is now, and those of the wanted values that it did not have.
    """
    present = {**before, "is_enabled": before["disabled_at"] is None}
    changed = {name: value for name, value in wanted.items() if present[name] != value}
    if not changed:
        return before, {}
    # One moment for both columns; the row is locked, so this statement began after other changes.
    now = func.statement_timestamp()
    columns = dict(changed, updated_at=now)
    if "is_enabled" in columns:
        columns["disabled_at"] = None if columns.pop("is_enabled") else now
    statement = update(table).where(table.c.id == before["id"]).values(**columns).returning(table)
    return (await connection.execute(statement)).mappings().one(), changed
