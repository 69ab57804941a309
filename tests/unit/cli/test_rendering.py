from datetime import UTC, datetime, timedelta, timezone

import pytest

from taskforge_cli.rendering import format_duration, format_time


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0904, "90 ms"),
        (1.5, "1.5 s"),
        (59.94, "59.9 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400 * 3 + 3600 * 4, "3 d 4 h"),
        (86400 * 7, "7 d"),
    ],
)
def test_a_duration_has_its_fitting_unit(seconds: float, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


def test_a_time_is_shown_in_utc_to_the_millisecond() -> None:
    time = datetime(2026, 11, 24, 6, 10, 41, 123999, timezone(timedelta(hours=1)))
    assert format_time(time) == "2026-11-24 05:10:41.123 UTC"
    assert format_time(datetime(2026, 11, 24, tzinfo=UTC)) == "2026-11-24 00:00:00.000 UTC"
    assert format_time(None) == ""
