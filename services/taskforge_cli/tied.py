"""Run as a script between a launcher and its child: die with the parent, become the command.

A process of its own instead of a function between fork and exec: a launcher has threads, and after
a fork only what takes no lock would be safe there.

Usage: python -I -S tied.py PARENT COMMAND…
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Never returns: ends in the command, or with code 1 when the parent is gone already."""
    if sys.platform == "linux":
        # SIGKILL: every server may be killed at any moment, and nothing may stay behind.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - the launcher's own command, no shell


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
