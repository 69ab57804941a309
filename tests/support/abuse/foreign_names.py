"""Fields that name things, and what somebody else's value and an invented one are for each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from tests.support.abuse.slots import Slot, slots
from tests.support.things import Things

from taskforge_core.tokens import STREAM, decode_token, encode_token, token_head


@dataclass(frozen=True)
class Pair:
    """Two values that nothing may tell apart."""

    foreign: str
    """Names a thing of somebody else."""
    absent: str
    """Looks the same and names nothing."""


Pairs = Callable[[Things, Things], Sequence[Pair]]
"""By the caller's things and somebody else's."""


def _ids(*values: str) -> list[Pair]:
    return [Pair(value, str(uuid4())) for value in values]


def _queue(_own: Things, other: Things) -> list[Pair]:
    return [*_ids(other.queue), Pair(other.queue_name, f"queue-{uuid4().hex}")]


def _tokens(own: Things, other: Things) -> list[Pair]:
    theirs = decode_token(other.token)
    # The caller's own project with somebody else's job and fence: a token that was put together.
    head = token_head(UUID(own.project), STREAM)
    return [
        Pair(
            other.token,
            encode_token(token_head(uuid4(), STREAM), str(uuid4()), theirs.lease_seq),
        ),
        Pair(
            encode_token(head, theirs.job_id, theirs.lease_seq),
            encode_token(head, str(uuid4()), theirs.lease_seq),
        ),
    ]


PAIRS: dict[str, Pairs] = {
    "organisation_id": lambda _, other: _ids(other.organisation),
    "project_id": lambda _, other: _ids(other.project, other.other_project),
    "queue": _queue,
    "queues": _queue,
    "origin_queue": _queue,
    "dead_letter_queue_id": lambda _, other: _ids(other.queue),
    "job_id": lambda _, other: _ids(other.failed_job, other.waiting_job, other.leased_job),
    "session_id": lambda _, other: _ids(other.session),
    "api_key_id": lambda _, other: _ids(other.api_key),
    "lease_token": _tokens,
}
"""By the field's name, wherever it stands."""

NAME_NOTHING = {"worker_id", "request_id", "page_token"}
"""A label, what the caller calls its own call, and what has tests of its own."""


def naming_slots(descriptor: Descriptor) -> Iterator[Slot]:
    """The fields of a request that name things; below a list also those of a second item."""
    for slot in slots(descriptor):
        if slot.field.name in PAIRS:
            yield from slot.places()


def naming(slot: Slot, request: Message, value: str) -> Message:
    """The request with that value in the field, as its only one."""
    return slot.filled(request, [value] if slot.field.is_repeated else value)
