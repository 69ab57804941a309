"""Which queue gets the failed jobs of which: no queue's failed jobs may come back to itself.

Whoever changes that, or deletes a queue, first takes the project's turn and then looks, so that no
two calls can each see the state before the other. Call these in one transaction.
"""

from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from queue_service.finding import find_queue
from queue_service.queries import find_dead_letter_user, leads_to, lock_dead_letters
from taskforge_core.errors import FailedPrecondition, PreconditionViolation


async def take_turn(connection: AsyncConnection, project_id: UUID) -> None:
    """Wait until nobody else changes the project's dead-letter queues, and keep others from it.

    Take it before any row is locked.
    """
    await lock_dead_letters(connection, project_id)


async def check_exists(connection: AsyncConnection, project_id: UUID, target_id: UUID) -> None:
    """Let a dead-letter queue pass if it is there; it stays, since deleting takes the turn too.

    Raises:
        NotFound: The project has no such queue, or it was deleted (`QUEUE_NOT_FOUND`).
    """
    await find_queue(connection, project_id, str(target_id))


async def check_no_cycle(connection: AsyncConnection, queue: RowMapping, target_id: UUID) -> None:
    """Let a dead-letter queue pass if its own failed jobs never come to this queue.

    Raises:
        FailedPrecondition: They do, or it is the queue itself (`DEAD_LETTER_CYCLE`).
    """
    if not await leads_to(connection, queue["project_id"], target_id, queue["id"]):
        return
    name = queue["name"]
    message = f"the dead-letter queue {target_id} would lead back to the queue {name}"
    raise FailedPrecondition(
        "DEAD_LETTER_CYCLE",
        message,
        metadata={"queue": name, "dead_letter_queue": str(target_id)},
        precondition=PreconditionViolation("QUEUE_STATE", f"queues/{target_id}", message),
    )


async def check_unused(connection: AsyncConnection, queue: RowMapping) -> None:
    """Let a queue go if no other names it as its dead-letter queue.

    Raises:
        FailedPrecondition: One does (`QUEUE_IN_USE`).
    """
    user = await find_dead_letter_user(connection, queue["project_id"], queue["id"])
    if user is None:
        return
    name = queue["name"]
    message = f"the queue {name} is the dead-letter queue of {user}"
    raise FailedPrecondition(
        "QUEUE_IN_USE",
        message,
        metadata={"queue": name, "used_by": user},
        precondition=PreconditionViolation("QUEUE_STATE", f"queues/{queue['id']}", message),
    )
