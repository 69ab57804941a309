"""How many queues a project may have."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from taskforge_core.errors import ResourceExhausted
from taskforge_core.tables import projects, queues


async def take_room(connection: AsyncConnection, project_id: UUID) -> None:
    """Let one more queue be made in this transaction; the project's other creations wait for it.

    Raises:
        ResourceExhausted: The project has as many as it may (`TOO_MANY_QUEUES`).
    """
    # Weak enough for what only refers to the project, such as a queue that is being inserted.
    quota = select(projects.c.max_queues).where(projects.c.id == project_id)
    limit: int | None = await connection.scalar(quota.with_for_update(key_share=True))
    if limit is None:
        return
    living = (
        select(func.count())
        .select_from(queues)
        .where(queues.c.project_id == project_id, queues.c.deleted_at.is_(None))
    )
    if (await connection.execute(living)).scalar_one() >= limit:
        raise ResourceExhausted(
            "TOO_MANY_QUEUES",
            f"the project has as many queues as it may: {limit}",
            metadata={"limit": str(limit)},
        )
