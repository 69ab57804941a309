"""A Postgres for the tests from binaries of the system, such as Debian's Postgres 15."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taskforge_core.embedded_process import Child, run_to_end, server_owner

START_TIMEOUT = 60
STOP_TIMEOUT = 60


@contextmanager
def other_postgres(binaries: Path) -> Iterator[str]:
    """Run the server whose `initdb`, `postgres` and `psql` are in `binaries`; its address.

    fsync is off, and the data is gone afterwards.
    """
    owner = server_owner()
    folder = Path(tempfile.mkdtemp(prefix="taskforge-test-"))
    folder.chmod(0o777)
    data = folder / "data"
    try:
        make = ["--username=taskforge", "--auth=trust", "--encoding=UTF8", "--no-locale"]
        code, output = run_to_end(
            [binaries / "initdb", *make, "--no-sync", "--pgdata", data], owner
        )
        assert code == 0, output
        options = [f"-cunix_socket_directories={folder}", "-clisten_addresses=", "-cfsync=off"]
        command = [str(binaries / "postgres"), "-D", str(data), "-cmax_connections=200", *options]
        server = Child(command, owner, folder / "log")
        try:
            # Asks until the server answers, or fails after the timeout.
            code, output = run_to_end(
                ["/bin/sh", "-c", _WAIT, "wait", str(binaries), str(folder)], owner
            )
            assert code == 0, (folder / "log").read_text()
            yield f"postgresql://taskforge@/postgres?host={folder}"
        finally:
            server.stop([signal.SIGINT, signal.SIGKILL], STOP_TIMEOUT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_WAIT = f"""
tries=0
until "$1/pg_isready" --quiet --host "$2"; do
    tries=$((tries + 1))
    test "$tries" -lt {START_TIMEOUT * 20} || exit 1
    sleep 0.05
done
"""
