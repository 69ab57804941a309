"""A load process: `python -m taskforge_cli.bench.load SOCKET`. It carries out one order at a time.

It ends when the bench closes the line, and when the bench ends in whatever way.
"""

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskforge_cli.bench import lingering, pinning, producing, working
from taskforge_cli.bench.caller import Caller
from taskforge_cli.bench.lines import Line, LineClosed
from taskforge_cli.bench.orders import Linger, Order, Outcome, Pace, Pin, Produce, Work, order_of
from taskforge_cli.failures import CommandError
from taskforge_sdk import TaskForgeError

_REPORT_SECONDS = 0.02


class Orders:
    """What comes over the line, handed to the event loop."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._stop = asyncio.Event()
        threading.Thread(target=self._receive, name="orders", daemon=True).start()

    async def next(self) -> Order:
        """The next order."""
        return order_of(await self._inbox.get())

    async def carry_out(self, order: Order) -> Outcome:
        """Do what it says, and report how far it is."""
        self._stop.clear()
        caller = Caller(self._stop)
        reporting = asyncio.create_task(self._report(caller))
        try:
            return await _work_of(order, caller)
        finally:
            reporting.cancel()

    async def _report(self, caller: Caller) -> None:
        told = 0
        while True:
            await caller.news(_REPORT_SECONDS)
            if caller.done != told:
                told = caller.done
                self._line.send({"done": told})

    def _receive(self) -> None:
        try:
            while True:
                message = self._line.receive()
                hand_over: Callable[[], None] = (
                    self._stop.set if "stop" in message else self._taker(message)
                )
                self._loop.call_soon_threadsafe(hand_over)
        except LineClosed:
            # Nobody waits for what this process still does.
            os._exit(0)

    def _taker(self, message: dict[str, Any]) -> Callable[[], None]:
        return lambda: self._inbox.put_nowait(message)


def _work_of(order: Order, caller: Caller) -> Coroutine[Any, Any, Outcome]:
    match order:
        case Produce():
            return producing.produce(order, caller)
        case Pace():
            return producing.pace(order, caller)
        case Work():
            return working.work(order, caller)
        case Linger():
            return lingering.linger(order, caller)
        case Pin():
            return pinning.pin(order, caller)


async def serve(path: Path) -> None:
    """Carry out orders until the line is closed."""
    line = Line.to(path)
    orders = Orders(line)
    line.send({"ready": True})
    while True:
        order = await orders.next()
        gc.collect()
        try:
            outcome = await orders.carry_out(order)
        except (TaskForgeError, CommandError, OSError, ValueError) as error:
            line.send({"error": f"{type(error).__name__}: {error}"})
        else:
            line.send({"outcome": asdict(outcome)})


if __name__ == "__main__":
    try:
        asyncio.run(serve(Path(sys.argv[1])))
    except LineClosed:
        sys.exit(0)
