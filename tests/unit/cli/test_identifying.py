"""What the command shows to servers, and where it gets it from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
import typer
from tests.unit.cli.building import Taskforge

from taskforge_cli import application
from taskforge_cli.configuration import load_settings
from taskforge_cli.connecting import make_client
from taskforge_cli.failures import CommandError
from taskforge_core.settings import Settings
from taskforge_sdk import Unauthenticated, Worker

HERE, ELSEWHERE = "127.0.0.1:50051", "queues.example.org:50051"


@pytest.fixture(autouse=True)
def data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The data folder of a user who has set nothing else."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TASKFORGE_{name.upper()}", raising=False)
    monkeypatch.setenv("TASKFORGE_DATA_FOLDER", str(tmp_path))
    return tmp_path


def key_to(address: str) -> str:
    """The key that a command would send there; empty where it would send none."""
    with make_client(load_settings(), address) as client:
        metadata = dict(client._credential.metadata())
    return metadata.get("authorization", "").removeprefix("Bearer ")


def test_the_key_of_dev_is_found_for_servers_on_this_machine_alone(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert key_to(HERE) == ""
    (data_folder / "local.key").write_text("tfk_local\n")
    assert key_to(HERE) == "tfk_local"
    assert key_to("unix:/run/taskforge") == "tfk_local"
    assert key_to(ELSEWHERE) == ""
    ca = data_folder / "ca.pem"
    ca.write_bytes(trustme.CA().cert_pem.bytes())
    monkeypatch.setenv("TASKFORGE_TLS_AUTHORITIES", str(ca))
    assert key_to(ELSEWHERE) == ""


def test_what_is_given_wins_the_key_itself_before_its_file(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data_folder / "local.key").write_text("tfk_local")
    given = data_folder / "given"
    given.write_text("  tfk_of_file\n")
    monkeypatch.setenv("TASKFORGE_API_KEY_FILE", str(given))
    assert key_to(HERE) == "tfk_of_file"
    monkeypatch.setenv("TASKFORGE_API_KEY", "tfk_given")
    assert key_to(HERE) == "tfk_given"


def test_a_certificate_takes_the_place_of_the_key_of_dev(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("me.example")
    files = {
        "AUTHORITIES": ca.cert_pem.bytes(),
        "CLIENT_CERTIFICATE": leaf.cert_chain_pems[0].bytes(),
        "CLIENT_KEY": leaf.private_key_pem.bytes(),
    }
    for name, content in files.items():
        (data_folder / name).write_bytes(content)
        monkeypatch.setenv(f"TASKFORGE_TLS_{name}", str(data_folder / name))
    (data_folder / "local.key").write_text("tfk_local")
    assert key_to(HERE) == ""


def test_a_file_that_changes_is_read_again(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = data_folder / "given"
    given.write_text("tfk_old")
    monkeypatch.setenv("TASKFORGE_API_KEY_FILE", str(given))
    with make_client(load_settings(), HERE) as client:
        old = client._credential.metadata()
        given.write_text("tfk_new")
        assert client._credential.renew(old)
        assert dict(client._credential.metadata()) == {"authorization": "Bearer tfk_new"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        (b"", "holds no key"),
        (b"\n", "holds no key"),
        (b"\xff\xfe", "it is no text"),
        (b"two words", "printable ASCII"),
    ],
)
def test_a_file_without_a_key_is_one_line(
    taskforge: Taskforge,
    data_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
    words: str,
) -> None:
    given = data_folder / "given"
    if content is not None:
        given.write_bytes(content)
    monkeypatch.setenv("TASKFORGE_API_KEY_FILE", str(given))
    outcome = taskforge("queue", "list")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: TASKFORGE_API_KEY_FILE: ")
    assert words in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("command", ["queue", "job"])
def test_no_key_goes_out_in_plaintext(
    taskforge: Taskforge, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("TASKFORGE_API_KEY", "tfk_hunter2")
    outcome = taskforge(command, "list", f"--{command}-address", ELSEWHERE)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        f"error: the API key would go to {ELSEWHERE} in plaintext: set TASKFORGE_TLS_AUTHORITIES"
        " to the CA certificates that the server's is signed by\n"
    )


@pytest.mark.parametrize("command", [("queue", "list"), ("worker", "run", "tasks:worker")])
def test_unusable_files_of_tls_are_one_line(
    taskforge: Taskforge,
    monkeypatch: pytest.MonkeyPatch,
    data_folder: Path,
    command: tuple[str, ...],
) -> None:
    worker = Worker()
    worker.job("work")(print)
    monkeypatch.setattr("taskforge_cli.workers.load_worker", lambda _: worker)
    monkeypatch.setenv("TASKFORGE_TLS_AUTHORITIES", str(data_folder / "ca.pem"))
    outcome = taskforge(*command)
    assert outcome.code == 2
    missing = data_folder / "ca.pem"
    assert outcome.err == f"error: tls: cannot read {missing}: No such file or directory\n"


def test_a_refusal_says_how_to_give_a_key(client: Any, taskforge: Taskforge) -> None:
    client.queue_stats.side_effect = Unauthenticated(
        "send an API key", code=grpc.StatusCode.UNAUTHENTICATED, reason="CREDENTIAL_MISSING"
    )
    outcome = taskforge("queue", "stats", "emails")
    assert outcome.code == 1
    assert outcome.err == (
        "error: CREDENTIAL_MISSING: send an API key; set TASKFORGE_API_KEY_FILE to a file that"
        " holds an API key, or TASKFORGE_API_KEY to the key\n"
    )


def test_a_worker_keeps_the_key_of_its_module_unless_another_is_given(
    taskforge: Taskforge, monkeypatch: pytest.MonkeyPatch, data_folder: Path
) -> None:
    (data_folder / "local.key").write_text("tfk_local")
    shown: list[str] = []

    class Recorded(Worker):
        def run_forever(self) -> None:
            metadata = dict(self.options.credential.metadata())
            shown.append(metadata.get("authorization", "").removeprefix("Bearer "))

    def run(api_key: str | None) -> None:
        worker = Recorded(api_key=api_key)
        monkeypatch.setattr("taskforge_cli.workers.load_worker", lambda _: worker)
        outcome = taskforge("worker", "run", "tasks:worker")
        assert (outcome.code, outcome.err) == (0, "")

    run(None)
    run("tfk_of_module")
    monkeypatch.setenv("TASKFORGE_API_KEY", "tfk_given")
    run("tfk_of_module")
    assert shown == ["tfk_local", "tfk_of_module", "tfk_given"]


def test_no_command_takes_a_secret_where_all_processes_are_listed() -> None:
    for path, option in _options(typer.main.get_command(application.app)):
        words = option.removeprefix("--").split("-")
        assert not {"key", "secret", "token", "password", "jwt"} & set(words), (path, option)


def _options(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    for parameter in command.params:
        yield from ((path, option) for option in parameter.opts if option.startswith("-"))
    for name, child in getattr(command, "commands", {}).items():
        yield from _options(child, (*path, name))


def test_an_unreadable_setting_is_told_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFORGE_API_KEY", "tfk hunter2")
    with pytest.raises(CommandError) as refused:
        make_client(load_settings(), HERE)
    assert "hunter2" not in str(refused.value)
