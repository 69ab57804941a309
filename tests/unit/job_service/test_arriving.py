"""When leases have surely arrived, as far as the order of a stream and its worker's lists tell."""

from hypothesis import given
from hypothesis import strategies as st

from job_service.arriving import SLOWEST_BYTES_PER_SECOND, Arrivals, transit_seconds
from job_service.demanding import LARGEST_MESSAGE_BYTES
from job_service.streaming import WRITE_SECONDS

SECOND = SLOWEST_BYTES_PER_SECOND
"""The bytes that a link carries in one, at least."""


def sent(*leases: tuple[float, int]) -> Arrivals:
    """Leases 1, 2, … that were sent at these moments, with so many bytes."""
    arrivals = Arrivals()
    for lease_seq, (moment, size) in enumerate(leases, start=1):
        arrivals.sent(lease_seq, size, moment)
    return arrivals


def test_a_lease_may_still_be_behind_what_was_sent_before_it() -> None:
    """In the buffers of a link that is as slow as it may be."""
    arrivals = sent((90, 2 * SECOND), (91, 3 * SECOND), (99, SECOND))
    assert arrivals.moments() == {1: 92, 2: 95, 3: 100}


def test_when_one_is_known_all_that_were_sent_before_it_have_arrived() -> None:
    arrivals = sent((90, SECOND), (90, SECOND), (90, SECOND))
    arrivals.confirm(2, 90.5)
    assert arrivals.moments() == {1: 90.5, 2: 90.5, 3: 91.5}


def test_what_is_behind_one_that_came_late_comes_later_still() -> None:
    """The link is as slow as that, or its worker reads so slowly."""
    arrivals = sent((90, SECOND), (90, SECOND), (90, SECOND))
    arrivals.confirm(1, 120)
    assert arrivals.moments() == {1: 120, 2: 121, 3: 122}


def test_a_lease_is_confirmed_once() -> None:
    arrivals = sent((90, SECOND), (90, SECOND))
    arrivals.confirm(1, 91)
    arrivals.confirm(1, 99)
    arrivals.confirm(7, 99)
    assert arrivals.moments() == {1: 91, 2: 92}


def test_what_is_held_no_longer_is_forgotten() -> None:
    arrivals = sent((90, SECOND), (90, SECOND), (90, SECOND))
    arrivals.confirm(1, 90)
    arrivals.forget(1)
    arrivals.forget(2)
    arrivals.forget(2)
    assert arrivals.moments() == {3: 91}


def test_a_link_that_is_not_too_slow_for_a_write_is_not_too_slow_for_a_lease() -> None:
    assert transit_seconds(LARGEST_MESSAGE_BYTES) >= WRITE_SECONDS


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.integers(0, 5 * SECOND), st.booleans(), st.floats(0, 5)),
        max_size=12,
    )
)
def test_nothing_is_expected_before_it_can_have_come(
    leases: list[tuple[float, int, bool, float]],
) -> None:
    """A link as slow as it may be, and a worker that shows some of what it got, and when it likes:
    each lease comes by the moment at which it is expected."""
    arrivals = Arrivals()
    sending = coming = 0.0
    came: dict[int, float] = {}
    shown: list[tuple[float, int]] = []
    for lease_seq, (pause, size, is_shown, delay) in enumerate(leases, start=1):
        sending += pause
        coming = max(coming, sending) + size / SECOND
        came[lease_seq] = coming
        arrivals.sent(lease_seq, size, sending)
        if is_shown:
            shown.append((coming + delay, lease_seq))
    for moment, lease_seq in sorted(shown):
        arrivals.confirm(lease_seq, moment)
    expected = arrivals.moments()
    for lease_seq, moment in came.items():
        assert expected[lease_seq] > moment - 0.001
