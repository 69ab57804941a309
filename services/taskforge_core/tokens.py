"""Lease tokens: opaque to clients, but made of what the server needs to find the lease.

A token holds the project and the job (their ids), the lease's sequence number, which is the fence,
and whether it went out on a stream, so that a replica that settles the job without having that
stream knows that another one counts it. The replica itself is not named: a session takes its leases
along when it goes to another one, which must call them by the same tokens. It is no secret: it is
checked against the caller's projects like any id.
"""

import re
from dataclasses import dataclass
from uuid import UUID

from taskforge_core.errors import InvalidArgument

_TOKEN = re.compile(
    r"([0-9a-f]{32})([0-9a-f]{8})"
    r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})([0-9a-f]{1,15})"
)

STREAM = "00000001"
"""The tag of leases that went out on a stream: the replica that has it counts them in memory."""

NO_STREAM = "00000000"
"""The tag of leases that went out without a stream: nobody counts them in memory."""


@dataclass(slots=True)
class LeaseToken:
    """What a token says. Ids are kept as text: they go to SQL and back without being looked at.

    Hot, and so not frozen: that takes four times as long to make.
    """

    project_id: str
    tag: str
    """`STREAM` or `NO_STREAM`; another one means the same as `STREAM`."""
    job_id: str
    lease_seq: int


def token_head(project_id: UUID, tag: str) -> str:
    """The part that all tokens of one project and tag share; give it to `encode_token`."""
    return f"{project_id.hex}{tag}"


def encode_token(head: str, job_id: str, lease_seq: int) -> str:
    """The token of one lease. `job_id` is a UUID in its usual text form."""
    return f"{head}{job_id}{lease_seq:x}"


def decode_token(text: str) -> LeaseToken:
    """What a token says.

    Raises:
        InvalidArgument: The text is no token of this system (`INVALID_LEASE_TOKEN`).
    """
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise InvalidArgument("INVALID_LEASE_TOKEN", "this is not a lease token")
    project_id, tag, job_id, lease_seq = match.groups()
    return LeaseToken(project_id, tag, job_id, int(lease_seq, 16))
