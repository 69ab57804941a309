"""Questions to a person before something is done that cannot be undone."""

import sys

import typer


def on_terminal() -> bool:
    """Whether a person is there to answer: a script is not asked."""
    return sys.stdin.isatty()


def ask(question: str) -> None:
    """Return if the answer is yes; stdout stays for what the command prints.

    Raises:
        Abort: It is anything else.
    """
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise typer.Abort
