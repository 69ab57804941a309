"""What a pause makes of a queue."""

from datetime import UTC, datetime, timedelta

import pytest

from queue_service.pausing import OPEN, paused, paused_until
from taskforge_core.tables import queues

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SOON = NOW + timedelta(microseconds=1)


def test_a_pause_takes_no_jobs_and_lasts_until_somebody_ends_it() -> None:
    assert paused() == {"is_active": False, "accepts_jobs": False, "resume_at": None}


@pytest.mark.parametrize("keep_accepting", [False, True])
def test_a_pause_with_a_coming_end_lasts_until_then(keep_accepting: bool) -> None:
    assert paused_until(NOW, SOON, keep_accepting=keep_accepting) == {
        "is_active": False,
        "accepts_jobs": keep_accepting,
        "resume_at": SOON,
    }


@pytest.mark.parametrize("ago", [timedelta(0), timedelta(microseconds=1), timedelta(days=365)])
def test_a_pause_whose_end_has_passed_is_none(ago: timedelta) -> None:
    assert paused_until(NOW, NOW - ago, keep_accepting=True) == OPEN


def test_every_state_sets_the_same_columns() -> None:
    assert OPEN.keys() == paused().keys()
    assert set(queues.columns.keys()) >= OPEN.keys()
