import os
import subprocess
import sys

from taskforge_cli.bench.usage import Usage, tree_seconds

_BURN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


def test_children_that_have_ended_count_as_well() -> None:
    before = tree_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", _BURN], check=True)
    assert tree_seconds(os.getpid()) - before >= 0.25


def test_a_process_that_is_gone_uses_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert tree_seconds(process.pid) == 0.0


def test_postgres_the_services_and_the_workers_are_told_apart() -> None:
    own = os.getpid()
    with Usage(lambda: {"postgres": own, "job_service": own}, [own]) as usage:
        subprocess.run([sys.executable, "-c", _BURN], check=True)
    assert usage.cpu.postgres is not None
    assert usage.cpu.server is not None
    assert min(usage.cpu.postgres, usage.cpu.server, usage.cpu.worker) >= 0.25
    assert usage.with_memory({"jobs_per_s": 1.0})["rss_mb"] > 1


def test_what_is_not_known_is_left_out_and_not_zero() -> None:
    with Usage(None, [os.getpid()]) as usage:
        pass
    assert (usage.cpu.postgres, usage.cpu.server) == (None, None)
    assert usage.with_memory({"jobs_per_s": 1.0}) == {"jobs_per_s": 1.0}
