"""The load processes of a measurement, as the bench sees them."""

import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from taskforge_cli.bench.lines import Line, LineClosed
from taskforge_cli.bench.orders import Order, Outcome, message_of
from taskforge_cli.failures import CommandError
from taskforge_cli.processes import ChildProcess, how_it_ended, python_command

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.25
STALLED_SECONDS = 60.0
"""A load that gets nothing done for so long is given up."""


class Load:
    """One load process. It carries out one order at a time."""

    def __init__(
        self, name: str, folder: Path, environment: Mapping[str, str], changed: threading.Condition
    ) -> None:
        """Start it; returns when it takes orders.

        Raises:
            CommandError: It does not start.
        """
        self.name = name
        self.done = 0
        """How many jobs of its order it has done."""
        self._log = folder / f"{name}.log"
        self._changed = changed
        self._outcome: Outcome | None = None
        self._error: str | None = None
        with (
            # Only this user may enter it, and its path is short enough for a socket.
            tempfile.TemporaryDirectory(prefix="taskforge-", dir="/tmp") as meeting,
            socket.socket(socket.AF_UNIX) as listener,
        ):
            path = Path(meeting, "line")
            listener.bind(str(path))
            listener.listen(1)
            listener.settimeout(_LOOK_SECONDS)
            self._process = ChildProcess(
                name,
                python_command("taskforge_cli.bench.load", str(path)),
                environment=environment,
                output=self._log,
            )
            self._line = self._accept(listener)
        threading.Thread(target=self._listen, name=f"line {name}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def give(self, order: Order) -> None:
        """Begin to carry out an order."""
        with self._changed:
            self.done, self._outcome, self._error = 0, None, None
        self._send(message_of(order))

    def tell_to_stop(self) -> None:
        """The order is fulfilled."""
        self._send({"stop": True})

    def outcome(self) -> Outcome | None:
        """What came of the order; None: it is still being carried out.

        Raises:
            CommandError: It has failed.
        """
        if self._error is not None:
            raise CommandError(f"the load process {self.name} failed: {self._error}")
        return self._outcome

    def close(self) -> None:
        """End the process."""
        self._line.close()
        if not self._process.wait(_STOP_SECONDS):
            self._process.send(signal.SIGKILL)
            self._process.wait(_STOP_SECONDS)

    def _accept(self, listener: socket.socket) -> Line:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.exit_code is None:
            try:
                line = Line(listener.accept()[0])
                line.receive()
                return line
            except TimeoutError:
                continue
            except LineClosed:
                break
        self._process.send(signal.SIGKILL)
        raise CommandError(f"the load process {self.name} does not start: {self._last_words()}")

    def _send(self, message: Mapping[str, object]) -> None:
        try:
            self._line.send(dict(message))
        except LineClosed:
            raise CommandError(f"the load process {self.name} {self._end()}") from None

    def _listen(self) -> None:
        try:
            while True:
                message = self._line.receive()
                with self._changed:
                    if "done" in message:
                        self.done = message["done"]
                    elif "error" in message:
                        self._error = message["error"]
                    else:
                        self._outcome = Outcome(**message["outcome"])
                        self.done = self._outcome.jobs
                    self._changed.notify_all()
        except LineClosed:
            with self._changed:
                self._error = self._end()
                self._changed.notify_all()

    def _end(self) -> str:
        if not self._process.wait(1.0):
            return "has closed its line"
        return f"{how_it_ended(self._process.exit_code or 0)}: {self._last_words()}"

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").split("\n") if self._log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


class Crew:
    """All load processes of a measurement; a context manager that ends them."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        show: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`folder` is for logs and sockets; `show` is called with how many jobs are done."""
        self._folder = folder
        self._environment = environment
        self._show = show
        self._changed = threading.Condition()
        self._stack = ExitStack()
        self._count = 0

    def start(self, role: str, count: int = 1) -> list[Load]:
        """Start so many load processes."""
        loads = []
        for _ in range(count):
            self._count += 1
            name = f"{role}-{self._count}"
            load = Load(name, self._folder, self._environment, self._changed)
            self._stack.callback(load.close)
            loads.append(load)
        return loads

    def until_done(self, loads: Sequence[Load], target: int, *, quietly: bool = False) -> None:
        """Return when they have done so many jobs together.

        Raises:
            CommandError: One has failed, or nothing moves any more.
        """

        def are_done() -> bool:
            return sum(load.done for load in loads) >= target

        self._wait(loads, are_done, f"only {{}} of {target:,} jobs are done", quietly=quietly)

    def until_over(self, loads: Sequence[Load], *, quietly: bool = False) -> list[Outcome]:
        """What came of their orders, once all are carried out.

        Raises:
            CommandError: One has failed, or nothing moves any more.
        """

        def are_over() -> bool:
            return all(load.outcome() is not None for load in loads)

        self._wait(loads, are_over, "load processes do not end after {} jobs", quietly=quietly)
        return [outcome for load in loads if (outcome := load.outcome()) is not None]

    def run(self, loads: Sequence[Load], orders: Sequence[Order]) -> list[Outcome]:
        """Let each carry out its order, to the end."""
        for load, order in zip(loads, orders, strict=True):
            load.give(order)
        return self.until_over(loads)

    def stop(self, loads: Sequence[Load]) -> list[Outcome]:
        """Tell them that their orders are fulfilled; what came of them."""
        for load in loads:
            load.tell_to_stop()
        return self.until_over(loads, quietly=True)

    def _wait(
        self, loads: Sequence[Load], condition: Callable[[], bool], failure: str, *, quietly: bool
    ) -> None:
        last, moved_at = -1, time.monotonic()
        with self._changed:
            while True:
                for load in loads:
                    load.outcome()
                done = sum(load.done for load in loads)
                if done != last:
                    last, moved_at = done, time.monotonic()
                    if not quietly:
                        self._show(done)
                if condition():
                    return
                if time.monotonic() - moved_at > STALLED_SECONDS:
                    names = ", ".join(load.name for load in loads)
                    raise CommandError(
                        f"nothing has moved for {STALLED_SECONDS:g} s:"
                        f" {failure.format(f'{done:,}')} ({names})"
                    )
                self._changed.wait(_LOOK_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
