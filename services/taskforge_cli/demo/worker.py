"""The demo's worker: `taskforge worker run taskforge_cli.demo.worker:worker`.

A worker as any user would write it, with one weakness built in: some first attempts fail.
"""

import warnings
from pathlib import Path

from taskforge_cli.demo import work
from taskforge_sdk import Fatal, JobContext, Worker

# Old files hold what a newer parser warns of.
warnings.simplefilter("ignore")

worker = Worker(concurrency=8, lease_duration=3)


class UnluckyAttempt(Exception):
    """The first attempt of a job that the demo lets fail once."""


def _run(job: JobContext) -> work.Result:
    path = job.payload["path"]
    if job.attempt == 1 and work.is_flaky(path, job.job_type):
        raise UnluckyAttempt("this job's first attempt fails on purpose")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Fatal(f"cannot read {path}: {error.strerror}") from error
    return work.WORK[job.job_type](data)


@worker.job(work.SHA256)
def sha256(job: JobContext) -> work.Result:
    """Digest a file."""
    return _run(job)


@worker.job(work.WORD_COUNT)
def word_count(job: JobContext) -> work.Result:
    """Count a file's words."""
    return _run(job)


@worker.job(work.COUNT_FUNCTIONS)
def count_functions(job: JobContext) -> work.Result:
    """Count a Python file's functions."""
    return _run(job)
