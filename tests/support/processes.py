"""Looks at processes that are not children of the tests."""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PATIENCE = 30.0
"""Seconds, for what takes a moment on an idle machine."""

_LOOK_EVERY = 0.02


def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Return as soon as the condition holds.

    Raises:
        AssertionError: It does not in time.
    """
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience} s in vain until {what}")
        pause.wait(_LOOK_EVERY)


def until_gone(pids: Iterable[int], patience: float = PATIENCE) -> None:
    """Return when none of these processes runs any more."""
    waiting = list(pids)
    until(lambda: not any(is_running(pid) for pid in waiting), f"{waiting} are gone", patience)


def is_running(pid: int) -> bool:
    """Whether the process is there and is no zombie that only waits for its parent."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in {"Z", "X"}


def descendants(pid: int) -> dict[int, tuple[int, str]]:
    """All processes that the process has started, and theirs: their parents and command lines."""
    everyone: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        everyone[int(folder.name)] = (int(fields[1]), command)
    found: dict[int, tuple[int, str]] = {}
    generation = {pid}
    while generation:
        generation = {child for child, (parent, _) in everyone.items() if parent in generation}
        found |= {child: everyone[child] for child in generation}
    return found
