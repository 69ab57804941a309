"""The queues that the model and the real system both have."""

from dataclasses import dataclass


@dataclass
class Queue:
    """A queue of the model."""

    name: str
    priority: int
    retries_later: bool
    limit: int | None = None
    dead_letters: str | None = None
    id: str = ""
    is_active: bool = True


def new_queues() -> dict[str, Queue]:
    return {
        queue.name: queue
        for queue in (
            Queue("emails", 1, retries_later=True, dead_letters="dead"),
            Queue("letters", 5, retries_later=False, limit=2),
            Queue("dead", 0, retries_later=False),
        )
    }
