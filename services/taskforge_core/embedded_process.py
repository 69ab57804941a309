"""Child processes that die with us and run without root's rights: for the embedded Postgres."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

NOBODY = 65534
"""The user and group that Postgres runs as when we are root."""

_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def server_owner() -> int | None:
    """The uid that the server gets: nobody when we are root, else our own (None)."""
    return NOBODY if os.geteuid() == 0 else None


def run_to_end(
    command: Sequence[str | Path], owner: int | None, script: str = ""
) -> tuple[int, str]:
    """Run a command with `script` as its input; its exit code and all that it printed."""
    with _spawn(command, owner, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        output, _ = process.communicate(script.encode())
    return process.returncode, output.decode(errors="replace")


class Child:
    """A process that runs until it is stopped, or until this process ends in any way.

    The kernel sends the death signal when the *thread* that forked ends. So each child has a
    thread of its own, which forks it and then waits for its end.
    """

    def __init__(self, command: Sequence[str | Path], owner: int | None, output: Path) -> None:
        """Start the process; what it prints is appended to the file `output`.

        Raises:
            OSError: The command cannot be executed.
        """
        self._ended = threading.Event()
        started: Future[subprocess.Popen[bytes]] = Future()

        def keep() -> None:
            try:
                with output.open("ab") as log:
                    process = _spawn(command, owner, stdin=subprocess.DEVNULL, stdout=log.fileno())
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                started.set_exception(error)
                return
            started.set_result(process)
            process.wait()
            self._ended.set()

        threading.Thread(target=keep, name="embedded postgres", daemon=True).start()
        self._process = started.result()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._ended.is_set()

    def stop(self, signals: Sequence[signal.Signals], timeout: float) -> None:
        """Send the first signal and wait; after `timeout` seconds the next, down to the last."""
        for number in signals:
            if self._ended.is_set():
                return
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
            if self._ended.wait(timeout):
                return


def _spawn(
    command: Sequence[str | Path], owner: int | None, *, stdin: int, stdout: int
) -> subprocess.Popen[bytes]:
    shim = Path(__file__).with_name("embedded_exec.py")
    uid = -1 if owner is None else owner
    # -I and -S: nothing of the user's Python environment runs, and it starts in milliseconds.
    prefix: list[str | Path] = [sys.executable, "-I", "-S", shim, str(os.getpid()), str(uid)]
    return subprocess.Popen(
        [*prefix, *command],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        # The working folder must be one that its user may enter.
        cwd="/",
        env=_ENVIRONMENT,
        # Ctrl-C in a terminal reaches us alone; we stop the server when we are done with it.
        start_new_session=True,
    )
