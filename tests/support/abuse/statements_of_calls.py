"""Which statements calls run: two that must not differ in time must not differ in these."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from asyncpg import Connection
from asyncpg.prepared_stmt import PreparedStatement

from taskforge_core.callers import current_call

_OF_POOLS = "_execute"
_PREPARED = "_PreparedStatement__do_execute"


@contextmanager
def statements_by_request() -> Iterator[dict[str, list[str]]]:
    """The texts of the statements of each call that runs inside, by its `x-request-id`."""
    seen: dict[str, list[str]] = defaultdict(list)
    executes, does = getattr(Connection, _OF_POOLS), getattr(PreparedStatement, _PREPARED)

    async def execute(self: Any, query: str, *args: Any, **options: Any) -> Any:
        seen[current_call().request_id].append(query)
        return await executes(self, query, *args, **options)

    async def do(self: Any, *args: Any) -> Any:
        seen[current_call().request_id].append(self.get_query())
        return await does(self, *args)

    with (
        patch.object(Connection, _OF_POOLS, execute),
        patch.object(PreparedStatement, _PREPARED, do),
    ):
        yield seen
