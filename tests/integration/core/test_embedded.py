"""The embedded Postgres: what it survives, what it leaves behind, and whom it refuses."""

import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from tests.conftest import execute, run_apart

from taskforge_core import embedded, embedded_binaries
from taskforge_core.embedded import DataFolderInUse, EmbeddedPostgres, EmbeddedPostgresError
from taskforge_core.embedded_process import NOBODY, run_to_end

PARENT = """
import sys
from pathlib import Path
from taskforge_core.embedded import EmbeddedPostgres
from taskforge_core.logs import configure_logging
configure_logging()
postgres = EmbeddedPostgres(Path(sys.argv[1]), fsync=False)
postgres.start()
print(postgres.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(open_folder: Path) -> Path:
    return open_folder / "postgres"


@pytest.fixture
def parent(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that runs a server on the folder; its first line is the server's number."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()


def processes_of(folder: Path) -> list[int]:
    """Every process that works in the cluster: the server and its backends."""
    cluster = str((folder / "cluster").resolve())
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str((entry / "cwd").readlink()) == cluster:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_for_the_end_of(pids: list[int]) -> None:
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ended, _, _ = select.select([handle], [], [], 20)
            assert ended, f"process {pid} is still there"
        finally:
            os.close(handle)


async def names(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row["name"] for row in await connection.fetch("SELECT name FROM kept")]
    finally:
        await connection.close()


def write(dsn: str) -> None:
    run_apart(execute(dsn, "CREATE TABLE kept (name text); INSERT INTO kept VALUES ('a')"))


def test_data_outlives_the_server(folder: Path) -> None:
    with EmbeddedPostgres(folder, fsync=False) as postgres:
        write(postgres.dsn)
        pid = postgres.pid
        assert pid is not None
        assert processes_of(folder)
    assert processes_of(folder) == []
    assert postgres.pid is None
    with EmbeddedPostgres(folder, fsync=False) as again:
        assert again.pid != pid
        assert run_apart(names(again.dsn)) == ["a"]


def test_with_fsync_it_is_durable_by_default(folder: Path) -> None:
    async def shown(dsn: str) -> list[str]:
        connection = await asyncpg.connect(dsn)
        try:
            return [
                await connection.fetchval(f"SHOW {name}")
                for name in ("fsync", "synchronous_commit", "full_page_writes", "work_mem")
            ]
        finally:
            await connection.close()

    with EmbeddedPostgres(folder, settings={"work_mem": "5MB"}) as postgres:
        assert run_apart(shown(postgres.dsn)) == ["on", "on", "on", "5MB"]


def test_a_parent_killed_with_sigkill_leaves_no_process_and_its_data_serves_again(
    folder: Path, parent: "subprocess.Popen[str]"
) -> None:
    assert parent.stdout is not None
    server = int(parent.stdout.readline())
    started = EmbeddedPostgres(folder)
    write(started.dsn)
    processes = processes_of(folder)
    assert server in processes
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    # At once: while the old server may still be ending.
    with EmbeddedPostgres(folder, fsync=False) as again:
        wait_for_the_end_of(processes)
        assert run_apart(names(again.dsn)) == ["a"]
    assert processes_of(folder) == []


def test_a_folder_in_use_by_another_process_is_refused_and_its_server_unharmed(
    folder: Path, parent: "subprocess.Popen[str]"
) -> None:
    assert parent.stdout is not None
    server = int(parent.stdout.readline())
    late = EmbeddedPostgres(folder)
    with pytest.raises(DataFolderInUse, match="in use by another process"):
        late.start()
    assert server in processes_of(folder)
    run_apart(execute(late.dsn, "SELECT 1"))


def test_a_server_that_others_started_on_the_folder_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_OWNERLESS_TIMEOUT", 0.1)
    with EmbeddedPostgres(folder, fsync=False) as postgres:
        # As if its owner had started it by hand: the lock is free, the server is not.
        postgres._release_lock()
        with pytest.raises(DataFolderInUse):
            EmbeddedPostgres(folder).start()
        run_apart(execute(postgres.dsn, "SELECT 1"))


def test_a_killed_server_is_replaced_on_the_same_data(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder)
    postgres.start()
    write(postgres.dsn)
    processes = processes_of(folder)
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    wait_for_the_end_of([postgres.pid])
    postgres.stop()
    postgres.start()
    try:
        wait_for_the_end_of(processes)
        assert run_apart(names(postgres.dsn)) == ["a"]
    finally:
        postgres.stop()


def test_the_number_of_a_dead_server_that_now_belongs_to_another_process_does_not_matter(
    folder: Path,
) -> None:
    with EmbeddedPostgres(folder, fsync=False) as postgres:
        pid_file = (folder / "cluster" / "postmaster.pid").read_text().splitlines()
    assert postgres.pid is None
    stale = "\n".join([str(os.getpid()), *pid_file[1:]])
    (folder / "cluster" / "postmaster.pid").write_text(stale)
    with EmbeddedPostgres(folder, fsync=False) as again:
        run_apart(execute(again.dsn, "SELECT 1"))


def test_it_outlives_the_thread_that_started_it(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder, fsync=False)
    thread = threading.Thread(target=postgres.start)
    thread.start()
    thread.join()
    try:
        run_apart(execute(postgres.dsn, "SELECT 1"))
        assert postgres.pid in processes_of(folder)
    finally:
        postgres.stop()


def test_an_initialisation_cut_short_is_begun_anew(folder: Path) -> None:
    (folder / "cluster.unfinished" / "base").mkdir(parents=True)
    with EmbeddedPostgres(folder, fsync=False) as postgres:
        run_apart(execute(postgres.dsn, "SELECT 1"))
    assert not (folder / "cluster.unfinished").exists()


def test_a_path_too_long_for_a_socket_still_works(open_folder: Path) -> None:
    deep = open_folder / ("long" * 20) / "postgres"
    postgres = EmbeddedPostgres(deep, fsync=False)
    with postgres:
        run_apart(execute(postgres.dsn, "SELECT 1"))
        sockets = postgres._socket_folder
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert not sockets.exists()


def test_nobody_else_can_connect(folder: Path) -> None:
    with EmbeddedPostgres(folder, fsync=False) as postgres:
        assert stat.S_IMODE((folder / "run").stat().st_mode) == 0o700
        server = Path(f"/proc/{postgres.pid}/net/tcp").read_text().splitlines()
        listening = [line.split()[9] for line in server[1:] if line.split()[3] == "0A"]
        ours = {str(fd.readlink()) for fd in _open_files(postgres.pid)}
        assert not {f"socket:[{inode}]" for inode in listening} & ours


def _open_files(pid: int | None) -> list[Path]:
    return list(Path(f"/proc/{pid}/fd").iterdir())


def test_why_it_cannot_start_is_told_in_one_line(folder: Path) -> None:
    with EmbeddedPostgres(folder, fsync=False):
        pass
    broken = EmbeddedPostgres(folder, settings={"shared_buffers": "nonsense"})
    with pytest.raises(EmbeddedPostgresError, match="shared_buffers") as refused:
        broken.start()
    assert "\n" not in str(refused.value)
    # The folder is free again.
    with EmbeddedPostgres(folder, fsync=False) as postgres:
        run_apart(execute(postgres.dsn, "SELECT 1"))


def test_a_folder_that_cannot_be_made_is_told(open_folder: Path) -> None:
    (open_folder / "file").touch()
    with pytest.raises(EmbeddedPostgresError, match="cannot make the data folder"):
        EmbeddedPostgres(open_folder / "file" / "postgres").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts Postgres as another user")
def test_root_is_told_which_folder_bars_the_way(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=str(closed)):
        EmbeddedPostgres(closed / "postgres").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts Postgres as another user")
def test_binaries_in_a_closed_folder_are_copied_once_to_where_all_can_run_them(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = embedded_binaries.installed_package()
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    for source in (installed, installed.with_name(f"{installed.name}.libs")):
        shutil.copytree(source, closed / source.name, symlinks=True)
    monkeypatch.setattr(embedded_binaries, "installed_package", lambda: closed / installed.name)
    monkeypatch.setattr(embedded_binaries, "_CACHE", open_folder / "cache")
    binaries = embedded_binaries.usable_binaries(NOBODY)
    assert not binaries.is_relative_to(closed)
    code, output = run_to_end([binaries / "postgres", "--version"], NOBODY)
    assert code == 0, output
    assert output.startswith("postgres (PostgreSQL) ")
    copied = binaries.stat().st_ino
    assert embedded_binaries.usable_binaries(NOBODY).stat().st_ino == copied
    assert len(list((open_folder / "cache").iterdir())) == 1
