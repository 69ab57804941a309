"""Messages as large as they may be, and no larger."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.demands import leased

from job_service.demanding import Leased
from job_service.parcelling import TARGET_MESSAGE_BYTES, parcels
from taskforge.v1 import job_service_pb2 as pb

SMALLEST_LIMIT = 65_536
"""What the contract allows as `max_message_bytes` at least."""


def message_bytes(parcel: list[Leased]) -> int:
    """The real message, as it goes out."""
    batch = pb.LeaseBatch(leases=[each.message for each in parcel])
    return pb.LeaseJobsResponse(leases=batch).ByteSize()


def of_sizes(sizes: list[int]) -> list[Leased]:
    return [leased(seq, "x" * size) for seq, size in enumerate(sizes, 1)]


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_the_measure_of_a_lease_is_never_less_than_what_it_adds_to_a_message(size: int) -> None:
    small, large = leased(1), leased(2, "x" * size)
    added = message_bytes([small, large]) - message_bytes([small])
    assert added <= large.size <= added + 8


@pytest.mark.parametrize("size", [0, 100, 127, 128, 16_383, 16_384, 65_536, 1_048_576, 2_000_000])
def test_a_lease_alone_is_never_measured_smaller_than_its_whole_message(size: int) -> None:
    """Else one that just fits would be refused by its receiver. No lease has two million bytes."""
    one = leased(1, "x" * size)
    assert message_bytes([one]) <= one.size


@given(st.lists(st.integers(0, 40_000), max_size=30))
def test_parcels_keep_every_lease_in_order_and_stay_below_the_limit(sizes: list[int]) -> None:
    leases = of_sizes(sizes)
    made = list(parcels(leases, SMALLEST_LIMIT))
    assert [each for parcel in made for each in parcel] == leases
    for parcel in made:
        assert parcel
        assert message_bytes(parcel) <= SMALLEST_LIMIT


@given(st.lists(st.integers(0, 100_000), max_size=20))
def test_no_two_neighbouring_parcels_would_fit_into_one(sizes: list[int]) -> None:
    made = list(parcels(of_sizes(sizes), SMALLEST_LIMIT))
    for first, second in pairwise(made):
        assert sum(each.size for each in first) + second[0].size > SMALLEST_LIMIT


def test_a_message_stays_below_two_mebibytes_whatever_the_receiver_takes() -> None:
    made = list(parcels(of_sizes([300_000] * 20), 16 * 1024 * 1024))
    assert [len(parcel) for parcel in made] == [6, 6, 6, 2]
    assert all(message_bytes(parcel) < TARGET_MESSAGE_BYTES for parcel in made)


def test_a_single_larger_lease_travels_alone() -> None:
    made = list(parcels(of_sizes([10, 3_000_000, 10, 10]), 4 * 1024 * 1024))
    assert [len(parcel) for parcel in made] == [1, 1, 2]


def test_nothing_makes_no_parcel() -> None:
    assert list(parcels([], SMALLEST_LIMIT)) == []
