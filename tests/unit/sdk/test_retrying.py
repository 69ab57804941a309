"""When a call is repeated, and after how long."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskforge_sdk import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    InvalidRequest,
    LeaseLost,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
    RetryPolicy,
    ServerError,
    TaskForgeError,
    Unauthenticated,
    Unavailable,
)
from taskforge_sdk.retrying import Attempts

POLICY = RetryPolicy(initial=0.1, multiplier=2, maximum=1.0, attempt_timeout=10)


def wait(error: TaskForgeError, **changes: object) -> float | None:
    arguments = {"repeatable": True, "failures": 1, "time_left": 30.0, "chance": 0.0} | changes
    return POLICY.wait_before_repeating(error, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Unavailable, DeadlineExceeded])
def test_a_call_without_an_answer_is_repeated_if_it_may_be(kind: type[TaskForgeError]) -> None:
    assert wait(kind("silence")) == 0.05
    assert wait(kind("silence"), repeatable=False) is None


@pytest.mark.parametrize(
    "kind",
    [
        InvalidRequest, Unauthenticated, PermissionDenied, NotFound, AlreadyExists,
        PreconditionFailed, Aborted, LeaseLost, ResourceExhausted, ServerError, TaskForgeError,
    ],
)  # fmt: skip
def test_an_answer_is_never_asked_for_again(kind: type[TaskForgeError]) -> None:
    assert wait(kind("no")) is None


def test_no_repetition_begins_after_the_timeout() -> None:
    assert wait(Unavailable("silence"), time_left=0.05) is None
    assert wait(Unavailable("silence"), time_left=0.051) == 0.05
    assert wait(Unavailable("silence"), time_left=-1.0) is None


def test_the_servers_word_is_the_least_that_is_waited() -> None:
    assert wait(Unavailable("busy", retry_after=timedelta(seconds=3))) == 3.0
    assert wait(Unavailable("busy", retry_after=timedelta(milliseconds=1))) == 0.05
    assert wait(Unavailable("busy", retry_after=timedelta(seconds=31))) is None


def test_the_number_of_attempts_can_be_bounded() -> None:
    policy = RetryPolicy(max_attempts=3)
    waits = [
        policy.wait_before_repeating(
            Unavailable("silence"), repeatable=True, failures=failures, time_left=30, chance=0
        )
        for failures in (1, 2, 3)
    ]
    assert [each is None for each in waits] == [False, False, True]


@given(st.integers(min_value=1, max_value=10_000), st.floats(0, 1, exclude_max=True))
def test_the_wait_doubles_up_to_its_maximum_and_half_of_it_is_chance(
    failures: int, chance: float
) -> None:
    longest = min(1.0, 0.1 * 2 ** min(failures - 1, 20))
    backoff = POLICY.backoff(failures, chance)
    assert longest / 2 <= backoff <= longest


def test_one_attempt_of_a_repeatable_call_does_not_use_up_the_whole_timeout() -> None:
    assert POLICY.timeout_of_attempt(repeatable=True, time_left=30) == 10
    assert POLICY.timeout_of_attempt(repeatable=True, time_left=4) == 4
    assert POLICY.timeout_of_attempt(repeatable=False, time_left=30) == 30
    assert RetryPolicy(max_attempts=1).timeout_of_attempt(repeatable=True, time_left=30) == 30


@pytest.mark.parametrize("policy", [POLICY, RetryPolicy(max_attempts=1)])
def test_long_work_has_its_time_in_each_attempt(policy: RetryPolicy) -> None:
    assert Attempts(policy, repeatable=True, timeout=30, seconds=600).timeout() == 600
    patient = Attempts(policy, repeatable=False, timeout=1000, seconds=600)
    assert 990 < patient.timeout() <= 1000


def test_long_work_is_not_begun_again_after_the_timeout() -> None:
    over = Attempts(POLICY, repeatable=True, timeout=1e-9, seconds=600)
    with pytest.raises(Unavailable):
        over.wait_after(Unavailable("silence"))
    in_time = Attempts(POLICY, repeatable=True, timeout=30, seconds=600)
    assert in_time.wait_after(Unavailable("silence")) > 0


def test_attempts_end_with_the_error_that_is_not_to_be_repeated() -> None:
    attempts = Attempts(POLICY, repeatable=True, timeout=30)
    assert 0 < attempts.timeout() <= 10
    assert 0.05 <= attempts.wait_after(Unavailable("silence")) <= 0.1
    assert 0.1 <= attempts.wait_after(Unavailable("silence")) <= 0.2
    with pytest.raises(NotFound, match="gone"):
        attempts.wait_after(NotFound("gone"))
