"""Threads for handlers that block.

Not `ThreadPoolExecutor`: the interpreter waits for its threads when it ends, so that one handler
that never returns would keep a stopped worker's process alive.
"""

import contextvars
import queue
import threading
from collections.abc import Callable


class ThreadPool:
    """At most `size` daemon threads, started when they are needed and then kept."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)

    def submit(self, work: Callable[[], object]) -> None:
        """Run the work in a thread, with this context's variables. It must not raise."""
        context = contextvars.copy_context()
        if len(self._threads) < self._size and not self._idle.acquire(blocking=False):
            thread = threading.Thread(
                target=self._run, name=f"taskforge-{len(self._threads) + 1}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        self._work.put(lambda: context.run(work))

    def close(self) -> None:
        """Let the threads end when they have done what they were given; does not wait for them."""
        for _ in self._threads:
            self._work.put(None)
        self._threads = []

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            self._idle.release()
