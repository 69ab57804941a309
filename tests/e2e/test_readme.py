"""The README keeps its word: its commands and programs are run as they stand there."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer
from tests.support.dev_system import Command, DevSystem, environment
from tests.support.processes import PATIENCE, until

from taskforge_cli import application
from taskforge_cli.ports import ReservedPort
from taskforge_core.settings import Settings
from taskforge_sdk import BlockingClient, JobStatus

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ACTIVATE = ". .venv/bin/activate"


def _blocks(language: str) -> list[str]:
    return [text for name, text in _BLOCK.findall(README) if name == language]


# Whoever adds a block must say here, and below, how it is run.
MAKE, FIRST_WORKER, FIRST_JOB, OWN_POSTGRES, TOKENS = _blocks("sh")
EMAILS, PRODUCER, RENEWING = _blocks("python")


class Shell:
    """The terminal of somebody who has activated the virtual environment in this folder."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        assert f"`{_ACTIVATE}`" in README
        (folder / ".venv").symlink_to(sys.prefix)
        self.folder = folder
        self.variables = dict(variables)

    def run(self, script: str) -> str:
        """Run commands to their end, all of which must succeed; what they print."""
        done = subprocess.run(
            ["sh", "-ec", f"{_ACTIVATE}\n{script}"],
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            env=environment(self.variables),
            cwd=self.folder,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, line: str) -> Command:
        """Start a command that goes on until it is stopped; to be entered as a context manager."""
        program, *arguments = shlex.split(line)
        assert program == "taskforge"
        return Command(*arguments, variables=self.variables, folder=self.folder)


def test_a_first_worker_runs_the_first_jobs(dev: DevSystem, tmp_path: Path) -> None:
    (tmp_path / "emails.py").write_text(EMAILS)
    shell = Shell(tmp_path, dev.variables)
    create_queue, run_worker = FIRST_WORKER.splitlines()
    create_job, *look = FIRST_JOB.splitlines()
    shell.run(create_queue)
    with shell.start(run_worker) as worker, dev.client() as client:
        worker.until_says("takes send-email from emails, 20 at once")
        shell.run(create_job)
        assert PRODUCER.count("BlockingClient(") == 1
        addresses = (
            f"queue_address={dev.addresses['queue']!r}, job_address={dev.addresses['job']!r}, "
        )
        program = PRODUCER.replace("BlockingClient(", f"BlockingClient({addresses}")
        (tmp_path / "producer.py").write_text(program)
        [export] = [
            line for line in dev.out.text.splitlines() if "export TASKFORGE_API_KEY=" in line
        ]
        job_id, status = shell.run(f"{export}\npython producer.py").split()
        assert status == "PENDING"
        until(lambda: client.queue_stats("emails").counts.succeeded == 2, "both jobs are done")
        first, second = client.list_jobs(queue="emails")
        assert job_id in {first.id, second.id}
        assert first.payload == second.payload == {"to": "ann@example.org"}
        assert first.result == second.result == {"sent_to": "ann@example.org"}
        listed, stats = (shell.run(command) for command in look)
        assert first.id in listed
        assert second.id in listed
        assert re.search(r"^Succeeded +2$", stats, re.MULTILINE)
        busy = client.create_job("emails", "send-email", {"to": "bob@example.com"}).id
        until(lambda: client.get_job(busy).status is JobStatus.SCHEDULED, "it is to be tried again")
        assert client.get_job(busy).attempts[0].message == "the mail server is busy"
        assert worker.stop() == 0


def test_it_runs_on_a_postgres_of_ones_own(empty_database_url: str, tmp_path: Path) -> None:
    export, migrate, bootstrap, *serve = OWN_POSTGRES.splitlines()
    name, _, example = export.removeprefix("export ").partition("=")
    assert (name, example[:13]) == ("TASKFORGE_DATABASE_URL", "postgresql://")
    with ExitStack() as stack:
        queue, job = (stack.enter_context(ReservedPort()).address for _ in range(2))
        shell = Shell(
            tmp_path,
            {
                name: empty_database_url,
                "TASKFORGE_QUEUE_ADDRESS": queue,
                "TASKFORGE_JOB_ADDRESS": job,
                # The test holds the ports.
                "TASKFORGE_REUSE_PORT": "true",
            },
        )
        assert shell.run(migrate).startswith("The database is at revision ")
        shell.run(bootstrap)
        key_file = tmp_path / "operator.key"
        assert key_file.stat().st_mode & 0o777 == 0o600
        services = [stack.enter_context(shell.start(line)) for line in serve]
        for service, words in zip(services, ("serving", "serving", "leading"), strict=True):
            service.until_says(words)
        client = stack.enter_context(
            BlockingClient(
                queue_address=queue, job_address=job, api_key=key_file.read_text().strip()
            )
        )
        client.create_queue("emails")
        assert client.get_job(client.create_job("emails", "send-email").id).queue_id
        assert [service.stop() for service in services] == [0, 0, 0]


def test_servers_take_what_it_says_of_an_identity_provider(tmp_path: Path) -> None:
    look = "from taskforge_core.settings import Settings; print(Settings().jwt_keys)"
    said = Shell(tmp_path, {}).run(f"{TOKENS}\npython -c '{look}'")
    assert said == "https://id.example.org/jwks.json\n"


def test_a_worker_reads_its_token_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    assert RENEWING.count('"/run/secrets/token"') == 1
    program: dict[str, Any] = {}
    exec(RENEWING.replace('"/run/secrets/token"', repr(str(file))), program)  # noqa: S102 - ours
    credential = program["worker"]._options.credential
    file.write_text("first\n")
    first = credential.metadata()
    file.write_text("second\n")
    assert credential.renew(first)
    assert [first, credential.metadata()] == [
        (("authorization", "Bearer first"),),
        (("authorization", "Bearer second"),),
    ]


def test_make_has_every_target_that_it_names() -> None:
    named = set(re.findall(r"^make (\w+)", MAKE, re.MULTILINE)) | set(
        re.findall(r"`make (\w+)`", README)
    )
    assert {"demo", "dev", "test", "check", "help"} <= named
    targets = set(re.findall(r"^(\w+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= targets


def test_the_table_of_commands_is_complete() -> None:
    listed = set()
    for row in re.findall(r"^\| (`taskforge .*?) \|", README, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", row)
        words = first.removeprefix("taskforge ").split()
        group, last = words[:-1], words[-1]
        if last.isupper() or ":" in last:  # an argument
            group, last = group[:-1], group[-1]
        for other in (last, *others):
            *path, leaf = other.split()
            listed.add((*(path or group), leaf))
    assert listed == set(_commands(typer.main.get_command(application.app)))


def _commands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command below this one; the services are what `serve` can be followed by."""
    if path == ("serve",):
        yield from (("serve", name) for name in ("queue", "job", "scheduler"))
        return
    below = getattr(command, "commands", None)
    if below is None:
        yield path
        return
    for name, child in below.items():
        yield from _commands(child, (*path, name))


def test_the_files_and_settings_that_it_names_are_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    [tree] = [block for block in _blocks("") if block.startswith("protos/")]
    parent = ROOT
    for line in tree.splitlines():
        folder = (parent if line.startswith(" ") else ROOT) / line.split()[0]
        assert folder.is_dir(), line
        parent = parent if line.startswith(" ") else folder
    for variable in re.findall(r"TASKFORGE_(\w+)", README):
        assert variable.lower() in Settings.model_fields
