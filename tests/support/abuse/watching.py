"""Sends requests to the servers and holds each answer, the log and the database to the contract."""

import logging
from collections import Counter
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import pytest
from google.protobuf.message import Message
from grpc import StatusCode
from structlog.testing import capture_logs
from tests.support.rpcs import LARGEST_MESSAGE, WAITING, Answer, Contract
from tests.support.snapshots import fingerprint
from tests.support.stated_reasons import stated_codes, stated_reasons
from tests.support.tenants import Tenant, bearer
from tests.support.things import calls_are_closed
from tests.support.waiting import eventually

from taskforge_core.database import Database

REFUSALS = {
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.ALREADY_EXISTS,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.ABORTED,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.PERMISSION_DENIED,
}
"""What a valid credential may be refused with, whatever it sends; never INTERNAL or UNKNOWN."""

TELLTALES = ("Traceback", "asyncpg", "sqlalchemy", "SELECT ", "INSERT ", "psycopg", 'File "')

STATED, CODES = stated_reasons(), stated_codes()


def misfit(name: str, sent: Message | bytes, answer: Answer) -> str:
    """How an answer to a valid credential differs from what the contract allows; empty if not."""
    if answer.code is StatusCode.OK:
        return ""
    size = len(sent) if isinstance(sent, bytes) else sent.ByteSize()
    if size > LARGEST_MESSAGE:
        return "" if answer.code is StatusCode.RESOURCE_EXHAUSTED else "too large, and read"
    if answer.code not in REFUSALS:
        return f"{answer.code.name} is no answer"
    if answer.reason not in STATED[name]:
        return f"the contract does not name {answer.reason} for {name}"
    if answer.code.name != CODES[answer.reason]:
        return f"{answer.reason} goes with {CODES[answer.reason]}"
    return "it tells how it is made" if any(word in answer.told for word in TELLTALES) else ""


class Log:
    """What the servers of this process have logged."""

    def __init__(
        self, lines: list[MutableMapping[str, Any]], records: pytest.LogCaptureFixture
    ) -> None:
        self._lines = lines
        self._records = records

    def take_errors(self) -> list[str]:
        """The errors and tracebacks that came since the last time."""
        errors = [
            str(line)
            for line in self._lines
            if line.get("log_level") in {"error", "critical"} or line.get("exc_info")
        ]
        errors += [
            record.getMessage()
            for record in self._records.records
            if record.levelno >= logging.ERROR or record.exc_info
        ]
        self._lines.clear()
        self._records.clear()
        return errors


@contextmanager
def watched_log(records: pytest.LogCaptureFixture) -> Iterator[Log]:
    """The log of what runs inside, which must have no errors that nobody took."""
    with capture_logs() as lines:
        log = Log(lines, records)
        yield log
    assert not log.take_errors()


async def until_quiet(database: Database) -> None:
    """Return when what ended lease calls left to be done is done."""
    last: Any = None

    async def is_same() -> bool:
        nonlocal last
        before, last = last, await fingerprint(database.hot)
        return bool(before == last) and await calls_are_closed(database)

    await eventually(is_same, "nothing changes any more")


class Watch:
    """Looks at each answer, and at the database after each refusal."""

    def __init__(
        self, contracts: Sequence[Contract], database: Database, tenant: Tenant, log: Log
    ) -> None:
        self._contracts = cycle(contracts)
        self._database = database
        self._metadata = bearer(tenant.key)
        self._log = log
        self._before: Any = None
        self.seen: Counter[str] = Counter()
        """How many answers there were, by code."""

    async def send(self, name: str, sent: Message | bytes) -> Answer:
        """The answer, which is one that the contract allows; a refused request changed nothing.

        Each replica is asked in turn.
        """
        if self._before is None:
            self._before = await fingerprint(self._database.hot)
        contract = next(self._contracts)
        answer = await contract.send(name, self._metadata, sent)
        self.seen[answer.code.name] += 1
        told = f"{name} {str(sent)[:300]!r}: {answer}"
        assert not misfit(name, sent, answer), (misfit(name, sent, answer), told)
        assert not self._log.take_errors(), told
        if answer.was_carried_out:
            self.forget()
            if name in WAITING:
                await until_quiet(self._database)
        else:
            assert await fingerprint(self._database.hot) == self._before, told
        return answer

    def forget(self) -> None:
        """Something else has changed the database."""
        self._before = None
