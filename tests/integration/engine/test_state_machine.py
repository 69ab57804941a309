"""Two real replicas and the scheduler's passes against a model of what the engine promises."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
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
from tests.support.job_replicas import JobReplica, job_replica, until_connected
from tests.support.leases import miscounts
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue

from queue_service.redriving import Redriver
from scheduler_service.folding import Folder
from scheduler_service.promoting import Promoter
from scheduler_service.rescuing import Rescuer
from scheduler_service.timing_out import TimeoutEnforcer
from taskforge.v1 import job_service_pb2 as pb
from taskforge.v1 import queue_service_pb2
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier
from taskforge_core.projects import Projects
from taskforge_core.settings import Settings
from taskforge_core.statuses import JobStatus

T = TypeVar("T")

EXAMPLES, STEPS = 45, 40
"""1,800 steps in all, of which each takes a few milliseconds."""

CALL_SECONDS = 30
SESSIONS = range(3)

PENDING, SCHEDULED, PROCESSING = JobStatus.PENDING, JobStatus.SCHEDULED, JobStatus.PROCESSING
SUCCEEDED, FAILED, CANCELLED = JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED
WAITING = {PENDING, SCHEDULED}
ENDED = {SUCCEEDED, FAILED, CANCELLED}


@dataclass
class Queue:
    """A queue of the model."""

    name: str
    priority: int
    retries_later: bool
    limit: int | None = None
    dead_letters: str | None = None
    id: str = ""
    is_active: bool = True


def new_queues() -> dict[str, Queue]:
    return {
        queue.name: queue
        for queue in (
            Queue("emails", 1, retries_later=True, dead_letters="dead"),
            Queue("letters", 5, retries_later=False, limit=2),
            Queue("dead", 0, retries_later=False),
        )
    }


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
    old_tokens: list[str] = field(default_factory=list)

    @property
    def rank(self) -> tuple[int, int, datetime, str]:
        return (-self.queue.priority, -self.priority, self.created_at, self.id)


class World:
    """The real system: its parts, and the loop of the tests that they live in."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        database: Database,
        replicas: list[JobReplica],
        queues: dict[str, Queue],
    ) -> None:
        self._loop = loop
        self.database = database
        self.replicas = replicas
        self.queues = queues
        self.steps: Counter[str] = Counter()
        """What was done, by rule and by the status of a job that it led to."""
        notifier = Notifier(database.hot, "scheduler")
        self.promoter = Promoter(database.hot, notifier)
        self.rescuer = Rescuer(database.hot, notifier)
        self.enforcer = TimeoutEnforcer(database.hot, notifier)
        self.folder = Folder(database.hot, batch_size=7)
        self.redriver = Redriver(database, Projects(database), notifier)

    def do(self, work: Awaitable[T]) -> T:
        """Run it in the tests' loop, from the thread of the state machine."""

        async def run() -> T:
            async with asyncio.timeout(CALL_SECONDS):
                return await work

        coroutine: Coroutine[Any, Any, T] = run()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def sql(self, statement: str, *values: object) -> list[Any]:
        return list(self.do(self.database.hot.fetch(statement, *values)))

    def reset(self) -> None:
        """As if nothing had ever happened but the queues."""

        async def begin_anew() -> None:
            for replica in self.replicas:
                await replica.until_taking(0)
                await replica.server._background.idle()
            await self.database.hot.execute(
                "TRUNCATE taskforge.jobs, taskforge.job_history, taskforge.queue_counts,"
                " taskforge.queue_deltas, taskforge.sessions, taskforge.queue_starts"
            )
            await self.database.hot.execute(
                "UPDATE taskforge.queues SET is_active = true, accepts_jobs = true"
            )

        self.do(begin_anew())


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


class Engine(RuleBasedStateMachine):
    """What may happen, and what must follow from it."""

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

    # -- Helpers ----------------------------------------------------------------------------------

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
        )
        self.jobs.append(job.dead_letter)

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

    def running(self, pick: int) -> Job:
        running = self.of(PROCESSING)
        return running[pick % len(running)]

    def some_run(self) -> bool:
        return bool(self.of(PROCESSING))

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

    def dead_letters(self) -> list[Job]:
        """Those that wait in the dead-letter queue and came there by failing."""
        waiting = self.of(PENDING, SCHEDULED)
        return [job for job in waiting if job.origin and job.queue is self.queues["dead"]]

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
            job.attempts, job.max_attempts = 0, 3

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


CORNERS = {status.name for status in JobStatus} | {
    "dead letter",
    "redriven",
    "cancel requested",
    "last attempt",
    "rescued",
    "limit reached",
}
"""Where the examples must have been: else they prove less than they seem to."""


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
