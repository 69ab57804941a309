"""Runs load scripts: on our stage's Postgres, each system in a database of its own."""

import asyncio
import signal
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
from tests.benchmarks.peers.installing import Toolchain
from tests.benchmarks.peers.loading import Order
from tests.benchmarks.peers.systems import System

from taskforge_cli.bench.stage import Stage
from taskforge_cli.failures import CommandError
from taskforge_cli.processes import ChildProcess, how_it_ended

_REPOSITORY = Path(__file__).parents[3]
_LONGEST_SECONDS = 600.0
_LOOK_SECONDS = 0.1
_KILL_SECONDS = 10.0

Outcome = Mapping[str, Any]
"""What a load script answers."""


class Driver:
    """Lets systems work where our own is measured."""

    def __init__(self, stage: Stage, toolchain: Toolchain, folder: Path) -> None:
        """`folder` is for what the scripts print."""
        self.stage = stage
        self._dsn = stage.require_dsn()
        self._toolchain = toolchain
        self._folder = folder

    def run(self, system: System, orders: Sequence[Order]) -> list[Outcome]:
        """Let processes of a system carry out these orders, all at once, on an empty database.

        The orders' `where` is filled in.

        Raises:
            CommandError: One of them has failed.
            CannotInstall: What runs the system is not there.
        """
        command = system.command(self._toolchain)
        if not system.has_database:
            return self._at(self.stage.addresses[0], system, command, orders)
        name = f"peer_{uuid.uuid4().hex[:8]}"
        self._execute(f"CREATE DATABASE {name}")
        try:
            where = urlsplit(self._dsn)._replace(path=f"/{name}").geturl()
            self._at(where, system, command, [Order("install", where)])
            self.checkpoint()
            return self._at(where, system, command, orders)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def checkpoint(self) -> None:
        """So that none comes amid a measurement because of what was before."""
        self._execute("CHECKPOINT")

    def _at(
        self, where: str, system: System, command: list[str], orders: Sequence[Order]
    ) -> list[Outcome]:
        with ExitStack() as stack:
            scripts = []
            for order in orders:
                told = orjson.dumps({**asdict(order), "where": where}).decode()
                output = self._folder / f"{system.folder}-{uuid.uuid4().hex[:8]}.log"
                process = ChildProcess(
                    f"{system.name} ({order.do})",
                    [*command, told],
                    environment={"PYTHONPATH": str(_REPOSITORY), "NODE_ENV": "production"},
                    output=output,
                )
                stack.callback(_end, process)
                scripts.append((process, output))
            _wait(scripts)
            return [_answer(process, output) for process, output in scripts]

    def _execute(self, statement: str) -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(self._dsn)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(execute())


def _wait(scripts: Sequence[tuple[ChildProcess, Path]]) -> None:
    deadline = time.monotonic() + _LONGEST_SECONDS
    while True:
        left = 0
        for process, output in scripts:
            if process.exit_code is None:
                left += 1
            elif process.exit_code != 0:
                raise CommandError(
                    f"{process.name} {how_it_ended(process.exit_code)}: {_last_line(output)}"
                )
        if not left:
            return
        if time.monotonic() > deadline:
            raise CommandError(f"{scripts[0][0].name} does not end within {_LONGEST_SECONDS:g} s")
        # The first one that runs; its end is noticed at once.
        next(each for each, _ in scripts if each.exit_code is None).wait(_LOOK_SECONDS)


def _answer(process: ChildProcess, output: Path) -> Outcome:
    try:
        answer = orjson.loads(_last_line(output))
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise CommandError(f"{process.name} gives no answer: {_last_line(output)}")
    return answer


def _last_line(output: Path) -> str:
    lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def _end(process: ChildProcess) -> None:
    if process.exit_code is None:
        process.send(signal.SIGKILL)
        process.wait(_KILL_SECONDS)
