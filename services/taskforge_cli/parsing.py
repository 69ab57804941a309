"""Values of options: durations, times, delays, labels and JSON documents."""

import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer
from pydantic import TypeAdapter, ValidationError

from taskforge_cli.failures import usage_error
from taskforge_core.settings import Duration
from taskforge_sdk import JsonText, PriorityDelays

_BANDS = tuple(field.name for field in fields(PriorityDelays))
_BANDS_WRITTEN = ",".join(f"{band}=10s" for band in _BANDS)
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


def parse_delays(text: str) -> PriorityDelays:
    """`low=1m,urgent=500ms`, each by a band of priorities; `on` for the contract's own delays."""
    delays: dict[str, timedelta] = {}
    for pair in [] if text == "on" else text.split(","):
        band, _, delay = pair.strip().partition("=")
        if band not in _BANDS or band in delays:
            raise typer.BadParameter(
                f"{text!r} names no delays: write some of {_BANDS_WRITTEN}, or on"
            )
        delays[band] = parse_duration(delay)
    return PriorityDelays(**delays)


def point_in_time(
    after: timedelta | None, at: datetime | None, after_option: str, at_option: str
) -> datetime | None:
    """The time that one of two options gives: so long from now, or itself.

    Raises:
        CommandError: Both are given, or there is no such time.
    """
    if after is None:
        return at
    if at is not None:
        raise usage_error(f"{after_option} and {at_option} exclude each other")
    try:
        return datetime.now(UTC) + after
    except OverflowError:
        raise usage_error(f"{after_option} is too long") from None


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
