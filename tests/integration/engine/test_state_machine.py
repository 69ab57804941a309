"""Two real replicas and the scheduler's passes against a model of what the engine promises."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test
from tests.integration.engine.model import (
    CANCELLED,
    CORNERS,
    ENDED,
    FAILED,
    PENDING,
    PROCESSING,
    SCHEDULED,
    SESSIONS,
    SUCCEEDED,
    Job,
    Model,
    some_run,
)
from tests.integration.engine.queues import Queue, new_queues
from tests.integration.engine.world import World
from tests.support.job_calls import (
    acquire,
    cancel,
    complete,
    create,
    fail,
    heartbeat,
    release,
    retry,
    settle,
    snoozed,
    verdicts,
)
from tests.support.job_replicas import job_replica, until_connected
from tests.support.rows import insert_queue

from taskforge.v1 import job_service_pb2 as pb
from taskforge.v1 import queue_service_pb2
from taskforge_core.database import Database
from taskforge_core.settings import Settings

EXAMPLES, STEPS = 45, 40
"""1,800 steps in all, of which each takes a few milliseconds."""


@pytest.fixture
async def world(settings: Settings, database: Database, open_folder: Path) -> AsyncIterator[World]:
    queues = new_queues()
    for queue in reversed(queues.values()):
        target = queue.dead_letters
        queue_id = await insert_queue(
            database.hot,
            queue.name,
            priority=queue.priority,
            retry_delay=timedelta(hours=1 if queue.retries_later else 0),
            retry_jitter=0.0,
            max_concurrent_jobs=queue.limit,
            dead_letter_queue_id=UUID(queues[target].id) if target else None,
        )
        queue.id = str(queue_id)
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(job_replica(settings, open_folder, name))
            for name in ("a", "b")
        ]
        await until_connected(*replicas)
        yield World(asyncio.get_running_loop(), database, replicas, queues)


PICK = st.integers(0, 10**6)
"""Which of those that there are, modulo their number."""
REPLICA = st.integers(0, 1)


class Engine(Model):
    """What may happen, and what must follow from it."""

    @initialize()
    def begin_with_jobs(self) -> None:
        """Else half of the steps would find nothing to do."""
        for name in ("emails", "letters") * 3:
            self.create(0, name, 1, 2, later=False)

    # -- Producers --------------------------------------------------------------------------------

    @rule(
        replica=REPLICA,
        name=st.sampled_from(["emails", "emails", "letters", "dead"]),
        priority=st.integers(0, 2),
        max_attempts=st.integers(1, 3),
        later=st.sampled_from([False, False, False, True]),
    )
    def create(
        self, replica: int, name: str, priority: int, max_attempts: int, later: bool
    ) -> None:
        queue = self.queues[name]
        fields: dict[str, Any] = {"priority": priority, "max_attempts": max_attempts}
        if later:
            fields["scheduled_for"] = {"seconds": 4_000_000_000}
        call = create(self.stub(replica), name, **fields)
        if not queue.is_active:
            self.refused(call, grpc.StatusCode.FAILED_PRECONDITION, "QUEUE_PAUSED")
            return
        made = self.world.do(call)
        [row] = self.world.sql("SELECT created_at FROM taskforge.jobs WHERE id = $1", made.id)
        self.jobs.append(
            Job(
                id=made.id,
                queue=queue,
                priority=priority,
                created_at=row["created_at"],
                max_attempts=max_attempts,
                status=SCHEDULED if later else PENDING,
            )
        )

    # -- Workers ----------------------------------------------------------------------------------

    @precondition(lambda self: bool(self.best(1)))
    @rule(replica=REPLICA, session=st.sampled_from(SESSIONS), count=st.integers(2, 4))
    def acquire_what_is_there(self, replica: int, session: int, count: int) -> None:
        if self.must_speak[session]:
            self.heartbeat(replica, session)
        self.acquire(replica, session, count)

    @rule(replica=REPLICA, session=st.sampled_from(SESSIONS), count=st.integers(1, 3))
    def acquire(self, replica: int, session: int, count: int) -> None:
        expected = [] if self.must_speak[session] else self.best(count)
        leases = self.world.do(
            acquire(
                self.stub(replica),
                self.sessions[session],
                max_in_flight=len(self.held_by(session)) + count,
                # A row that a call before has locked for a moment is waited for.
                wait=Duration(seconds=5 if expected else 0),
            )
        )
        note(f"leased {[lease.job.id for lease in leases]}")
        assert [lease.job.id for lease in leases] == [job.id for job in expected]
        for job, lease in zip(expected, leases, strict=True):
            job.attempts += 1
            assert lease.job.attempt_count == job.attempts <= job.max_attempts
            job.status, job.session, job.token, job.answer = (
                PROCESSING,
                session,
                lease.lease_token,
                None,
            )

    @precondition(some_run)
    @rule(replica=REPLICA, pick=PICK)
    def complete(self, replica: int, pick: int) -> None:
        job = self.running(pick)
        answer = self.world.do(complete(self.stub(replica), job.token, "1"))
        assert int(answer) == SUCCEEDED
        self.end(job, SUCCEEDED, answered=True)

    @precondition(some_run)
    @rule(replica=REPLICA, pick=PICK)
    def fail_retryable(self, replica: int, pick: int) -> None:
        job = self.running(pick)
        answer = self.world.do(fail(self.stub(replica), job.token, message="no"))
        self.end_failed(job, answered=True, later=job.queue.retries_later)
        assert int(answer) == job.status

    @precondition(some_run)
    @rule(replica=REPLICA, pick=PICK)
    def fail_for_good(self, replica: int, pick: int) -> None:
        # Those that leave a dead letter behind, where there are any.
        failing = [job for job in self.of(PROCESSING) if job.queue.dead_letters is not None]
        failing = failing or self.of(PROCESSING)
        job = failing[pick % len(failing)]
        answer = self.world.do(fail(self.stub(replica), job.token, retryable=False))
        self.end(job, FAILED, answered=True)
        assert int(answer) == job.status

    @precondition(some_run)
    @rule(replica=REPLICA, pick=PICK)
    def release(self, replica: int, pick: int) -> None:
        job = self.running(pick)
        answer = self.world.do(release(self.stub(replica), job.token))
        self.end(job, PENDING, answered=True, uses_attempt=False)
        assert int(answer) == job.status

    @precondition(some_run)
    @rule(replica=REPLICA, pick=PICK)
    def snooze(self, replica: int, pick: int) -> None:
        job = self.running(pick)
        settlement = snoozed(job.token, Duration(seconds=3600))
        [result] = self.world.do(settle(self.stub(replica), [settlement]))
        self.end(job, SCHEDULED, answered=True, uses_attempt=False)
        assert int(result.status) == job.status

    @precondition(lambda self: any(job.old_tokens for job in self.jobs))
    @rule(replica=REPLICA, pick=PICK)
    def settle_again(self, replica: int, pick: int) -> None:
        """A repeated settle gets its answer; a stale one changes nothing."""
        tokens = [(job, token) for job in self.jobs for token in job.old_tokens]
        job, token = tokens[pick % len(tokens)]
        call = complete(self.stub(replica), token)
        if job.answer is not None and job.answer[0] == token:
            assert int(self.world.do(call)) == job.answer[1]
        else:
            self.refused(call, grpc.StatusCode.ABORTED, "LEASE_LOST")

    @rule(replica=REPLICA, session=st.sampled_from(SESSIONS))
    def heartbeat(self, replica: int, session: int) -> None:
        """It lists all that it holds, and the stale tokens of all others."""
        self.sequences[session] += 1
        held = self.held_by(session)
        stale = [token for job in self.jobs for token in job.old_tokens][:5]
        answer = self.world.do(
            heartbeat(
                self.stub(replica),
                self.sessions[session],
                self.sequences[session],
                [*(job.token for job in held), *stale],
            )
        )
        verdict = pb.LeaseVerdict
        assert verdicts(answer) == [
            *(
                verdict.VERDICT_CANCEL_REQUESTED if job.cancel_requested else verdict.VERDICT_HELD
                for job in held
            ),
            *(verdict.VERDICT_LOST for _ in stale),
        ]
        self.must_speak[session] = False

    # -- People -----------------------------------------------------------------------------------

    @precondition(lambda self: len(self.jobs) > 3)
    @rule(replica=REPLICA, pick=PICK, interrupt=st.booleans())
    def cancel(self, replica: int, pick: int, interrupt: bool) -> None:
        # Running ones more often: there are few of them.
        jobs = self.jobs + self.of(PROCESSING) * 3
        job = jobs[pick % len(jobs)]
        call = cancel(self.stub(replica), job.id, interrupt_running=interrupt)
        precondition_failed = grpc.StatusCode.FAILED_PRECONDITION
        if job.status is PROCESSING and not interrupt:
            self.refused(call, precondition_failed, "JOB_RUNNING")
        elif job.status in {SUCCEEDED, FAILED}:
            self.refused(call, precondition_failed, "JOB_FINISHED")
        else:
            shown = self.world.do(call)
            if job.status is PROCESSING:
                job.cancel_requested = True
                assert shown.HasField("cancel_requested_at")
            else:
                job.status = CANCELLED
            assert int(shown.status) == job.status

    @precondition(lambda self: bool(self.of(*ENDED)))
    @rule(replica=REPLICA, pick=PICK, more=st.integers(0, 1))
    def retry(self, replica: int, pick: int, more: int) -> None:
        ended = self.of(FAILED) or self.of(*ENDED)
        job = ended[pick % len(ended)]
        call = retry(self.stub(replica), job.id, more)
        refusal = None
        if job.status is not FAILED:
            refusal = "JOB_NOT_FAILED"
        elif job.dead_letter is not None:
            refusal = "JOB_DEAD_LETTERED"
        elif job.attempts >= job.max_attempts + more:
            refusal = "NO_ATTEMPTS_LEFT"
        if refusal is not None:
            self.refused(call, grpc.StatusCode.FAILED_PRECONDITION, refusal)
            return
        job.max_attempts += more
        job.status = PENDING
        assert int(self.world.do(call).status) == PENDING

    @precondition(lambda self: all(queue.is_active for queue in self.queues.values()))
    @rule(name=st.sampled_from(["emails", "letters", "dead"]))
    def pause(self, name: str) -> None:
        self.set_active(self.queues[name], is_active=False)

    @precondition(lambda self: not all(queue.is_active for queue in self.queues.values()))
    @rule()
    def resume(self) -> None:
        for queue in self.queues.values():
            self.set_active(queue, is_active=True)

    def set_active(self, queue: Queue, *, is_active: bool) -> None:
        queue.is_active = is_active
        self.world.sql(
            "UPDATE taskforge.queues SET is_active = $2, accepts_jobs = $2 WHERE id = $1",
            queue.id,
            is_active,
        )

    @precondition(lambda self: bool(self.dead_letters()))
    @rule()
    def redrive(self) -> None:
        """All of them go back where they failed."""
        request = queue_service_pb2.RedriveJobsRequest(queue="dead")
        back = self.dead_letters()
        self.world.do(self.world.redriver.redrive(request))
        for job in back:
            assert job.origin is not None
            job.queue, job.status = job.origin, PENDING
            job.attempts, job.max_attempts = 0, job.origin_max_attempts

    # -- Time -------------------------------------------------------------------------------------

    @precondition(lambda self: bool(self.of(SCHEDULED)))
    @rule()
    def time_comes(self) -> None:
        self.world.sql(
            "UPDATE taskforge.jobs SET scheduled_for = clock_timestamp() WHERE status = 2"
        )
        self.world.do(self.world.promoter.run_once())
        for job in self.of(SCHEDULED):
            job.status = PENDING

    @precondition(some_run)
    @rule(pick=PICK)
    def time_out(self, pick: int) -> None:
        job = self.running(pick)
        self.world.sql(
            "UPDATE taskforge.jobs SET timeout_at = clock_timestamp() WHERE id = $1", job.id
        )
        self.world.do(self.world.enforcer.run_once())
        self.end_failed(job, answered=False, later=job.queue.retries_later)

    @rule(session=st.sampled_from(SESSIONS))
    def fall_silent(self, session: int) -> None:
        # One that holds something, where there is one.
        session = next((job.session for job in self.of(PROCESSING)), session)
        self.world.sql(
            "UPDATE taskforge.sessions SET expires_at = clock_timestamp() WHERE session_id = $1",
            self.sessions[session],
        )
        self.world.do(self.world.rescuer.run_once())
        held = self.held_by(session)
        for job in held:
            self.end_failed(job, answered=False, later=False)
        if held:
            self.must_speak[session] = True

    @rule()
    def fold(self) -> None:
        self.world.do(self.world.folder.run_once())


# A failure is made as short as possible before it is shown, which may take five minutes.
@pytest.mark.timeout(420)
async def test_the_engine_does_what_the_model_does(world: World) -> None:
    Engine.world = world
    # The same examples on every machine; what fails is printed as the steps that lead there.
    fixed = settings_for_all()
    await asyncio.to_thread(run_state_machine_as_test, Engine, settings=fixed)
    print("seed: none (derandomized); done:", dict(world.steps))
    assert world.steps["steps"] >= 500
    assert set(world.steps) >= CORNERS


def settings_for_all() -> settings:
    return settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
