"""How requests name a queue: by its id, or by its name within the project.

The two cannot be mistaken for each other, because no queue may be named like an id.
"""

import re
from uuid import UUID

_ID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def parse_queue_id(queue: str) -> UUID | None:
    """The id, if `queue` is written as one (8-4-4-4-12 hex digits); None if it is a name."""
    return UUID(queue) if _ID.fullmatch(queue) else None
