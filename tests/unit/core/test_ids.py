"""Identifiers that ascend whatever the clock does."""

import time
import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskforge_core.ids import DEFAULT_ORGANISATION_ID, DEFAULT_PROJECT_ID, Uuid7Generator, uuid7

MILLISECOND = 1_000_000
"""In nanoseconds."""

SOME_TIME = 1_800_000_000_000 * MILLISECOND

SetClock = Callable[[int], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Stops the clock at a time in nanoseconds since 1970."""

    def stop_at(nanoseconds: int) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: nanoseconds)

    return stop_at


def milliseconds(made: uuid.UUID) -> int:
    return made.int >> 80


def test_version_and_variant_are_those_of_rfc_9562() -> None:
    generator = Uuid7Generator()
    for _ in range(5000):
        made = generator()
        assert made.version == 7
        assert made.variant == uuid.RFC_4122


def test_an_id_begins_with_the_time(set_clock: SetClock) -> None:
    set_clock(SOME_TIME + 999_999)
    assert milliseconds(Uuid7Generator()()) == SOME_TIME // MILLISECOND


def test_ids_of_one_millisecond_ascend(set_clock: SetClock) -> None:
    set_clock(SOME_TIME)
    generator = Uuid7Generator()
    made = [generator() for _ in range(4096)]
    assert made == sorted(set(made))
    assert {milliseconds(each) for each in made} == {SOME_TIME // MILLISECOND}


def test_more_ids_than_a_millisecond_has_borrow_from_the_next(set_clock: SetClock) -> None:
    set_clock(SOME_TIME)
    generator = Uuid7Generator()
    made = [generator() for _ in range(3 * 4096)]
    assert made == sorted(set(made))
    assert milliseconds(made[-1]) == SOME_TIME // MILLISECOND + 2
    assert all(each.version == 7 and each.variant == uuid.RFC_4122 for each in made)


@given(st.lists(st.integers(-60_000, 60_000), min_size=2, max_size=50))
def test_ids_ascend_however_the_clock_steps(steps: list[int]) -> None:
    generator = Uuid7Generator()
    made = []
    with pytest.MonkeyPatch.context() as patch:
        now = SOME_TIME
        for step in steps:
            now += step * MILLISECOND
            patch.setattr(time, "time_ns", lambda now=now: now)
            made.append(generator())
    assert made == sorted(set(made))


def test_after_a_step_back_the_time_is_again_right_once_the_clock_has_caught_up(
    set_clock: SetClock,
) -> None:
    generator = Uuid7Generator()
    set_clock(SOME_TIME)
    generator()
    set_clock(SOME_TIME - 3600 * 1000 * MILLISECOND)
    assert milliseconds(generator()) == SOME_TIME // MILLISECOND
    set_clock(SOME_TIME + MILLISECOND)
    assert milliseconds(generator()) == SOME_TIME // MILLISECOND + 1


def test_two_generators_never_make_the_same_id(set_clock: SetClock) -> None:
    set_clock(SOME_TIME)
    first, second = Uuid7Generator(), Uuid7Generator()
    made = {generator() for _ in range(1000) for generator in (first, second)}
    assert len(made) == 2000


def test_ids_sort_as_text_and_as_bytes_alike() -> None:
    """Postgres compares the bytes, tokens and messages carry the text."""
    made = [uuid7() for _ in range(1000)]
    assert sorted(made, key=str) == made
    assert sorted(made, key=lambda each: each.bytes) == made


def test_the_defaults_are_ids_of_version_7() -> None:
    assert {DEFAULT_ORGANISATION_ID.version, DEFAULT_PROJECT_ID.version} == {7}
