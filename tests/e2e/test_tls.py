"""A whole system over mutual TLS: services, command, worker and SDK."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from tests.support.dev_system import Command, DevSystem
from tests.support.processes import until

from taskforge_sdk import BlockingClient, JobStatus, Tls

TASKS = """
from taskforge_sdk import JobContext, Worker

worker = Worker(queues=["emails"])


@worker.job("send-email")
async def send_email(job: JobContext) -> None:
    pass
"""


class Certificates:
    """What both sides are started with; `write` makes all of it anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.server = {
            "TASKFORGE_TLS_CERTIFICATE": str(folder / "server.pem"),
            "TASKFORGE_TLS_KEY": str(folder / "server.key"),
            "TASKFORGE_TLS_CLIENT_AUTHORITIES": str(folder / "ca.pem"),
        }
        self.client = {
            "TASKFORGE_TLS_AUTHORITIES": str(folder / "ca.pem"),
            "TASKFORGE_TLS_CLIENT_CERTIFICATE": str(folder / "client.pem"),
            "TASKFORGE_TLS_CLIENT_KEY": str(folder / "client.key"),
        }
        self.tls = Tls(*self.client.values())
        (folder / "ca.pem").write_bytes(self.authority.cert_pem.bytes())
        self.write()

    def write(self) -> None:
        for name, host in (("server", "127.0.0.1"), ("client", "client.example")):
            leaf = self.authority.issue_cert(host)
            (self.folder / f"{name}.key").write_bytes(leaf.private_key_pem.bytes())
            (self.folder / f"{name}.pem").write_bytes(leaf.cert_chain_pems[0].bytes())


@pytest.fixture
def certificates(open_folder: Path) -> Certificates:
    return Certificates(open_folder)


@pytest.fixture
def secured(open_folder: Path, certificates: Certificates) -> Iterator[DevSystem]:
    variables = {**certificates.server, **certificates.client}
    with DevSystem(open_folder / "data", variables) as system:
        yield system


def test_the_whole_system_runs_over_mutual_tls_and_follows_changed_certificates(
    secured: DevSystem, certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    made = secured.taskforge("queue", "create", "emails", variables=certificates.client)
    assert (made.returncode, made.stderr) == (0, "")
    key = secured.key_file.read_text().strip()
    with (
        BlockingClient(
            queue_address=secured.addresses["queue"],
            job_address=secured.addresses["job"],
            api_key=key,
            tls=certificates.tls,
        ) as client,
        Command(
            *("worker", "run", "tasks:worker"),
            variables={**secured.variables, **certificates.client},
            folder=tmp_path,
        ) as worker,
    ):
        for _ in range(2):
            job_id = client.create_job("emails", "send-email").id
            until(
                lambda job_id=job_id: client.get_job(job_id).status is JobStatus.SUCCEEDED,  # type: ignore[misc]
                "the job is done",
            )
            certificates.write()
        secured.until_says("certificate_reloaded")
        assert worker.stop() == 0
    grpcurl = next(line for line in secured.out.text.splitlines() if "grpcurl -" in line)
    assert f"-cacert {certificates.folder}/ca.pem -cert " in grpcurl


def test_who_speaks_plaintext_or_shows_no_certificate_is_told_in_one_line(
    secured: DevSystem, certificates: Certificates
) -> None:
    bare = {"TASKFORGE_TLS_AUTHORITIES": certificates.client["TASKFORGE_TLS_AUTHORITIES"]}
    for variables in ({}, bare):
        refused = secured.taskforge("queue", "list", variables=variables)
        assert refused.returncode == 3
        assert refused.stderr.startswith("error: cannot reach the queue service at ")
        assert refused.stderr.count("\n") == 1
        assert "does the server speak TLS, or want a client certificate?" in refused.stderr


def test_a_server_that_speaks_plaintext_or_has_a_foreign_certificate_is_told_in_one_line(
    dev: DevSystem, secured: DevSystem, certificates: Certificates, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign.pem"
    foreign.write_bytes(trustme.CA().cert_pem.bytes())
    for system, variables in (
        (dev, certificates.client),
        (secured, {**certificates.client, "TASKFORGE_TLS_AUTHORITIES": str(foreign)}),
    ):
        refused = system.taskforge("queue", "list", variables=variables)
        assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
        assert refused.stderr.startswith("error: cannot reach the queue service at ")


def test_a_server_without_a_good_certificate_is_one_line(
    open_folder: Path, certificates: Certificates
) -> None:
    (open_folder / "server.pem").write_text("garbage")
    variables = {
        **certificates.server,
        "TASKFORGE_DATABASE_URL": "postgresql://x@127.0.0.1:1/x",
        "TASKFORGE_QUEUE_ADDRESS": "127.0.0.1:0",
    }
    with Command("serve", "queue", variables=variables) as server:
        assert server.process.wait(30) == 1
        until(lambda: "\n" in server.err.text, "it has said why")
        last = server.err.text.splitlines()[-1]
    assert last.startswith("queue_service: cannot listen on 127.0.0.1:0: tls_certificate: ")
    assert "Traceback" not in server.err.text
