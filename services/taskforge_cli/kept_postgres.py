"""The embedded Postgres of a launcher, which is started again when it dies."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from taskforge_cli.processes import restart_pause
from taskforge_core.embedded import EmbeddedPostgres, EmbeddedPostgresError

_CHECK_INTERVAL = 0.5


class KeptPostgres:
    """An embedded Postgres, and the thread that looks after it."""

    def __init__(
        self,
        data_folder: Path,
        *,
        stopping: threading.Event,
        report: Callable[[str], None],
        on_move: Callable[[], None],
    ) -> None:
        """Name what is to be kept; nothing is touched before `start`.

        Args:
            data_folder: Where it keeps its data.
            stopping: Once set, it is not started again.
            report: Called by the thread with a line for people when it has died.
            on_move: Called by the thread when it serves at another `dsn` than before.
        """
        self._postgres = EmbeddedPostgres(data_folder)
        self._stopping = stopping
        self._report = report
        self._on_move = on_move
        self._watch: threading.Thread | None = None

    @property
    def dsn(self) -> str:
        """Its address."""
        return self._postgres.dsn

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._postgres.pid

    def start(self) -> None:
        """Start it, and look after it from then on.

        Raises:
            EmbeddedPostgresError: It cannot start.
        """
        self._postgres.start()
        self._watch = threading.Thread(target=self._keep, name="postgres watch", daemon=True)
        self._watch.start()

    def stop(self) -> None:
        """Stop it; `stopping` must be set."""
        if self._watch is not None:
            self._watch.join()
        self._postgres.stop()

    def _keep(self) -> None:
        failures = 0
        served_at = self._postgres.dsn
        while not self._stopping.wait(_CHECK_INTERVAL):
            if self._postgres.pid is not None and _is_alive(self._postgres.pid):
                failures = 0
                continue
            self._report("Postgres has died; starting it again")
            try:
                self._postgres.stop()
                self._postgres.start()
            except EmbeddedPostgresError as error:
                self._report(f"Postgres cannot be started: {error}")
                self._stopping.wait(restart_pause(failures))
                failures += 1
                continue
            if self._postgres.dsn != served_at:
                # Below a long path its socket lies in a new place: the services must be told.
                served_at = self._postgres.dsn
                self._on_move()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
