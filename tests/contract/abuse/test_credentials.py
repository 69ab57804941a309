"""Every RPC asks for a credential in the same way, and answers none of the wrong ones."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from grpc import StatusCode
from tests.support.refusals import Refusal, expect_error
from tests.support.rpcs import METHODS, Contract
from tests.support.snapshots import unchanged
from tests.support.tenants import Tenant, bearer, insert_key, key_id
from tests.support.things import things_of
from tests.support.valid_requests import request
from tests.support.waiting import PATIENCE

from taskforge_core.api_keys import new_api_key
from taskforge_core.database import Database

Metadata = tuple[tuple[str, str | bytes], ...]
Expectation = Callable[[Awaitable[Any]], Awaitable[Refusal]]


async def is_missing(call: Awaitable[Any]) -> Refusal:
    return await expect_error(call, StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING")


async def is_invalid(call: Awaitable[Any]) -> Refusal:
    return await expect_error(call, StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


async def is_expired(call: Awaitable[Any]) -> Refusal:
    return await expect_error(call, StatusCode.UNAUTHENTICATED, "CREDENTIAL_EXPIRED")


async def is_revoked(call: Awaitable[Any]) -> Refusal:
    return await expect_error(call, StatusCode.UNAUTHENTICATED, "CREDENTIAL_REVOKED")


def sent_as(text: str) -> Metadata:
    return (("authorization", text),)


def with_secret_of(key: str, other: str) -> str:
    """The id of the one key with the secret of the other."""
    return f"tfk_{key_id(key).hex}_{other.split('_', 2)[2]}"


async def wrong_credentials(
    database: Database, tenant: Tenant
) -> dict[str, tuple[Expectation, Metadata]]:
    """Metadata by what is wrong with it, and what must be told."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired = await insert_key(database.hot, tenant.organisation_id, expires_at=past)
    revoked = await insert_key(database.hot, tenant.organisation_id)
    await database.hot.execute(
        "UPDATE taskforge.api_keys SET revoked_at = now() WHERE id = $1", key_id(revoked)
    )
    certified = await insert_key(
        database.hot, tenant.organisation_id, certificate_name="worker.example"
    )
    good = tenant.key
    unknown = new_api_key().text
    return {
        "none": (is_missing, ()),
        "another header": (is_missing, (("x-authorization", f"Bearer {good}"),)),
        "binary": (is_missing, (("authorization-bin", b"\xff\x00"),)),
        "empty": (is_invalid, sent_as("")),
        "no scheme": (is_invalid, sent_as(good)),
        "another scheme": (is_invalid, sent_as(f"Basic {good}")),
        "the scheme alone": (is_invalid, sent_as("Bearer")),
        "the scheme and a space": (is_invalid, sent_as("Bearer ")),
        "two in one": (is_invalid, sent_as(f"Bearer {good} {good}")),
        "twice": (is_invalid, bearer(good) * 2),
        "a good one beside a bad one": (is_invalid, (*bearer(unknown), *bearer(good))),
        "unknown": (is_invalid, bearer(unknown)),
        "another key's secret": (is_invalid, bearer(with_secret_of(good, expired))),
        "cut short": (is_invalid, bearer(good[:-1])),
        "a prefix alone": (is_invalid, bearer("tfk_")),
        "odd characters": (is_invalid, bearer("tfk_~!%00'--")),
        "endless": (is_invalid, bearer("x" * 7000)),
        "a token that nobody signed": (
            is_invalid,
            bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."),
        ),
        "a certificate's key by text": (is_invalid, bearer(certified)),
        "expired": (is_expired, bearer(expired)),
        "revoked": (is_revoked, bearer(revoked)),
        # That a key has ended is told to whoever has its secret.
        "expired, without its secret": (is_invalid, bearer(with_secret_of(expired, good))),
        "revoked, without its secret": (is_invalid, bearer(with_secret_of(revoked, good))),
    }


async def test_no_rpc_takes_a_wrong_credential_or_tells_what_is_wrong_with_it(
    contract: Contract, database: Database, own: Tenant
) -> None:
    things = await things_of(database, contract, own)
    wrong = await wrong_credentials(database, own)
    told: dict[Expectation, set[str]] = {expected: set() for expected, _ in wrong.values()}
    async with unchanged(database.hot):
        for name in METHODS:
            for expected, metadata in wrong.values():
                # Who calls is asked before what is called for is looked at.
                for sent in (request(name, things), b"\xff\xff"):
                    refusal = await expected(contract.raw(name, metadata, sent, patience=PATIENCE))
                    told[expected].add(f"{refusal.message} {refusal.metadata}")
    assert [len(messages) for messages in told.values()] == [1] * len(told)
