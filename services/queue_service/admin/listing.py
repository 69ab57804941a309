"""Pages of AdminService's lists: by name, or the newest first.

Each function takes the rows that the list is about, and returns one page of them with the token of
the next; it raises InvalidArgument (`INVALID_PAGE_TOKEN`) for a token of another list.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from google.protobuf.message import Message
from sqlalchemy import RowMapping, Select, Table, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from queue_service.admin.conversion import entry_message
from taskforge.v1 import admin_pb2
from taskforge_core.paging import (
    coerce_page_size,
    decode_page_token,
    encode_page_token,
    filters_digest,
    page_length,
)
from taskforge_core.tables import api_keys, audit_log

Rows = Select[Any]
Page = tuple[Sequence[RowMapping], str]

_HIGHEST_ID = 2**63 - 1


async def page_by_name(connection: AsyncConnection, request: Any, table: Table, rows: Rows) -> Page:
    """By name, then id."""
    after = decode_page_token(request.page_token, _call(request), filters_digest(request), str)
    if after is not None:
        rows = rows.where(tuple_(table.c.name, table.c.id) > after)
    found, more = await _fetch(connection, request, rows.order_by(table.c.name, table.c.id))
    return found, _token(request, found[-1]["name"], found[-1]["id"]) if more else ""


async def page_of_keys(connection: AsyncConnection, request: Any, rows: Rows) -> Page:
    """API keys, the newest first."""
    before = decode_page_token(
        request.page_token, _call(request), filters_digest(request), datetime
    )
    created_at, key_id = api_keys.c.created_at, api_keys.c.id
    if before is not None:
        rows = rows.where(tuple_(created_at, key_id) < before)
    rows = rows.order_by(created_at.desc(), key_id.desc())
    found, more = await _fetch(connection, request, rows)
    return found, _token(request, found[-1]["created_at"], found[-1]["id"]) if more else ""


async def page_of_entries(
    connection: AsyncConnection, request: Any, rows: Rows
) -> tuple[Sequence[admin_pb2.AuditEntry], str]:
    """Entries of the audit log, the latest first; their ids are numbers.

    They alone can be too large for a message together, as they tell what somebody wrote.
    """
    before = decode_page_token(
        request.page_token, _call(request), filters_digest(request), datetime
    )
    if before is not None:
        rows = rows.where(audit_log.c.id < min(before[1].int, _HIGHEST_ID))
    found, more = await _fetch(connection, request, rows.order_by(audit_log.c.id.desc()))
    entries = [entry_message(row) for row in found]
    length = page_length(entries, len(entries))
    if not more and length == len(entries):
        return entries, ""
    last = found[length - 1]
    return entries[:length], _token(request, last["at"], UUID(int=last["id"]))


async def _fetch(
    connection: AsyncConnection, request: Any, rows: Rows
) -> tuple[Sequence[RowMapping], bool]:
    """As many as the request asks for, and whether more follow."""
    size = coerce_page_size(request.page_size)
    found = (await connection.execute(rows.limit(size + 1))).mappings().all()
    return found[:size], len(found) > size


def _token(request: Message, value: str | datetime, item_id: UUID) -> str:
    return encode_page_token(_call(request), filters_digest(request), value, item_id)


def _call(request: Message) -> str:
    return request.DESCRIPTOR.name.removesuffix("Request")
