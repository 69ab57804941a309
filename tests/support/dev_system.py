"""`taskforge dev` as a user runs it: a process of its own, on a folder and ports of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.support.processes import PATIENCE, descendants, until

from taskforge_cli import tied
from taskforge_sdk import BlockingClient

_LAST_LINE = "Ctrl-C stops it"
_ADDRESS = re.compile(r"^ +(queue|job) service +(\S+)$", re.MULTILINE)


class Output:
    """Collects what a process writes, while it runs."""

    def __init__(self, stream: IO[str]) -> None:
        self._lines: list[str] = []
        threading.Thread(target=self._collect, args=(stream,), daemon=True).start()

    @property
    def text(self) -> str:
        """All that has come so far."""
        return "".join(self._lines)

    def _collect(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.append(line)


class Command:
    """A `taskforge …` process that runs until it is told to stop."""

    def __init__(
        self,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            # Tied to us: a test run that gets SIGKILL leaves nothing behind.
            [
                sys.executable,
                "-I",
                "-S",
                tied.__file__,
                str(os.getpid()),
                *command_line(*arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(variables),
            cwd=folder,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out = Output(self.process.stdout)
        self.err = Output(self.process.stderr)

    def until_says(self, words: str) -> None:
        """Return when it has written these words to stdout or stderr."""

        def said() -> bool:
            # Asked before the output is read: what it wrote last is then there, or will be.
            ended = self.process.poll() is not None
            if words in self.out.text or words in self.err.text:
                return True
            assert not ended, f"it ended: {self.out.text}{self.err.text}"
            return False

        until(said, f"it says {words!r}: {self.out.text}{self.err.text}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and return the exit code, once it has ended."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class DevSystem(Command):
    """`taskforge dev` on free ports; serves when the constructor returns."""

    def __init__(self, data_folder: Path, variables: Mapping[str, str] | None = None) -> None:
        super().__init__(
            *("dev", "--data-folder", str(data_folder), "--queue-port", "0", "--job-port", "0"),
            variables=variables,
        )
        self.data_folder = data_folder
        self.until_says(_LAST_LINE)
        self.addresses = dict(_ADDRESS.findall(self.out.text))

    @property
    def variables(self) -> dict[str, str]:
        """What points other commands to this system."""
        return {
            "TASKFORGE_API_KEY_FILE": str(self.key_file),
            **{f"TASKFORGE_{name.upper()}_ADDRESS": at for name, at in self.addresses.items()},
        }

    @property
    def key_file(self) -> Path:
        """Where it has left its key."""
        return self.data_folder / "local.key"

    def client(self) -> BlockingClient:
        """A client of this system."""
        return BlockingClient(
            queue_address=self.addresses["queue"],
            job_address=self.addresses["job"],
            api_key=self.key_file.read_text().strip(),
        )

    def taskforge(
        self, *arguments: str, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run another command against this system, to its end; `variables` are added."""
        return subprocess.run(
            command_line(*arguments),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=environment({**self.variables, **(variables or {})}),
            check=False,
        )

    def processes(self) -> dict[int, str]:
        """All processes below it, with their command lines."""
        return {pid: command for pid, (_, command) in descendants(self.process.pid).items()}

    def has(self, name: str) -> bool:
        """Whether a process directly below it has this word in its command line."""
        return bool(self._children(name))

    def pid_of(self, name: str) -> int:
        """The process directly below it whose command line has this word."""
        (pid,) = self._children(name)
        return pid

    def _children(self, name: str) -> list[int]:
        return [
            pid
            for pid, (parent, command) in descendants(self.process.pid).items()
            if parent == self.process.pid and name in command
        ]


def command_line(*arguments: str) -> list[str]:
    """How the tests run the command: with their own Python."""
    return [sys.executable, "-m", "taskforge_cli", *arguments]


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process' environment without settings of TaskForge, and these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TASKFORGE_")}
    return {**kept, **(variables or {})}
