"""Run as a script between us and Postgres: give up root, die with the parent, become the command.

A process of its own instead of a function between fork and exec: our process has threads, and after
a fork only what takes no lock would be safe there.

Usage: python -I -S embedded_exec.py PARENT UID COMMAND…, where UID -1 means to stay who we are.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, uid: int, command: list[str]) -> None:
    """Never returns: ends in the command, or with code 1 when the parent is gone already."""
    if uid >= 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of user, which clears the wish. SIGINT is Postgres' fast shutdown.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - a fixed command, no shell


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
