"""Values of options: durations, times, labels and JSON documents."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer
from pydantic import TypeAdapter, ValidationError

from taskforge_cli.failures import usage_error
from taskforge_core.settings import Duration
from taskforge_sdk import JsonText

_DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)


def parse_duration(text: str) -> timedelta:
    """`20`, `1.5s`, `500ms`, `5m`, `24h`, `7d` or ISO 8601, as in the settings."""
    try:
        return _DURATION.validate_python(text)
    except (ValidationError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no duration: write a number of seconds, or one with ms, s, m, h or d"
        ) from None


def parse_time(text: str) -> datetime:
    """An ISO 8601 time; without an offset it is local time."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time: write it as 2026-12-31T18:00:00+01:00"
        ) from None


def parse_labels(pairs: Sequence[str]) -> dict[str, str]:
    """Each as `key=value`.

    Raises:
        CommandError: One is not, or a key comes twice.
    """
    labels: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise usage_error(f"--label: {pair!r} is no label: write it as key=value")
        if key in labels:
            raise usage_error(f"--label: the key {key!r} comes twice")
        labels[key] = value
    return labels


def read_payload(argument: str) -> JsonText:
    """A JSON document: as written, from a file (`@path`), or from standard input (`-`).

    Raises:
        CommandError: The file cannot be read, or what was read is no JSON.
    """
    text = _read(argument)
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        pass  # the server has its own bound for nesting, and says so
    except ValueError as error:
        raise usage_error(f"--payload is no valid JSON: {error}") from None
    return JsonText(text)


def _read(argument: str) -> str:
    try:
        if argument == "-":
            return sys.stdin.read()
        if argument.startswith("@"):
            return Path(argument[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise usage_error(f"--payload: cannot read {argument[1:]}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise usage_error("--payload is no valid JSON: it is not UTF-8") from None
    return argument


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")
