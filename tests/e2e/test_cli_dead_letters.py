"""A job that fails for good, its mended cause, and the way back: with the command alone."""

import json
import uuid
from pathlib import Path

from tests.support.dev_system import Command, DevSystem
from tests.support.processes import until

TASKS = """
from pathlib import Path
from taskforge_sdk import Fatal, JobContext, Worker

worker = Worker()

@worker.job("send")
def send(job: JobContext) -> str:
    if not Path("mended").exists():
        raise Fatal("the mail server refuses us")
    return f"sent again after {job.origin.job_id}"
"""


def test_a_dead_letter_is_redriven_and_done(dev: DevSystem, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    suffix = uuid.uuid4().hex
    emails, dead = f"emails-{suffix}", f"dead-{suffix}"

    def taskforge(*arguments: str) -> str:
        done = dev.taskforge(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def status_of(job_id: str) -> str:
        document = json.loads(taskforge("job", "show", job_id, "--json"))
        return str(document["status"])

    taskforge("queue", "create", dead)
    taskforge("queue", "create", emails, "--dead-letter-queue", dead, "--max-concurrent-jobs", "1")
    assert f"{dead} (" in taskforge("queue", "show", emails)
    job_id = json.loads(taskforge("job", "create", emails, "send", "--json"))["id"]
    with Command(
        "worker", "run", "tasks:worker", "--queue", emails, "--worker-id", suffix,
        variables=dev.variables, folder=tmp_path,
    ) as worker:  # fmt: skip
        until(lambda: status_of(job_id) == "FAILED", "the job is dead")
        dead_id = json.loads(taskforge("job", "show", job_id, "--json"))["dead_letter_job_id"]
        assert f"job {job_id} of queue" in taskforge("job", "show", dead_id)
        assert status_of(dead_id) == "PENDING"

        (tmp_path / "mended").touch()
        assert taskforge("queue", "redrive", dead, "--dry-run") == (
            f"Would take 1 job of {dead} back.\n"
        )
        taskforge("queue", "pause", emails, "--keep-accepting", "--resume-after", "1h")
        assert taskforge("queue", "redrive", dead, "--origin", emails, "--per-second", "5") == (
            f"Took 1 job of {dead} back.\n"
        )
        assert status_of(dead_id) == "PENDING"
        taskforge("queue", "resume", emails)
        until(lambda: status_of(dead_id) == "SUCCEEDED", "the job is done")
        assert f"sent again after {job_id}" in taskforge("job", "show", dead_id)

        workers = json.loads(taskforge("worker", "list", "--json"))["workers"]
        [session] = [each["session_id"] for each in workers if each["worker_id"] == suffix]
        assert taskforge("worker", "update", session, "--drain") == (
            f"The worker {suffix} gets no more jobs.\n"
        )
        waiting = json.loads(taskforge("job", "create", emails, "send", "--json"))["id"]
        assert worker.stop() == 0
    assert taskforge("queue", "purge", emails, "--status", "pending", "--status", "failed") == (
        f"Cancelled 1 waiting and deleted 1 finished jobs of {emails}.\n"
    )
    assert status_of(waiting) == "CANCELLED"
    gone = dev.taskforge("job", "show", job_id)
    assert (gone.returncode, gone.stderr) == (
        1,
        f"error: JOB_NOT_FOUND: there is no job {job_id}\n",
    )
