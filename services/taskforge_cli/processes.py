"""Child processes of a launcher: they end when it ends, however it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0


class ChildProcess:
    """A process that runs until it is stopped, or until this process ends in any way.

    It belongs to a session of its own, so that Ctrl-C in a terminal reaches the launcher alone,
    which stops its children in order. The kernel kills a child when the *thread* that started it
    ends; so each child has a thread of its own, which starts it and then waits for its end.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
        on_end: Callable[["ChildProcess"], None] | None = None,
    ) -> None:
        """Start the process.

        Args:
            name: What people call it.
            command: An absolute path and its arguments.
            environment: Variables beside the inherited ones.
            output: The file that its output is appended to. Default: it shares our stderr.
            on_end: Called by another thread when it has ended.

        Raises:
            OSError: The output cannot be opened, or no process can be started.
        """
        self.name = name
        self._ended = threading.Event()
        started: Future[subprocess.Popen[bytes]] = Future()

        def keep() -> None:
            try:
                process = _spawn(command, environment or {}, output)
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                started.set_exception(error)
                return
            started.set_result(process)
            process.wait()
            self._ended.set()
            if on_end is not None:
                on_end(self)

        threading.Thread(target=keep, name=f"child {name}", daemon=True).start()
        self._process = started.result()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the number of the signal that ended it."""
        return self._process.returncode if self._ended.is_set() else None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; does nothing when the process has ended."""
        if not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def wait(self, timeout: float) -> bool:
        """Whether it has ended, after at most `timeout` seconds."""
        return self._ended.wait(timeout)


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with the Python that runs us."""
    return [sys.executable, "-m", module, *arguments]


def how_it_ended(exit_code: int) -> str:
    """Words for an exit code: `ended with code 1`, `was killed by SIGKILL`."""
    if exit_code >= 0:
        return f"ended with code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


def restart_pause(failures: int) -> float:
    """Seconds to wait before a process that has died so often in a row is started again."""
    return float(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures, 10)))


def _spawn(
    command: Sequence[str], environment: Mapping[str, str], output: Path | None
) -> subprocess.Popen[bytes]:
    shim = Path(__file__).with_name("tied.py")
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(output.open("ab")) if output is not None else sys.__stderr__
        return subprocess.Popen(
            # -I and -S: nothing of the user's Python environment runs, and it starts in no time.
            [sys.executable, "-I", "-S", str(shim), str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},  # noqa: TID251 - handed on, not read
            start_new_session=True,
        )
