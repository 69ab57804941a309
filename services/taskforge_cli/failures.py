"""What can go wrong for a user: one line on stderr, and an exit code for scripts."""

import enum


class ExitCode(enum.IntEnum):
    """What scripts see."""

    OK = 0
    FAILED = 1
    """What was asked for was refused, or did not succeed."""
    USAGE = 2
    """The command line or a setting is wrong; nothing was tried."""
    UNREACHABLE = 3
    """The server or the database does not answer."""


class CommandError(Exception):
    """A user's mistake, or a state that forbids the command; the message is the line shown."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(one_line(message))
        self.code = code


def usage_error(message: str) -> CommandError:
    """The command line or a setting is wrong."""
    return CommandError(message, ExitCode.USAGE)


def one_line(text: str) -> str:
    """The text without line breaks and without what a terminal would obey."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in " ".join(text.split())
    )
