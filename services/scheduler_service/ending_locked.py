"""Ends leases that a pass has locked, whichever projects they belong to."""

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from asyncpg import Record

from taskforge_core.ending import EndedLease, LeaseKey, end_leases
from taskforge_core.queries import Executor
from taskforge_core.retrying import Ending

_LEASES_A_STATEMENT = 2000
"""Keeps each statement far below its time limit, however many leases a session holds."""


async def end_locked(
    executor: Executor, leases: Iterable[Record], ending: Ending
) -> list[EndedLease]:
    """End all of them alike, nobody having asked for an answer.

    Args:
        executor: A connection in the transaction that has locked them.
        leases: Rows with `project_id, id, lease_seq`.
        ending: How all these attempts ended.
    """
    of_project: dict[UUID, list[LeaseKey]] = defaultdict(list)
    for lease in leases:
        of_project[lease["project_id"]].append((lease["id"], lease["lease_seq"]))
    ended: list[EndedLease] = []
    for project_id, keys in of_project.items():
        for start in range(0, len(keys), _LEASES_A_STATEMENT):
            part = keys[start : start + _LEASES_A_STATEMENT]
            ended += await end_leases(
                executor, project_id, dict.fromkeys(part, ending), answered=False
            )
    return ended
