"""Names of queues and tenants: which are allowed beyond the contract's pattern."""

from taskforge_core.errors import invalid_field
from taskforge_core.queue_names import parse_queue_id


def check_name(name: str) -> str:
    """The name, if a thing that has an id too may bear it.

    Raises:
        InvalidArgument: It looks like a UUID, which would be taken for an id (`INVALID_REQUEST`).
    """
    if parse_queue_id(name) is not None:
        raise invalid_field(
            "name", "must not look like a UUID, since things are named by their ids too"
        )
    return name
