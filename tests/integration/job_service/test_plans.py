"""Each statement finds its rows by the indexes that its comment names, whatever made its plan.

Three databases of the same content: one whose plans were made when it was empty and are kept since,
one without statistics, one with them. The last two by custom and by generic plans.
"""

import re
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Set
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.conftest import execute, run_apart, with_database
from tests.support.backlogs import (
    ANY_SIZE,
    FILL,
    HELD,
    PARTITIONS,
    PROJECT,
    QUEUES,
    RARE,
    Sample,
    draw,
)
from tests.support.explaining import PLAN_MODES, Explainer, KeptPlans

from job_service import queries
from job_service.drafting import Draft, draft
from job_service.inserting import _columns
from taskforge.v1 import job_pb2
from taskforge_core.database import Database
from taskforge_core.queries import Executor
from taskforge_core.settings import Settings

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
    either: frozenset[str] = frozenset()
    """Indexes of which one or the other is read: a plan for certain values shows only that one."""


def insert(count: int, **fields: Any) -> Call:
    async def call(executor: Executor, sample: Sample) -> object:
        rows = await queries.insert_jobs(
            executor, PROJECT, _columns(drafts(count, sample, **fields))
        )
        return [job_id for row in rows for job_id in row["ids"]]

    return call


def insert_leased(count: int, *job_types: str, of: str = "all") -> Call:
    async def call(executor: Executor, sample: Sample) -> object:
        made = drafts(count, sample)
        terms = list(zip(sample.session_ids, sample.call_ids, [100] * 20, strict=True))[:count]
        _, rows = await queries.insert_leased_jobs(
            executor,
            PROJECT,
            _columns(made),
            [queries.SessionTerms(*each) for each in terms],
            [(made[at].id, terms[at % 20][0], "worker") for at in range(count)],
            {"all": None, "some": sample.queue_ids}[of],
            job_types,
        )
        return rows

    return call


def drafts(count: int, sample: Sample, **fields: Any) -> list[Draft]:
    spec = job_pb2.JobSpec(queue="q", job_type="send")
    made = []
    for place in range(count):
        if fields:
            spec.request_id = f"new {place}"
        made.append(draft(spec, sample.queue_ids[place % 20], "job"))
    return made


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
        pairs = list(zip(sample.session_ids, sample.call_ids, strict=True))[:count]
        hands: dict[queries.Seat, list[UUID]] = defaultdict(list)
        for job_id, queue_id, session_id in zip(
            sample.waiting[:count], sample.waiting_queues, sample.session_ids * 3, strict=False
        ):
            hands[queries.Seat(session_id, "worker", queue_id)].append(job_id)
        terms = [queries.SessionTerms(session_id, call_id, 100) for session_id, call_id in pairs]
        _, rows = await queries.claim_jobs(executor, PROJECT, hands, (), terms)
        return rows

    return call


def unzip(pairs: list[tuple[str, int]]) -> tuple[list[str], list[int]]:
    return [first for first, _ in pairs], [second for _, second in pairs]


REQUEST_IDS = frozenset({"request_ids_pkey"})
READY = frozenset({"jobs_ready", "jobs_ready_by_type"})

CASES: dict[str, Case] = {
    "insert_jobs": Case(insert(100), 200, 100, queue_reads=1, conflicts=REQUEST_IDS),
    "insert_jobs 1000": Case(insert(1000), 2000, 1000, queue_reads=1, conflicts=REQUEST_IDS),
    # Of a session as in claim_jobs. The look at what is ready ends with the first job; where the
    # planner knows nothing it may read other projects' queues for it as well, a third more.
    "insert_leased_jobs": Case(
        insert_leased(50),
        50 * 2 + 20 * 3 + 1,
        50,
        queue_reads=2,
        conflicts=REQUEST_IDS,
        either=READY,
    ),
    "insert_leased_jobs one": Case(
        insert_leased(1, of="some"),
        2 + 3 + 20 + 100,
        1,
        queue_reads=1,
        conflicts=REQUEST_IDS,
        either=READY,
    ),
    "insert_leased_jobs of types": Case(
        insert_leased(1, "none", "nothing"),
        2 + 3 + 100,
        1,
        queue_reads=2,
        conflicts=REQUEST_IDS,
        either=READY,
    ),
    "insert_jobs remembered": Case(
        insert(100, remembered=True), 200, 100, queue_reads=1, conflicts=REQUEST_IDS
    ),
    "withdraw_jobs": Case(lambda e, _: queries.withdraw_jobs(e, PROJECT, 100, 10, 1), 0),
    "lock_backlog": Case(lambda e, _: queries.lock_backlog(e, PROJECT), 0),
    "count_backlog": Case(lambda e, _: queries.count_backlog(e, PROJECT), 0),
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
    "lock_streams": Case(lambda e, _: queries.lock_streams(e, PROJECT), 0),
    # Each with its replica.
    "count_streams": Case(
        lambda e, s: queries.count_streams(e, PROJECT, s.session_ids, 50), 2 * (50 + 20 + 20)
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
    # A row of each queue is read beside its jobs. The best queue yields 8, those of the next
    # priority, a fifth of all, the rest; at the others' jobs nobody looks.
    "pick_jobs": Case(pick(8, 200), QUEUES + QUEUES // 5 * 8 + 20, 200),
    "pick_jobs of few queues": Case(pick(8, 50, of="some"), 20 * 9, 50),
    "pick_jobs of one queue": Case(pick(100, 100, of="backlog"), 101, 100),
    "pick_jobs a thousand of one queue": Case(pick(1000, 1000, of="backlog"), 1001, 1000),
    "pick_jobs behind what was tried": Case(pick(100, 100, of="backlog", tried=50), 151, 100),
    "pick_jobs_of_types": Case(pick(8, 200, "common", "rare"), QUEUES + QUEUES // 5 * 8 + 20, 200),
    "pick_jobs_of_types none": Case(pick(9, 9, "none", of="backlog"), 1, 0),
    "pick_jobs_of_types rare": Case(pick(100, 100, "rare"), QUEUES + RARE + 1, RARE),
    "pick_jobs_of_types rare of one queue": Case(pick(20, 20, "rare", of="backlog"), 21, 20),
    # Of a session its row, one of its leases, the row again where its clock starts; two probes of a
    # job, one of its queue.
    "claim_jobs": Case(claim(50), 20 * 3 + 50 * 3, 50),
    "claim_jobs one": Case(claim(1), 6, 1),
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
    """What the comments of a statement and of its parts name behind `Index:`, up to the sentence's
    end."""
    text = queries._statements[name]
    comment = " ".join(
        line.removeprefix("--").strip() for line in text.splitlines() if line.startswith("--")
    )
    found = re.findall(r"Index: (.*?)\.(?: |$)", comment)
    assert found, name
    return set(known) & set(re.findall(r"\w+", " ".join(found)))


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
    assert alike(used | case.either) == alike(named - case.conflicts | case.either)
    assert used & case.either or not case.either
    assert explainer.rows_read <= case.most_rows + case.queue_reads * QUEUES


@pytest.mark.parametrize(
    ("name", "most_blocks"),
    [
        ("pick_jobs_of_types rare of one queue", 70),
        ("pick_jobs_of_types rare", 1200),
        ("pick_jobs of one queue", 150),
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
