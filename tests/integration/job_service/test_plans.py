"""Each statement finds its rows by the indexes that its comment names, whatever made its plan.

Three databases of the same content: one whose plans were made when it was empty and are kept since,
one without statistics, one with them. The last two by custom and by generic plans.
"""

import random
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Set
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.resources import files
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from tests.conftest import execute, run_apart, with_database
from tests.support.explaining import PLAN_MODES, Explainer, KeptPlans

from job_service import queries
from job_service.drafting import draft
from job_service.enqueueing import _columns
from taskforge.v1 import job_pb2
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_ORGANISATION_ID, DEFAULT_PROJECT_ID
from taskforge_core.queries import Executor
from taskforge_core.settings import Settings

PROJECT = DEFAULT_PROJECT_ID
OTHER_PROJECT = UUID(int=0x99)

QUEUES = 300
BACKLOG = 20_000
"""Jobs that wait in the first queue, all of one type but a few."""

RARE = 30
"""Jobs of another type among them."""

SESSIONS = 200
HELD = 10
"""Leases a session has."""

ANY_SIZE = 16 * 1024 * 1024
"""No job is too large for the claims here."""

PARTITIONS = 9
"""Of the history: the days that the migration makes, and the one for the rest."""

FILL = f"""
INSERT INTO taskforge.projects (id, organisation_id, name)
VALUES ('{OTHER_PROJECT}', '{DEFAULT_ORGANISATION_ID}', 'other');

INSERT INTO taskforge.queues (project_id, id, name, priority)
SELECT '{PROJECT}'::uuid, gen_random_uuid(), 'q' || i, CASE WHEN i = 0 THEN 5 ELSE i % 5 END
FROM generate_series(0, {QUEUES - 1}) AS i
UNION ALL
SELECT '{OTHER_PROJECT}'::uuid, gen_random_uuid(), 'q' || i, 5 FROM generate_series(0, 99) AS i;

UPDATE taskforge.queues SET max_concurrent_jobs = 5, rate_limit_per_minute = 60
WHERE name = 'q7' AND project_id = '{PROJECT}';

INSERT INTO taskforge.sessions (project_id, session_id, lease_duration, expires_at, call_id,
    call_is_stream, call_is_open, server_id, max_in_flight)
SELECT '{PROJECT}', gen_random_uuid(), '30 s', clock_timestamp() + interval '1 h',
    gen_random_uuid(), true, true, gen_random_uuid(), 100
FROM generate_series(1, {SESSIONS});

INSERT INTO taskforge.servers (server_id, alive_until, address)
SELECT server_id, clock_timestamp() + interval '1 h', 'here' FROM taskforge.sessions;

CREATE FUNCTION pg_temp.add_jobs(
    project uuid, queue uuid, status int, session uuid, kind text, n int)
RETURNS void LANGUAGE sql AS $$
INSERT INTO taskforge.jobs (project_id, id, queue_id, status, priority, created_at, updated_at,
    scheduled_for, session_id, lease_seq, started_at, attempt_count, max_attempts, payload_bytes,
    job_type, payload)
SELECT project, gen_random_uuid(), queue, status, i % 3, clock_timestamp(), clock_timestamp(),
    CASE WHEN status = 2 THEN clock_timestamp() + interval '1 h' END, session,
    CASE WHEN status = 3 THEN nextval('taskforge.lease_seq') END,
    CASE WHEN status = 3 THEN clock_timestamp() END, (status = 3)::int, 3, 2, kind,
    '{{"a": 1, "b": "some payload of a usual size, which a hundred bytes are, more or less"}}'
FROM generate_series(1, n) AS i
$$;
SELECT pg_temp.add_jobs(project_id, id, 1, NULL, 'common', 10000),
    pg_temp.add_jobs(project_id, id, 1, NULL, 'rare', {RARE}),
    pg_temp.add_jobs(project_id, id, 1, NULL, 'common', {BACKLOG} - 10000),
    pg_temp.add_jobs(project_id, id, 2, NULL, 'common', 2000)
FROM taskforge.queues WHERE name = 'q0' AND project_id = '{PROJECT}';
SELECT pg_temp.add_jobs(project_id, id, 1, NULL, 'common', 10)
FROM taskforge.queues WHERE name <> 'q0';
SELECT pg_temp.add_jobs('{PROJECT}', queue.id, 3, session.session_id, 'common', {HELD})
FROM taskforge.sessions AS session,
    (SELECT id FROM taskforge.queues WHERE name = 'q1' AND project_id = '{PROJECT}') AS queue;

INSERT INTO taskforge.job_history (project_id, id, queue_id, status, priority, created_at,
    updated_at, completed_at, attempt_count, max_attempts, payload_bytes, job_type, payload,
    attempts, last_seq, last_status)
SELECT queue.project_id, gen_random_uuid(), queue.id, 4 + i % 3, 0, clock_timestamp(),
    clock_timestamp(), clock_timestamp() + (i % 9) * interval '1 day', 1, 3, 2, 'common', '{{}}',
    '[]', nextval('taskforge.lease_seq'), 4 + i % 3
FROM taskforge.queues AS queue, generate_series(1, 50) AS i;

INSERT INTO taskforge.request_ids (project_id, request_id, content_hash, job_ids)
SELECT '{PROJECT}', 'r' || i, '\\x00', ARRAY[gen_random_uuid()]
FROM generate_series(1, 20000) AS i;
"""


@dataclass(frozen=True)
class Sample:
    """What the statements are asked about: a few of many."""

    queue_ids: list[UUID] = field(default_factory=lambda: [uuid4() for _ in range(20)])
    backlog: UUID = field(default_factory=uuid4)
    waiting: list[UUID] = field(default_factory=lambda: [uuid4() for _ in range(50)])
    session_ids: list[UUID] = field(default_factory=lambda: [uuid4() for _ in range(20)])
    call_ids: list[UUID] = field(default_factory=lambda: [uuid4() for _ in range(20)])
    held: list[tuple[str, int]] = field(default_factory=lambda: [(str(uuid4()), 1)] * 50)
    ended: list[tuple[str, int]] = field(default_factory=lambda: [(str(uuid4()), 1)] * 50)
    failed: UUID = field(default_factory=uuid4)
    waiting_queues: list[UUID] = field(default_factory=lambda: [uuid4()])
    """Those of the waiting jobs, aligned with them."""
    limited: UUID = field(default_factory=uuid4)


async def draw(pool: "asyncpg.Pool[Any]") -> Sample:
    """Rows from all over the tables."""

    async def some(query: str, count: int) -> list[Any]:
        rows = sorted(await pool.fetch(query))
        return random.Random(7).sample(
            [row[0] if len(row) == 1 else tuple(row) for row in rows], count
        )

    own = f"WHERE project_id = '{PROJECT}'"
    sessions = await some(f"SELECT session_id, call_id FROM taskforge.sessions {own}", 20)
    held = await some(f"SELECT id::text, lease_seq FROM taskforge.jobs {own} AND status = 3", 50)
    # A claim gets nothing from a queue with limits whose lock it does not hold.
    waiting = await some(
        f"SELECT id FROM taskforge.jobs {own} AND status = 1 AND queue_id NOT IN"
        " (SELECT id FROM taskforge.queues WHERE max_concurrent_jobs IS NOT NULL)",
        50,
    )
    queue_of = {
        row["id"]: row["queue_id"]
        for row in await pool.fetch(
            "SELECT id, queue_id FROM taskforge.jobs WHERE id = ANY($1::uuid[])", waiting
        )
    }
    ended = await some(f"SELECT id::text, last_seq FROM taskforge.job_history {own}", 50)
    return Sample(
        queue_ids=await some(f"SELECT id FROM taskforge.queues {own} AND name <> 'q0'", 20),
        backlog=(await some(f"SELECT id FROM taskforge.queues {own} AND name = 'q0'", 1))[0],
        waiting=waiting,
        waiting_queues=[queue_of[job_id] for job_id in waiting],
        session_ids=sorted(session for session, _ in sessions),
        call_ids=[call for _, call in sessions],
        held=sorted(held),
        ended=sorted(ended),
        limited=(
            await some(
                f"SELECT id FROM taskforge.queues {own} AND max_concurrent_jobs IS NOT NULL", 1
            )
        )[0],
        failed=(await some(f"SELECT id FROM taskforge.job_history {own} AND status = 5", 1))[0],
    )


# -- The statements -----------------------------------------------------------------------------

Call = Callable[[Executor, Sample], Awaitable[object]]


@dataclass(frozen=True)
class Case:
    """A statement as it is called, and how much it may read for that."""

    call: Call
    most_rows: int
    """Rows taken from indexes and tables, at most."""
    rows: int | None = None
    """How long its answer is, where that is certain."""
    queue_reads: int = 0
    """How often it may read all the project's queues instead of those that it needs: they are few,
    and the planner believes so even before it has counted them."""
    conflicts: frozenset[str] = frozenset()
    """Indexes that find conflicts: plans do not show them."""


def insert(count: int, **fields: Any) -> Call:
    async def call(executor: Executor, sample: Sample) -> object:
        spec = job_pb2.JobSpec(queue="q", job_type="send")
        drafts = []
        for place in range(count):
            if fields:
                spec.request_id = f"new {place}"
            drafts.append(draft(spec, sample.queue_ids[place % 20], "job"))
        return await queries.insert_jobs(executor, PROJECT, _columns(drafts))

    return call


def pick(per_source: int, limit: int, *job_types: str, of: str = "all", tried: int = 0) -> Call:
    async def call(executor: Executor, sample: Sample) -> object:
        queue_ids = {"all": None, "some": sample.queue_ids, "backlog": [sample.backlog]}[of]
        return await queries.pick_jobs(
            executor,
            PROJECT,
            queue_ids,
            per_source,
            limit,
            sample.waiting[:tried],
            job_types,
            sample.queue_ids[:1] if of == "all" and tried else (),
            ANY_SIZE,
        )

    return call


def claim(count: int) -> Call:
    async def call(executor: Executor, sample: Sample) -> object:
        ids, sessions = sample.waiting[:count], (sample.session_ids * 3)[:count]
        return await queries.claim_jobs(
            executor,
            PROJECT,
            ids,
            sessions,
            ["worker"] * count,
            sorted(set(sample.waiting_queues[:count])),
            (),
        )

    return call


def unzip(pairs: list[tuple[str, int]]) -> tuple[list[str], list[int]]:
    return [first for first, _ in pairs], [second for _, second in pairs]


REQUEST_IDS = frozenset({"request_ids_pkey"})

CASES: dict[str, Case] = {
    "insert_jobs": Case(insert(100), 200, 100, queue_reads=1, conflicts=REQUEST_IDS),
    "insert_jobs 1000": Case(insert(1000), 2000, 1000, queue_reads=1, conflicts=REQUEST_IDS),
    "insert_jobs remembered": Case(
        insert(100, remembered=True), 200, 100, queue_reads=1, conflicts=REQUEST_IDS
    ),
    "find_requests": Case(
        lambda e, _: queries.find_requests(e, PROJECT, [f"r{i * 7}" for i in range(1, 51)]), 50, 50
    ),
    "remember_request": Case(
        lambda e, _: queries.remember_request(e, PROJECT, "new", b"", [uuid4()], None),
        1,
        conflicts=REQUEST_IDS,
    ),
    "read_queue_rules": Case(
        lambda e, s: queries.read_queue_rules(e, PROJECT, s.queue_ids), 20, 20, queue_reads=1
    ),
    "list_queue_names": Case(lambda e, _: queries.list_queue_names(e, PROJECT), QUEUES, QUEUES),
    "open_call": Case(
        lambda e, s: queries.open_call(
            e, PROJECT, s.session_ids[0], "w", timedelta(seconds=30), uuid4(), False, uuid4(), 10
        ),
        2,
    ),
    "close_call": Case(
        lambda e, s: queries.close_call(e, PROJECT, s.session_ids[0], s.call_ids[0]), 1
    ),
    "read_session": Case(lambda e, s: queries.read_session(e, PROJECT, s.session_ids[0]), 1),
    "lock_limited_queues": Case(lambda e, s: queries.lock_limited_queues(e, [s.limited]), 0),
    "update_session": Case(
        lambda e, s: queries.update_session(e, PROJECT, s.session_ids[0], 5, None), 1
    ),
    "read_room": Case(lambda e, s: queries.read_room(e, PROJECT, [s.limited]), 6, 1, queue_reads=1),
    "record_starts": Case(
        lambda e, s: queries.record_starts(e, PROJECT, [s.limited], [3], 1),
        1,
    ),
    "list_held_leases": Case(
        lambda e, s: queries.list_held_leases(e, PROJECT, s.session_ids), 20 * HELD, 20 * HELD
    ),
    # A row of each queue is read beside its jobs.
    "pick_jobs": Case(pick(8, 200), QUEUES * 11 + 100, 200),
    "pick_jobs of few queues": Case(pick(8, 50, of="some"), 20 * 9, 50, queue_reads=1),
    "pick_jobs of one queue": Case(pick(100, 100, of="backlog"), 101, 100, queue_reads=1),
    "pick_jobs a thousand of one queue": Case(
        pick(1000, 1000, of="backlog"), 1001, 1000, queue_reads=1
    ),
    "pick_jobs behind what was tried": Case(
        pick(100, 100, of="backlog", tried=50), 151, 100, queue_reads=1
    ),
    "pick_jobs_of_types": Case(pick(8, 200, "common", "rare"), QUEUES * 20 + 100, 200),
    "pick_jobs_of_types rare": Case(pick(100, 100, "rare"), QUEUES + RARE + 1, RARE),
    "pick_jobs_of_types rare of one queue": Case(
        pick(20, 20, "rare", of="backlog"), 21, 20, queue_reads=1
    ),
    "lock_sessions": Case(
        # The row, one of its leases, the row again where its clock starts.
        lambda e, s: queries.lock_sessions(e, PROJECT, s.session_ids, s.call_ids),
        60,
        20,
    ),
    "claim_jobs": Case(claim(50), 50 * 4, 50, queue_reads=50),
    "claim_jobs one": Case(claim(1), 4, 1, queue_reads=2),
    "find_settled": Case(lambda e, s: queries.find_settled(e, PROJECT, *unzip(s.ended)), 50, 50),
    "lock_beating_sessions": Case(
        lambda e, s: queries.lock_beating_sessions(e, PROJECT, s.session_ids), 40, 20
    ),
    "renew_sessions": Case(
        lambda e, s: queries.renew_sessions(
            e, PROJECT, s.session_ids, [1] * 20, ["{1}"] * 20, ["{}"] * 20
        ),
        20,
        20,
    ),
    "report_progress": Case(
        lambda e, s: queries.report_progress(e, PROJECT, *unzip(s.held), ["1"] * 50), 50
    ),
    "renew_server": Case(
        lambda e, _: queries.renew_server(e, uuid4(), timedelta(seconds=1), "here"), 0
    ),
    "remove_server": Case(lambda e, _: queries.remove_server(e, uuid4()), 0),
    "lock_job": Case(lambda e, s: queries.lock_job(e, PROJECT, s.waiting[0]), 1),
    "request_cancel": Case(lambda e, s: queries.request_cancel(e, PROJECT, UUID(s.held[0][0])), 1),
    "revive_job": Case(lambda e, s: queries.revive_job(e, PROJECT, s.failed, 0), 2),
}


def statement(case: str) -> str:
    return case.partition(" ")[0]


def named_indexes(name: str, known: Set[str]) -> set[str]:
    """What the comment of a statement names behind `Index:`, up to the sentence's end."""
    text = files(queries).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    comment = " ".join(
        line.removeprefix("--").strip() for line in text.splitlines() if line.startswith("--")
    )
    found = re.search(r"Index: (.*?)\.(?: |$)", comment)
    assert found is not None, name
    return set(known) & set(re.findall(r"\w+", found[1]))


def alike(indexes: Set[str]) -> set[str]:
    """Both indexes of queues begin with the project, and which of them is read does not matter."""
    return {"queues" if index in {"queues_pkey", "queues_name"} else index for index in indexes}


# -- The databases ------------------------------------------------------------------------------

STATES = [
    "kept",
    *(f"{statistics} {mode}" for statistics in ("without", "with") for mode in PLAN_MODES),
]


@pytest.fixture(scope="module")
def backlog_urls(postgres_url: str, template_database: str) -> Iterator[Callable[[], str]]:
    """Makes databases that live as long as this module's tests."""
    made: list[str] = []

    def make() -> str:
        name = f"taskforge_test_{uuid.uuid4().hex}"
        create = f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY file_copy"
        run_apart(execute(postgres_url, create))
        made.append(name)
        return with_database(postgres_url, name)

    yield make
    for name in made:
        run_apart(execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@dataclass
class Backlog:
    """A full database, how to explain on it, and what to ask."""

    explainer: Explainer
    sample: Sample
    parents: dict[str, str]
    """A partition's indexes by name, and the partitioned index each is a part of."""
    indexes: set[str]
    """All there are, partitions' aside."""


@pytest.fixture(scope="module", params=STATES)
async def filled(
    request: pytest.FixtureRequest, backlog_urls: Callable[[], str]
) -> AsyncIterator[Backlog]:
    statistics, _, mode = str(request.param).partition(" ")
    settings = Settings(database_url=backlog_urls(), listen_url=None)
    database = await Database.open(settings, application_name="taskforge:test")
    explainer = KeptPlans(database.hot) if statistics == "kept" else Explainer(database.hot, mode)  # type: ignore[arg-type]
    async with explainer:
        if statistics == "kept":
            for case in CASES.values():
                await case.call(explainer, Sample())
        await database.hot.execute(FILL)
        if statistics == "with":
            await database.hot.execute("ANALYZE")
        rows = await database.hot.fetch(
            "SELECT inhrelid::regclass::text AS part, inhparent::regclass::text AS whole"
            " FROM pg_inherits"
        )
        parents = {row["part"]: row["whole"] for row in rows}
        names = await database.hot.fetch(
            "SELECT indexname FROM pg_indexes WHERE schemaname = 'taskforge'"
        )
        yield Backlog(
            explainer,
            await draw(database.hot),
            parents=parents,
            indexes={row["indexname"] for row in names} - parents.keys(),
        )
    await database.close()


@pytest.fixture
async def backlog(filled: Backlog) -> AsyncIterator[Backlog]:
    """A full database as it was filled: what a test does to it is undone."""
    async with filled.explainer.apart():
        yield filled


# -- The tests ----------------------------------------------------------------------------------


def test_every_statement_is_looked_at() -> None:
    texts = {entry.name for entry in files(queries).iterdir() if entry.name.endswith(".sql")}
    # The list of workers runs for browsing, apart from these, and reads no more than its page.
    assert {f"{statement(case)}.sql" for case in CASES} == texts - {"list_workers.sql"}


@pytest.mark.parametrize("name", CASES)
async def test_a_statement_reads_by_the_indexes_that_its_comment_names(
    backlog: Backlog, name: str
) -> None:
    case, explainer = CASES[name], backlog.explainer
    answer = await case.call(explainer, backlog.sample)
    if case.rows is not None:
        assert isinstance(answer, list)
        assert len(answer) == case.rows
    assert explainer.scanned_tables == set()
    used = {backlog.parents.get(index, index) for index in explainer.indexes}
    for node in explainer.plan:
        used |= set(node.get("Conflict Arbiter Indexes", ()))
    named = named_indexes(statement(name), backlog.indexes)
    assert alike(used) == alike(named - case.conflicts)
    assert explainer.rows_read <= case.most_rows + case.queue_reads * QUEUES


@pytest.mark.parametrize(
    ("name", "most_blocks"),
    [
        # A plan for every subscription alike looks at each of the project's queues: one block each.
        ("pick_jobs_of_types rare of one queue", QUEUES),
        ("pick_jobs_of_types rare", 1200),
        ("pick_jobs of one queue", QUEUES),
        # Two probes of an index a job, its row, the new one, and an entry in each index.
        ("claim_jobs", 50 * 50),
    ],
)
async def test_what_a_claim_costs_does_not_follow_the_backlog(
    backlog: Backlog, name: str, most_blocks: int
) -> None:
    await CASES[name].call(backlog.explainer, backlog.sample)
    assert backlog.explainer.blocks <= most_blocks


async def test_finding_one_job_in_history_is_one_probe_a_partition(backlog: Backlog) -> None:
    explainer, key = backlog.explainer, backlog.sample.ended[0]
    await queries.find_settled(explainer, PROJECT, [key[0]], [key[1]])
    probes = [
        node
        for node in explainer.plan
        if backlog.parents.get(node.get("Index Name", "")) == "job_history_key"
    ]
    assert len(probes) == PARTITIONS
    assert all(node["Actual Loops"] == 1 for node in probes)
