"""What becomes of a job whose attempt has ended: every ending in every situation."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskforge_core.retrying import (
    UNDELIVERED_FREE_RETURNS,
    Decision,
    Ending,
    Failed,
    FailureRecord,
    Finish,
    LeasedJob,
    LeaseExpired,
    Released,
    RetryRule,
    Return,
    Snoozed,
    Succeeded,
    TimedOut,
    Undelivered,
    decide,
)
from taskforge_core.statuses import FINISHED, TRANSITIONS, AttemptOutcome, JobStatus

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DELAY = timedelta(seconds=7)
RULE = RetryRule(delay=DELAY, max_delay=timedelta(hours=1), multiplier=3, jitter=0)
AFTER = timedelta(seconds=42)

JOB = LeasedJob(
    id="00000000-0000-7000-8000-0000000000aa",
    queue_id=UUID(int=1),
    session_id=UUID(int=2),
    lease_seq=9,
    worker_id="worker",
    attempt_count=1,
    max_attempts=3,
    undelivered_count=0,
    cancel_requested=False,
    started_at=NOW - timedelta(seconds=3),
    now=NOW,
    retry_rule=RULE,
)

SUCCEEDED = Succeeded('{"sum": 3}')
FAILED = Failed("no such file", '{"path": "/x"}')
FATAL = replace(FAILED, retryable=False)
FAILED_WITH_WAIT = replace(FAILED, retry_after=AFTER)
FATAL_WITH_WAIT = replace(FATAL, retry_after=AFTER)
SNOOZED = Snoozed(AFTER)
ENDINGS: tuple[Ending, ...] = (
    SUCCEEDED,
    FAILED,
    FATAL,
    FAILED_WITH_WAIT,
    FATAL_WITH_WAIT,
    Released(),
    SNOOZED,
    TimedOut(),
    LeaseExpired(),
    Undelivered(),
)

FAILURE = FailureRecord(AttemptOutcome.FAILURE, "no such file", '{"path": "/x"}')
TIMED_OUT = FailureRecord(AttemptOutcome.TIMED_OUT, "ran longer than its timeout")
EXPIRED = FailureRecord(AttemptOutcome.LEASE_EXPIRED, "its worker fell silent")
UNDELIVERED = FailureRecord(AttemptOutcome.UNDELIVERED, "its lease reached no worker")

WITH_ATTEMPTS_LEFT: dict[Ending, Decision] = {
    SUCCEEDED: Finish(JobStatus.SUCCEEDED, '{"sum": 3}'),
    FAILED: Return(DELAY, failure=FAILURE),
    FATAL: Finish(JobStatus.FAILED, failure=FAILURE),
    FAILED_WITH_WAIT: Return(AFTER, failure=FAILURE),
    FATAL_WITH_WAIT: Finish(JobStatus.FAILED, failure=FAILURE),
    Released(): Return(uses_attempt=False),
    SNOOZED: Return(AFTER, uses_attempt=False),
    TimedOut(): Return(DELAY, failure=TIMED_OUT),
    LeaseExpired(): Return(failure=EXPIRED),
}
ON_THE_LAST_ATTEMPT: dict[Ending, Decision] = WITH_ATTEMPTS_LEFT | {
    FAILED: Finish(JobStatus.FAILED, failure=FAILURE),
    FAILED_WITH_WAIT: Finish(JobStatus.FAILED, failure=FAILURE),
    TimedOut(): Finish(JobStatus.FAILED, failure=TIMED_OUT),
    LeaseExpired(): Finish(JobStatus.FAILED, failure=EXPIRED),
}
UNDELIVERED_COUNTS = (0, 1, 2, 3, 50)


@pytest.mark.parametrize("undelivered_count", UNDELIVERED_COUNTS)
@pytest.mark.parametrize("ending", WITH_ATTEMPTS_LEFT, ids=repr)
def test_an_ending_with_attempts_left(ending: Ending, undelivered_count: int) -> None:
    job = replace(JOB, undelivered_count=undelivered_count)
    assert decide(job, ending, 0) == WITH_ATTEMPTS_LEFT[ending]


@pytest.mark.parametrize("undelivered_count", UNDELIVERED_COUNTS)
@pytest.mark.parametrize("ending", ON_THE_LAST_ATTEMPT, ids=repr)
def test_an_ending_of_the_last_attempt(ending: Ending, undelivered_count: int) -> None:
    job = replace(JOB, attempt_count=3, undelivered_count=undelivered_count)
    # A returned attempt that was not used is no last one.
    assert decide(job, ending, 0) == ON_THE_LAST_ATTEMPT[ending]


@pytest.mark.parametrize("attempt_count", [1, 3])
@pytest.mark.parametrize("undelivered_count", [0, 1])
def test_the_first_two_leases_that_reach_no_worker_cost_nothing(
    attempt_count: int, undelivered_count: int
) -> None:
    job = replace(JOB, attempt_count=attempt_count, undelivered_count=undelivered_count)
    assert decide(job, Undelivered(), 0) == Return(uses_attempt=False, undelivered=True)


@pytest.mark.parametrize("undelivered_count", [2, 3, 50])
def test_from_the_third_on_they_use_attempts(undelivered_count: int) -> None:
    job = replace(JOB, undelivered_count=undelivered_count)
    assert decide(job, Undelivered(), 0) == Return(undelivered=True, failure=UNDELIVERED)
    last = replace(job, attempt_count=3)
    assert decide(last, Undelivered(), 0) == Finish(JobStatus.FAILED, failure=UNDELIVERED)


@pytest.mark.parametrize("ending", ENDINGS, ids=repr)
@pytest.mark.parametrize("attempt_count", [1, 2, 3])
@pytest.mark.parametrize("undelivered_count", UNDELIVERED_COUNTS)
def test_a_job_whose_cancellation_was_asked_for_ends_cancelled_unless_it_succeeded(
    ending: Ending, attempt_count: int, undelivered_count: int
) -> None:
    job = replace(
        JOB,
        cancel_requested=True,
        attempt_count=attempt_count,
        undelivered_count=undelivered_count,
    )
    decision = decide(job, ending, 0)
    match ending:
        case Succeeded():
            assert decision == Finish(JobStatus.SUCCEEDED, '{"sum": 3}')
        case Failed():
            # What the worker had to say about being interrupted is kept.
            kept = replace(FAILURE, outcome=AttemptOutcome.CANCELLED)
            assert decision == Finish(JobStatus.CANCELLED, failure=kept)
        case _:
            failure = FailureRecord(AttemptOutcome.CANCELLED, "cancelled while it ran")
            assert decision == Finish(JobStatus.CANCELLED, failure=failure)


def all_situations() -> list[tuple[LeasedJob, Ending]]:
    return [
        (
            replace(
                JOB,
                cancel_requested=cancel_requested,
                attempt_count=attempt_count,
                undelivered_count=undelivered_count,
            ),
            ending,
        )
        for ending, cancel_requested, attempt_count, undelivered_count in itertools.product(
            ENDINGS, (False, True), (1, 2, 3), UNDELIVERED_COUNTS
        )
    ]


@pytest.mark.parametrize(("job", "ending"), all_situations(), ids=lambda value: None)
def test_every_decision_is_a_way_of_the_state_machine(job: LeasedJob, ending: Ending) -> None:
    decision = decide(job, ending, 0)
    assert decision.status in TRANSITIONS[JobStatus.PROCESSING]
    assert isinstance(decision, Finish) == (decision.status in FINISHED)


@pytest.mark.parametrize(("job", "ending"), all_situations(), ids=lambda value: None)
def test_an_attempt_that_is_used_without_success_leaves_a_record(
    job: LeasedJob, ending: Ending
) -> None:
    decision = decide(job, ending, 0)
    match decision:
        case Finish(status):
            assert (decision.failure is None) == (status is JobStatus.SUCCEEDED)
        case Return():
            assert (decision.failure is not None) == decision.uses_attempt


@pytest.mark.parametrize("cancel_requested", [False, True])
@pytest.mark.parametrize("ending", ENDINGS, ids=repr)
def test_no_job_is_tried_more_often_than_it_may(ending: Ending, cancel_requested: bool) -> None:
    """However an attempt ends, over and over: the job ends, or attempts were not used."""
    job = replace(JOB, attempt_count=0, cancel_requested=cancel_requested)
    for _ in range(20):
        job = replace(job, attempt_count=job.attempt_count + 1)
        assert job.attempt_count <= job.max_attempts
        decision = decide(job, ending, 0)
        if isinstance(decision, Finish):
            return
        job = replace(
            job,
            attempt_count=job.attempt_count - (not decision.uses_attempt),
            undelivered_count=job.undelivered_count + decision.undelivered,
        )
    assert isinstance(ending, Released | Snoozed)


def test_the_number_of_free_returns_is_what_the_contract_says() -> None:
    assert UNDELIVERED_FREE_RETURNS == 2


# -- Backoff --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 7), (2, 21), (3, 63), (4, 189), (6, 1701), (7, 3600), (100, 3600)]
)
def test_the_wait_grows_by_the_multiplier_up_to_the_longest(attempt: int, seconds: int) -> None:
    assert RULE.wait_after(attempt, 0) == timedelta(seconds=seconds)


@pytest.mark.parametrize("ending", [FAILED, TimedOut()], ids=repr)
@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_retry_waits_as_long_as_its_attempt_number_says(ending: Ending, attempt: int) -> None:
    job = replace(JOB, attempt_count=attempt, max_attempts=10)
    decision = decide(job, ending, 0)
    assert isinstance(decision, Return)
    assert decision.delay == RULE.wait_after(attempt, 0)


def test_a_queue_without_settings_waits_five_seconds_doubled_each_time() -> None:
    assert [RetryRule().wait_after(attempt, 0).total_seconds() for attempt in (1, 2, 3, 4)] == [
        5,
        10,
        20,
        40,
    ]


@pytest.mark.parametrize("ending", [FAILED, TimedOut()], ids=repr)
def test_without_a_delay_a_retry_is_ready_at_once(ending: Ending) -> None:
    job = replace(JOB, retry_rule=replace(RULE, delay=timedelta(0)))
    assert decide(job, ending, 1).status is JobStatus.PENDING


delays = st.timedeltas(timedelta(0), timedelta(days=7))
rules = st.builds(
    RetryRule,
    delay=delays,
    max_delay=delays,
    multiplier=st.floats(1, 100),
    jitter=st.floats(0, 1),
)


@given(rule=rules, attempt=st.integers(1, 100), chance=st.floats(-1, 1))
def test_the_wait_stays_within_its_jitter(rule: RetryRule, attempt: int, chance: float) -> None:
    wait = rule.wait_after(attempt, chance)
    plain = rule.wait_after(attempt, 0)
    rounding = timedelta(microseconds=2)
    assert timedelta(0) <= plain <= rule.max_delay
    assert plain * (1 - rule.jitter) - rounding <= wait <= plain * (1 + rule.jitter) + rounding


@given(rule=rules, attempt=st.integers(1, 99))
def test_a_later_attempt_never_waits_less(rule: RetryRule, attempt: int) -> None:
    assert rule.wait_after(attempt, 0) <= rule.wait_after(attempt + 1, 0)


@given(
    rule=rules,
    attempt_count=st.integers(1, 100),
    more_attempts=st.integers(0, 99),
    undelivered_count=st.integers(0, 200),
    cancel_requested=st.booleans(),
    ending=st.sampled_from(ENDINGS),
    chance=st.floats(-1, 1),
)
def test_a_decision_never_fails_and_never_promises_an_attempt_that_is_not_left(
    rule: RetryRule,
    attempt_count: int,
    more_attempts: int,
    undelivered_count: int,
    cancel_requested: bool,
    ending: Ending,
    chance: float,
) -> None:
    job = replace(
        JOB,
        retry_rule=rule,
        attempt_count=attempt_count,
        max_attempts=attempt_count + more_attempts,
        undelivered_count=undelivered_count,
        cancel_requested=cancel_requested,
    )
    decision = decide(job, ending, chance)
    if isinstance(decision, Return):
        assert decision.delay >= timedelta(0)
        assert not decision.uses_attempt or more_attempts > 0
        assert not cancel_requested
