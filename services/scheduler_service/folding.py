"""Keeps reading the counts cheap: folds what was appended into what is summed up."""

from typing import Any

import asyncpg

from scheduler_service.queries import fold_deltas


class Folder:
    """Folds deltas of the queues' counts; no reader ever sees another sum because of it."""

    def __init__(self, pool: "asyncpg.Pool[Any]", batch_size: int = 20_000) -> None:
        self._pool = pool
        self._batch_size = batch_size

    async def run_once(self) -> bool:
        """Fold one batch; True if more may wait."""
        return await fold_deltas(self._pool, self._batch_size) >= self._batch_size
