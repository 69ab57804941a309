"""`taskforge dev`: first steps, restarts, and what is left behind."""

import os
import signal
import socket
import subprocess
from functools import partial
from pathlib import Path

from tests.conftest import run_apart
from tests.support.dev_system import Command, DevSystem, command_line, environment
from tests.support.processes import PATIENCE, until, until_gone

from taskforge_core.bootstrapping import bootstrap
from taskforge_core.migrating import migrate
from taskforge_sdk import Job, JobStatus

TASKS = """
from taskforge_sdk import JobContext, Worker

worker = Worker(queues=["emails"], concurrency=20)


@worker.job("send-email")
async def send_email(job: JobContext) -> dict[str, str]:
    if job.attempt == 1:
        raise ConnectionError("no route to host")
    return {"sent_to": job.payload["to"]}
"""


def _until_finished(system: DevSystem, job_id: str) -> Job:
    with system.client() as client:
        until(lambda: client.get_job(job_id).status.is_final, f"the job {job_id} has ended")
        return client.get_job(job_id)


def _pasted(printed: str, heading: str) -> list[str]:
    """The commands below the line that begins so."""
    lines = printed.partition(f"\n{heading}")[2].partition("\n\n")[0]
    return [line.strip() for line in lines.splitlines()[1:]]


def _shell(*lines: str) -> str:
    done = subprocess.run(
        ["/bin/sh", "-ec", "\n".join(lines)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_first_steps_of_a_stranger(open_folder: Path) -> None:
    (open_folder / "tasks.py").write_text(TASKS)
    with DevSystem(open_folder / "data") as dev:
        # What it prints is pasted into another terminal as it stands.
        export, make_queue, make_job, list_jobs = _pasted(dev.out.text, "Try it in another ")
        export_key, grpcurl = _pasted(dev.out.text, "In any other language, ")
        assert grpcurl == (
            "grpcurl -plaintext -expand-headers -H 'authorization: Bearer ${TASKFORGE_API_KEY}'"
            f' -d \'{{"queue": "emails"}}\' {dev.addresses["queue"]}'
            " taskforge.v1.QueueService/GetQueueStats"
        )
        key = dev.key_file.read_text().strip()
        assert _shell(export_key, 'echo "$TASKFORGE_API_KEY"').strip() == key
        assert dev.key_file.stat().st_mode & 0o777 == 0o600
        assert _shell(export, make_queue).startswith("Created the queue emails ")
        job_id = _shell(export, make_job).split()[3]
        assert job_id in _shell(export, list_jobs)
        assert dev.taskforge("queue", "update", "emails", "--retry-delay", "100ms").returncode == 0
        with Command(
            "worker", "run", "tasks:worker", variables=dev.variables, folder=open_folder
        ) as worker:
            assert _until_finished(dev, job_id).status is JobStatus.SUCCEEDED
            assert worker.stop() == 0
        shown = dev.taskforge("job", "show", job_id).stdout
        assert '{"sent_to":"ann@example.org"}' in shown
        history = [line.split() for line in shown.partition("ATTEMPT")[2].splitlines()[1:]]
        assert [row[0] for row in history] == ["1", "2"]
        assert "ConnectionError:" in history[0]
        assert "SUCCEEDED" in history[1]
        children = dev.processes()
        assert dev.stop(signal.SIGINT) == 0
        until_gone(children)
        assert "Traceback" not in dev.err.text
        seen_by_others = " ".join([dev.out.text, dev.err.text, *children.values()])
        assert key.rpartition("_")[2] not in seen_by_others


def test_the_operators_key_that_it_tells_how_to_make_manages_organisations(
    open_folder: Path,
) -> None:
    with DevSystem(open_folder / "data") as dev:
        refused = dev.taskforge("admin", "organisation", "create", "acme")
        assert refused.returncode == 1
        (make_key,) = _pasted(dev.out.text, "To manage organisations and quotas too, ")
        key_file = open_folder / "operator.key"
        made = subprocess.run(
            ["/bin/sh", "-ec", f"umask 077; {make_key} > {key_file}"],
            env=environment(),
            timeout=PATIENCE,
            check=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "Made a key of the operator default" in made.stderr
        operator = {"TASKFORGE_API_KEY_FILE": str(key_file)}
        created = dev.taskforge("admin", "organisation", "create", "acme", variables=operator)
        assert (created.returncode, created.stderr) == (0, "")
        audit = dev.taskforge("admin", "audit", variables=operator).stdout
        assert "taskforge dev" in audit


def test_a_database_that_others_have_keys_of_is_one_line_and_gets_no_key(
    empty_database_url: str, open_folder: Path
) -> None:
    run_apart(migrate(empty_database_url))
    run_apart(bootstrap(empty_database_url))
    refused = subprocess.run(
        command_line(
            *("dev", "--database-url", empty_database_url, "--data-folder", str(open_folder)),
            *("--queue-port", "0", "--job-port", "0"),
        ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        "error: the organisation default of this database manages all others, so no key is made"
        f" there: put one of yours into {open_folder / 'local.key'} (taskforge admin key create"
        " makes one, or taskforge admin bootstrap), or use another database"
    )
    assert not (open_folder / "local.key").exists()


def test_a_killed_dev_leaves_no_process_and_comes_back_with_the_same_jobs(
    open_folder: Path,
) -> None:
    with DevSystem(open_folder / "data") as dev:
        with dev.client() as client:
            client.create_queue("kept")
            kept = [client.create_job("kept", "t", {"n": n}).id for n in range(3)]
        children = dev.processes()
        words = " ".join(children.values())
        for name in ("queue_service", "job_service", "scheduler_service", "postgres"):
            assert name in words
        dev.stop(signal.SIGKILL)
        until_gone(children)
    with DevSystem(open_folder / "data") as dev, dev.client() as client:
        assert [job.id for job in client.list_jobs(queue="kept")] == kept[::-1]
        client.create_job("kept", "t")
        assert client.queue_stats("kept").counts.pending == 4


def test_what_dies_is_started_again(open_folder: Path) -> None:
    with DevSystem(open_folder / "data") as dev, dev.client() as client:
        client.create_queue("again")
        for name, words in (
            ("queue_service", "queue_service was killed by SIGKILL; starting it again in 0.5 s"),
            ("job_service", "job_service was killed by SIGKILL; starting it again in 0.5 s"),
            ("scheduler_service", "scheduler_service was killed by SIGKILL"),
            ("postgres", "Postgres has died; starting it again"),
        ):
            victim = dev.pid_of(name)
            os.kill(victim, signal.SIGKILL)
            dev.until_says(words)
            until_gone([victim])
            until(partial(dev.has, name), f"{name} is back")
            # The client repeats its calls until the server and its database are there.
            job = client.create_job("again", "t")
            assert client.get_job(job.id).status is JobStatus.PENDING
            assert client.get_queue("again").name == "again"
        assert client.queue_stats("again").counts.pending == 4


def test_a_data_folder_in_use_is_one_line(dev: DevSystem) -> None:
    folder = dev.data_folder
    second = dev.taskforge(
        "dev", "--data-folder", str(folder), "--queue-port", "0", "--job-port", "0"
    )
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1] == (
        f"error: the data folder {folder} is in use by another process"
    )
    assert dev.taskforge("queue", "list").returncode == 0


def test_a_port_in_use_is_one_line(open_folder: Path, dev: DevSystem) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = dev.taskforge(
            "dev", "--data-folder", str(open_folder), "--queue-port", "0", "--job-port", str(port)
        )
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == f"error: port {port} is in use by another process"
    assert not list(open_folder.iterdir())


def test_a_database_that_is_not_there_is_one_line(dev: DevSystem) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    refused = dev.taskforge(
        "dev", "--database-url", f"postgresql://x@127.0.0.1:{port}/x", "--queue-port", "0",
        "--job-port", "0",
    )  # fmt: skip
    assert refused.returncode == 3
    assert refused.stderr.splitlines()[-1].startswith("error: cannot reach the database: ")
    assert "Traceback" not in refused.stderr
