"""Logs: one line an event, to stderr, in the chosen form."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys, structlog
from taskforge_core.logs import configure_logging
configure_logging(sys.argv[1], sys.argv[2])
log = structlog.get_logger("ours")
log.debug("fine_print")
log.info("serving", address="127.0.0.1:1")
logging.getLogger("theirs").warning("a library %s", "speaks")
logging.getLogger("grpc").info("detail")
password = "s3cret"
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
"""


def lines(log_format: str, log_level: str) -> list[str]:
    """What a process writes: in one of its own, for logging belongs to a whole process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, log_format, log_level],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_is_one_object_a_line_for_us_and_for_libraries() -> None:
    entries = [json.loads(line) for line in lines("json", "debug")]
    assert [entry["event"] for entry in entries] == [
        "fine_print",
        "serving",
        "a library speaks",
        "failed",
    ]
    assert entries[1]["address"] == "127.0.0.1:1"
    assert entries[1]["level"] == "info"
    assert entries[1]["logger"] == "ours"
    assert entries[2]["logger"] == "theirs"
    assert "ZeroDivisionError" in entries[3]["exception"]
    assert all(entry["timestamp"].endswith("Z") for entry in entries)


@pytest.mark.parametrize(
    ("level", "first"), [("debug", "fine_print"), ("info", "serving"), ("error", "failed")]
)
def test_the_level_leaves_out_what_is_below(level: str, first: str) -> None:
    assert first in lines("console", level)[0]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_no_values(log_format: str) -> None:
    written = "\n".join(lines(log_format, "error"))
    assert "ZeroDivisionError" in written
    assert "s3cret" not in written
