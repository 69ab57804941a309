"""What the engine promises, as a model: where each job must be, and what must always hold.

Its subclass says what may happen; each step is done to the real system and to the model.
"""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4

import grpc
from hypothesis.stateful import RuleBasedStateMachine, invariant
from tests.integration.engine.queues import Queue
from tests.integration.engine.world import World
from tests.support.leases import miscounts
from tests.support.refusals import expect_error

from taskforge_core.statuses import JobStatus

SESSIONS = range(3)

PENDING, SCHEDULED, PROCESSING = JobStatus.PENDING, JobStatus.SCHEDULED, JobStatus.PROCESSING
SUCCEEDED, FAILED, CANCELLED = JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED
ENDED = {SUCCEEDED, FAILED, CANCELLED}


@dataclass
class Job:
    """A job of the model."""

    id: str
    queue: Queue
    priority: int
    created_at: datetime
    max_attempts: int
    status: JobStatus
    attempts: int = 0
    token: str = ""
    """The valid one."""
    session: int = -1
    cancel_requested: bool = False
    answer: tuple[str, JobStatus] | None = None
    """The token that was settled last, and what its settle was answered."""
    dead_letter: "Job | None" = None
    origin: Queue | None = None
    origin_max_attempts: int = 0
    """How many it had there, and has again when it goes back."""
    old_tokens: list[str] = field(default_factory=list)

    @property
    def rank(self) -> tuple[int, int, datetime, str]:
        return (-self.queue.priority, -self.priority, self.created_at, self.id)


class Model(RuleBasedStateMachine):
    """The jobs, sessions and queues as they must be."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.world.reset()
        self.jobs: list[Job] = []
        self.sessions = [str(uuid4()) for _ in SESSIONS]
        self.sequences = [0 for _ in SESSIONS]
        self.must_speak = [False for _ in SESSIONS]
        self.queues = self.world.queues
        for queue in self.queues.values():
            queue.is_active = True

    def stub(self, replica: int) -> Any:
        return self.world.replicas[replica].stub

    def of(self, *statuses: JobStatus) -> list[Job]:
        return [job for job in self.jobs if job.status in statuses]

    def held_by(self, session: int) -> list[Job]:
        return [job for job in self.of(PROCESSING) if job.session == session]

    def refused(self, call: Awaitable[object], code: grpc.StatusCode, reason: str) -> None:
        self.world.do(expect_error(call, code, reason))

    def end(
        self, job: Job, status: JobStatus, *, answered: bool, uses_attempt: bool = True
    ) -> None:
        """An attempt has ended; where the job stands by the engine's rules."""
        if job.cancel_requested and status is not SUCCEEDED:
            status, uses_attempt = CANCELLED, True
        job.old_tokens.append(job.token)
        job.answer = (job.token, status) if answered else None
        job.token, job.session, job.cancel_requested = "", -1, False
        job.status = status
        if not uses_attempt:
            job.attempts -= 1
        if status is FAILED and job.queue.dead_letters is not None:
            self.expect_dead_letter(job)

    def end_failed(self, job: Job, *, answered: bool, later: bool) -> None:
        """It failed, and may be tried again."""
        if job.attempts >= job.max_attempts:
            self.end(job, FAILED, answered=answered)
        else:
            self.end(job, SCHEDULED if later else PENDING, answered=answered)

    def expect_dead_letter(self, job: Job) -> None:
        [row] = self.world.sql(
            "SELECT made.* FROM taskforge.job_history AS dead"
            " JOIN taskforge.jobs AS made ON made.id = dead.dead_letter_job_id WHERE dead.id = $1",
            job.id,
        )
        assert (str(row["origin_job_id"]), str(row["origin_queue_id"])) == (job.id, job.queue.id)
        assert str(row["queue_id"]) == self.queues["dead"].id
        job.dead_letter = Job(
            id=str(row["id"]),
            queue=self.queues["dead"],
            priority=job.priority,
            created_at=row["created_at"],
            max_attempts=3,
            status=PENDING,
            origin=job.queue,
            origin_max_attempts=job.max_attempts,
        )
        self.jobs.append(job.dead_letter)

    def best(self, count: int) -> list[Job]:
        """What a claim of so many jobs must bring, in its order."""
        room = {
            queue.name: queue.limit - sum(job.queue is queue for job in self.of(PROCESSING))
            for queue in self.queues.values()
            if queue.limit is not None
        }
        chosen: list[Job] = []
        for job in sorted(self.of(PENDING), key=lambda job: job.rank):
            if len(chosen) == count:
                break
            if not job.queue.is_active or room.get(job.queue.name, 1) <= 0:
                continue
            if job.queue.name in room:
                room[job.queue.name] -= 1
            chosen.append(job)
        return chosen

    def running(self, pick: int) -> Job:
        running = self.of(PROCESSING)
        return running[pick % len(running)]

    def dead_letters(self) -> list[Job]:
        """Those that wait in the dead-letter queue and came there by failing."""
        waiting = self.of(PENDING, SCHEDULED)
        return [job for job in waiting if job.origin and job.queue is self.queues["dead"]]

    def reached(self) -> set[str]:
        """Which corners the model is in, so that a run that misses one is seen."""
        corners = {job.status.name for job in self.jobs}
        corners |= {"dead letter" for job in self.jobs if job.dead_letter is not None}
        corners |= {"redriven" for job in self.jobs if job.origin is job.queue}
        corners |= {"cancel requested" for job in self.jobs if job.cancel_requested}
        corners |= {
            "last attempt" for job in self.of(PROCESSING) if job.attempts == job.max_attempts
        }
        corners |= {"rescued" for must_speak in self.must_speak if must_speak}
        full = sum(job.queue is self.queues["letters"] for job in self.of(PROCESSING)) == 2
        corners |= {"limit reached"} if full else set()
        return corners

    # -- What always holds ------------------------------------------------------------------------

    @invariant()
    def the_rows_are_as_the_model_says(self) -> None:
        self.world.steps["steps"] += 1
        self.world.steps.update(self.reached())
        rows = self.world.sql(
            "SELECT id::text, queue_id::text, status, attempt_count, max_attempts, lease_seq,"
            " cancel_requested_at IS NOT NULL AND status = 3 AS cancel_requested"
            " FROM taskforge.jobs UNION ALL"
            " SELECT id::text, queue_id::text, status, attempt_count, max_attempts, NULL, false"
            " FROM taskforge.job_history"
        )
        found = {row["id"]: tuple(row)[1:] for row in rows}
        assert len(found) == len(rows), "a job is in both tables"
        expected = {
            job.id: (
                job.queue.id,
                job.status,
                job.attempts,
                job.max_attempts,
                int(job.token[76:], 16) if job.token else None,
                job.cancel_requested,
            )
            for job in self.jobs
        }
        assert found == expected

    @invariant()
    def the_counts_are_exact(self) -> None:
        assert self.world.do(miscounts(self.world.database.hot)) == []


def some_run(model: Model) -> bool:
    """A precondition: there is a job that runs."""
    return bool(model.of(PROCESSING))


CORNERS = {status.name for status in JobStatus} | {
    "dead letter",
    "redriven",
    "cancel requested",
    "last attempt",
    "rescued",
    "limit reached",
}
"""Where the examples must have been: else they prove less than they seem to."""
