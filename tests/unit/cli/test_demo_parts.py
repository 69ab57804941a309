import hashlib
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.building import NOON, a_job

from taskforge_cli.demo import work
from taskforge_cli.demo.checking import check, measure, percentile
from taskforge_cli.demo.planning import LANES, Plan, Task, find_files, make_plan
from taskforge_cli.documents import to_json
from taskforge_sdk import AttemptOutcome, FailedAttempt, Job, JobStatus


def test_the_work_is_what_it_says() -> None:
    data = b"def f():\n    async def g(): ...\n\nclass C:\n    def h(self): ...\n"
    assert work.sha256(data) == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert work.word_count(data) == {"words": 11}
    assert work.count_functions(data) == {"functions": 3}


@pytest.mark.parametrize(("data", "why"), [(b"def", "SyntaxError"), (b"\xff", "SyntaxError")])
def test_what_is_no_python_has_no_functions(data: bytes, why: str) -> None:
    assert work.count_functions(data) == {"functions": None, "refused": why}


def test_about_three_jobs_in_a_hundred_are_flaky_and_always_the_same() -> None:
    flaky = [work.is_flaky(f"/lib/{n}.py", work.SHA256) for n in range(10_000)]
    assert 200 < sum(flaky) < 400
    assert flaky == [work.is_flaky(f"/lib/{n}.py", work.SHA256) for n in range(10_000)]


def test_files_spread_over_all_four_priorities() -> None:
    lanes = Counter(Task(f"/lib/{n}.py", work.SHA256).lane for n in range(400))
    assert set(lanes) == set(LANES)
    assert min(lanes.values()) > 50


def test_a_plan_holds_every_regular_readable_file_and_its_results(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f(): ...\n")
    (tmp_path / "b.txt").write_text("two words")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "link.py").symlink_to(tmp_path / "a.py")
    (tmp_path / "not-text-\udcff").write_bytes(b"x")
    for left_out in ("__pycache__", "site-packages"):
        (tmp_path / left_out).mkdir()
        (tmp_path / left_out / "c.py").write_text("")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.py").write_text("def")
    plan = make_plan(tmp_path, None)
    assert (plan.file_count, plan.skipped_count, plan.total_bytes) == (4, 1, 25)
    assert sorted((Path(task.path).name, task.job_type) for task in plan.expected) == [
        ("a.py", "count-functions"), ("a.py", "sha256"), ("a.py", "word-count"),
        ("b.txt", "sha256"), ("b.txt", "word-count"),
        ("d.py", "count-functions"), ("d.py", "sha256"), ("d.py", "word-count"),
        ("empty", "sha256"), ("empty", "word-count"),
    ]  # fmt: skip
    assert plan.expected[Task(str(tmp_path / "b.txt"), "word-count")] == {"words": 2}
    assert make_plan(tmp_path, 2).file_count == 2
    assert list(find_files(tmp_path / "sub")) == [str(tmp_path / "sub" / "d.py")]


A = Task("/f/a.txt", "word-count")
B = Task("/f/b.txt", "word-count")
PLAN = Plan({A: {"words": 1}, B: {"words": 2}}, file_count=2, total_bytes=9, skipped_count=0)


def _done(task: Task, result: dict[str, Any], **changes: Any) -> Job:
    return a_job(
        job_type=task.job_type,
        payload_json=to_json({"path": task.path}),
        result_json=to_json(result),
        **{"status": JobStatus.SUCCEEDED, **changes},
    )


def test_all_is_right_when_each_task_succeeded_once_with_its_result() -> None:
    verdict = check(PLAN, [_done(A, {"words": 1}), _done(B, {"words": 2})], lambda _: {})
    assert (verdict.compared, verdict.changed_files, verdict.faults) == (2, 0, [])


@pytest.mark.parametrize(
    ("jobs", "fault"),
    [
        ([_done(A, {"words": 1}), _done(B, {"words": 3})], "differs: word-count of /f/b.txt"),
        ([_done(A, {"words": 1})], "missing: word-count of /f/b.txt has no job"),
        (
            [_done(A, {"words": 1}), _done(B, {}, status=JobStatus.FAILED)],
            "missing: word-count of /f/b.txt 0192a000-0000-7000-8000-00000000000a is FAILED",
        ),
        (
            [_done(A, {"words": 1}), _done(B, {"words": 2}), _done(B, {"words": 2})],
            "double: word-count of /f/b.txt succeeded 2 times",
        ),
        (
            [
                _done(A, {"words": 1}),
                _done(B, {"words": 2}),
                _done(Task("/f/c.txt", "sha256"), {}),
            ],
            "unasked: sha256 of /f/c.txt has a job",
        ),
    ],
)
def test_a_fault_is_found(jobs: list[Job], fault: str) -> None:
    verdict = check(PLAN, jobs, lambda _: PLAN.expected)
    assert len(verdict.faults) == 1
    assert verdict.faults[0].startswith(fault)


def test_a_file_that_changed_meanwhile_proves_nothing() -> None:
    jobs = [_done(A, {"words": 7}), _done(B, {"words": 2})]
    verdict = check(PLAN, jobs, lambda _: {A: {"words": 7}})
    assert (verdict.compared, verdict.changed_files, verdict.faults) == (1, 1, [])
    vanished = check(PLAN, jobs[1:], lambda _: None)
    assert (vanished.compared, vanished.changed_files, vanished.faults) == (1, 1, [])


def _at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_what_is_measured() -> None:
    lost = FailedAttempt(1, "w", _at(1), _at(4), AttemptOutcome.LEASE_EXPIRED, "", "")
    failed = FailedAttempt(2, "w", _at(5), _at(6), AttemptOutcome.FAILURE, "", "")
    jobs = [
        _done(A, {}, attempt_count=1, started_at=_at(2), completed_at=_at(3)),
        _done(
            A, {}, attempt_count=3, started_at=_at(9), completed_at=_at(10), attempts=(lost, failed)
        ),
    ]
    measures = measure(jobs)
    assert (measures.jobs, measures.attempts, measures.rescued, measures.retried) == (2, 4, 1, 1)
    assert measures.jobs_per_second == pytest.approx(2 / 9)
    assert (measures.wait_p50, measures.wait_p95) == (timedelta(seconds=1), timedelta(seconds=2))
    assert measure([]).jobs_per_second == 0


def test_a_percentile_is_a_value_that_occurs() -> None:
    values = [timedelta(seconds=n) for n in range(1, 101)]
    assert percentile(values, 50) == timedelta(seconds=50)
    assert percentile(values, 95) == timedelta(seconds=95)
    assert percentile(values[:1], 95) == timedelta(seconds=1)
    assert percentile([], 95) == timedelta(0)
