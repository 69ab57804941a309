"""What a handler can read of its job."""

from datetime import UTC, datetime

from tests.unit.sdk.fake_job_service import lease

from taskforge_sdk import JobContext, JobOrigin
from taskforge_sdk.holding import Held

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_a_job_of_a_dead_letter_queue_says_where_it_comes_from() -> None:
    dead = lease("t1")
    dead.job.origin.job_id, dead.job.origin.queue_id = "j0", "q0"
    dead.job.origin.failed_at.FromDatetime(NOON)

    assert JobContext(Held(dead), lambda: None).origin == JobOrigin("j0", "q0", NOON)
    assert JobContext(Held(lease("t2")), lambda: None).origin is None
