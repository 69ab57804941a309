"""Splits leases into messages that their receiver can take."""

from collections.abc import Iterator, Sequence

from job_service.demanding import Leased

TARGET_MESSAGE_BYTES = 2 * 1024 * 1024
"""A message stays below this unless a single lease is larger."""


def parcels(leases: Sequence[Leased], max_message_bytes: int) -> Iterator[list[Leased]]:
    """The leases in their order, in as few messages as their sizes allow.

    A lease that is larger than the target gets a message of its own; none is larger than its
    receiver can take, since such jobs are not claimed for it.
    """
    limit = min(TARGET_MESSAGE_BYTES, max_message_bytes)
    parcel: list[Leased] = []
    size = 0
    for leased in leases:
        if parcel and size + leased.size > limit:
            yield parcel
            parcel, size = [], 0
        parcel.append(leased)
        size += leased.size
    if parcel:
        yield parcel
