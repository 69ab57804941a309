"""The hot statements that two services use: one a file, each a function of the same name.

`Statements` reads a package's `*.sql`; the functions here and in the services give them types.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Protocol
from uuid import UUID

from asyncpg import Record

_PART = re.compile(r"^-- part: (\w+)$", re.MULTILINE)


class Executor(Protocol):
    """What a statement runs on: a connection, one taken from a pool, or the pool itself."""

    async def fetch(self, query: str, *args: Any) -> list[Record]:
        """All rows of the statement's answer."""


class Statements:
    """The texts of a package's `.sql` files by name, read once when the package is imported.

    What several statements have in common stands in its folder `parts`; the line `-- part: NAME`
    is where it belongs.
    """

    def __init__(self, package: str) -> None:
        folder = files(package)
        parts = _texts(folder / "parts") if (folder / "parts").is_dir() else {}
        self._texts = {
            name: _PART.sub(lambda line: parts[line[1]], text)
            for name, text in _texts(folder).items()
        }

    def __getitem__(self, name: str) -> str:
        return self._texts[name]


def _texts(folder: Traversable) -> dict[str, str]:
    return {
        entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    }


_statements = Statements(__name__)


async def lock_leases(
    executor: Executor, project_id: UUID, ids: Sequence[str], lease_seqs: Sequence[int]
) -> list[Record]:
    """See `lock_leases.sql`. Give `ids` ascending: it is the order in which rows are locked."""
    return await executor.fetch(_statements["lock_leases"], project_id, ids, lease_seqs)


async def finish_jobs(
    executor: Executor,
    project_id: UUID,
    ids: Sequence[str],
    lease_seqs: Sequence[int],
    statuses: Sequence[int],
    results: Sequence[str | None],
    failures: Sequence[str | None],
    *,
    answered: bool,
) -> list[Record]:
    """See `finish_jobs.sql`.

    Returns `queue_id, session_id, status, places` of what was ended; `places` are where the jobs
    stand in `ids`, counted from 1.
    """
    return await executor.fetch(
        _statements["finish_jobs"],
        project_id,
        ids,
        lease_seqs,
        statuses,
        results,
        failures,
        answered,
    )


async def return_jobs(
    executor: Executor,
    project_id: UUID,
    ids: Sequence[str],
    lease_seqs: Sequence[int],
    delays: Sequence[timedelta],
    uses_attempt: Sequence[bool],
    undelivered: Sequence[bool],
    failures: Sequence[str | None],
    *,
    answered: bool,
) -> list[Record]:
    """See `return_jobs.sql`. Returns `id, lease_seq, queue_id, status` of what waits again."""
    return await executor.fetch(
        _statements["return_jobs"],
        project_id,
        ids,
        lease_seqs,
        delays,
        uses_attempt,
        undelivered,
        failures,
        answered,
    )


async def dead_letter_jobs(
    executor: Executor, project_id: UUID, ids: Sequence[str], new_ids: Sequence[UUID]
) -> list[Record]:
    """See `dead_letter_jobs.sql`. Returns `id, target_id` of each job that was dead-lettered."""
    return await executor.fetch(_statements["dead_letter_jobs"], project_id, ids, new_ids)


async def cancel_waiting_jobs(
    executor: Executor, project_id: UUID, ids: Sequence[str]
) -> list[Record]:
    """See `cancel_waiting_jobs.sql`. Give `ids` ascending. Returns `id, queue_id`."""
    return await executor.fetch(_statements["cancel_waiting_jobs"], project_id, ids)


async def find_api_keys(
    executor: Executor, ids: Sequence[UUID], certificate_names: Sequence[str]
) -> list[Record]:
    """See `find_api_keys.sql`."""
    return await executor.fetch(_statements["find_api_keys"], ids, certificate_names)


async def note_key_use(executor: Executor, ids: Sequence[UUID]) -> None:
    """See `note_key_use.sql`."""
    await executor.fetch(_statements["note_key_use"], ids)


async def find_projects(
    executor: Executor,
    organisation_ids: Sequence[UUID | None],
    project_ids: Sequence[UUID | None],
) -> list[Record]:
    """See `find_projects.sql`. Returns `place` (from 1) and what the project's rules are."""
    return await executor.fetch(_statements["find_projects"], organisation_ids, project_ids)


async def find_organisations(executor: Executor, names: Sequence[str]) -> list[Record]:
    """See `find_organisations.sql`; `names` may be ids. Returns `asked` and what was found."""
    ids = [_as_id(name) for name in names]
    return await executor.fetch(_statements["find_organisations"], names, ids)


def _as_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
