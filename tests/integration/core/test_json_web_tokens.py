"""JSON Web Tokens of an issuer: which are taken, and what they let their bearers do."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs
from tests.support.identity_provider import (
    AUDIENCE,
    EC_KEY,
    ISSUER,
    RSA_KEY,
    STRANGER,
    WRONG,
    KeysServer,
    jwks,
    token,
)
from tests.support.tenants import JOB_READ, JOB_WRITE, Tenant, insert_tenant

from taskforge_core.authentication import CredentialAuthenticator
from taskforge_core.callers import Caller
from taskforge_core.database import Database
from taskforge_core.errors import Unauthenticated
from taskforge_core.settings import Settings


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    file = tmp_path / "jwks.json"
    file.write_text(jwks(rsa=RSA_KEY, ec=EC_KEY))
    return file


@pytest.fixture
def authenticator(database: Database, keys_file: Path) -> CredentialAuthenticator:
    database.settings = database.settings.model_copy(
        update={"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_keys": str(keys_file)}
    )
    return CredentialAuthenticator(database)


@pytest.fixture
async def tenant(database: Database) -> Tenant:
    return await insert_tenant(database.hot, "acme")


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def authenticate(authenticator: CredentialAuthenticator, text: str) -> Caller:
    return await authenticator.authenticate(f"Bearer {text}", ())


async def test_a_token_is_taken_for_what_it_says(
    authenticator: CredentialAuthenticator, tenant: Tenant
) -> None:
    caller = await authenticate(authenticator, token())
    assert caller.name == "jwt ann"
    assert caller.organisation_id == tenant.organisation_id
    assert caller.project_id is None
    assert caller.permissions == {JOB_READ, JOB_WRITE}
    assert not caller.is_operator
    assert not caller.has_expired


async def test_the_claims_may_be_written_in_several_ways(
    authenticator: CredentialAuthenticator, tenant: Tenant
) -> None:
    caller = await authenticate(
        authenticator,
        token(
            EC_KEY,
            "ec",
            "ES256",
            organisation=str(tenant.organisation_id),
            project=str(tenant.other_project_id),
            scope=["job:read", "launch:missiles"],
            aud=["other", AUDIENCE],
        ),
    )
    assert caller.organisation_id == tenant.organisation_id
    assert caller.project_id == tenant.other_project_id
    assert caller.permissions == {JOB_READ}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.usefixtures("tenant")
async def test_no_token_is_taken_that_is(
    authenticator: CredentialAuthenticator, wrong: str
) -> None:
    text = WRONG[wrong]()
    with capture_logs() as logs, pytest.raises(Unauthenticated) as refused:
        await authenticate(authenticator, text)
    assert refused.value.reason == "CREDENTIAL_INVALID"
    assert not refused.value.metadata
    # Why is for the operator.
    [line] = [line for line in logs if line["event"] == "token_refused"]
    assert line["why"]
    assert text not in str(logs)


@pytest.mark.usefixtures("tenant")
async def test_a_token_whose_time_is_over_is_refused_and_ends_what_is_open(
    authenticator: CredentialAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await authenticate(authenticator, token(exp=time.time() - 60))
    assert refused.value.reason == "CREDENTIAL_EXPIRED"
    # Clocks may differ by ten seconds.
    text = token(exp=time.time() - 5)
    caller = await authenticate(authenticator, text)
    assert authenticator.objection(caller) is None
    monkeypatch.setattr(Caller, "has_expired", property(lambda _: True))
    objection = authenticator.objection(caller)
    assert isinstance(objection, Unauthenticated)
    assert objection.reason == "CREDENTIAL_EXPIRED"


async def test_a_disabled_organisation_ends_its_tokens(
    authenticator: CredentialAuthenticator, tenant: Tenant, database: Database
) -> None:
    text = token()
    caller = await authenticate(authenticator, text)
    await database.hot.execute(
        "UPDATE taskforge.organisations SET disabled_at = now() WHERE id = $1",
        tenant.organisation_id,
    )
    await authenticator.refresh([caller])
    objection = authenticator.objection(caller)
    assert isinstance(objection, Unauthenticated)
    with pytest.raises(Unauthenticated) as refused:
        await authenticate(authenticator, text)
    assert refused.value.reason == "CREDENTIAL_REVOKED"


async def test_what_a_token_opened_goes_on_with_its_organisation_when_that_is_renamed(
    authenticator: CredentialAuthenticator, tenant: Tenant, database: Database
) -> None:
    caller = await authenticate(authenticator, token())
    change = "UPDATE taskforge.organisations SET {} WHERE id = $1"
    await database.hot.execute(change.format("name = 'renamed'"), tenant.organisation_id)
    heir = await insert_tenant(database.hot, "acme")
    for _ in range(2):
        await authenticator.refresh([caller])
        assert authenticator.objection(caller) is None
    assert (await authenticate(authenticator, token())).organisation_id == heir.organisation_id
    await database.hot.execute(change.format("disabled_at = now()"), tenant.organisation_id)
    await authenticator.refresh([caller])
    objection = authenticator.objection(caller)
    assert isinstance(objection, Unauthenticated)
    assert objection.reason == "CREDENTIAL_REVOKED"


@pytest.mark.usefixtures("tenant")
async def test_a_key_that_is_withdrawn_ends_what_its_tokens_opened(
    authenticator: CredentialAuthenticator, keys_file: Path
) -> None:
    caller = await authenticate(authenticator, token())
    other = await authenticate(authenticator, token(EC_KEY, "ec", "ES256"))
    # What cannot be read withdraws nothing.
    for document, is_withdrawn in (("garbage", False), (jwks(ec=EC_KEY), True)):
        write(keys_file, document)
        await authenticator.refresh([caller, other])
        objection = authenticator.objection(caller)
        assert (objection is not None) == is_withdrawn
        assert authenticator.objection(other) is None
    assert objection is not None
    assert objection.reason == "CREDENTIAL_REVOKED"


@pytest.mark.usefixtures("tenant")
async def test_keys_that_are_exchanged_are_taken_without_a_restart_and_garbage_is_not(
    authenticator: CredentialAuthenticator, keys_file: Path
) -> None:
    text = token()
    await authenticate(authenticator, text)
    for garbage in ("garbage", "[]", '{"keys": []}'):
        write(keys_file, garbage)
        with capture_logs() as logs:
            for _ in range(2):
                await authenticator.refresh()
        assert [line["event"] for line in logs] == ["signing_keys_not_fetched"]
        await authenticate(authenticator, token(sub="bob"))
    write(keys_file, jwks(fresh=STRANGER))
    caller = await authenticate(authenticator, token(STRANGER, "fresh", sub="eve"))
    assert caller.name == "jwt eve"
    # What a withdrawn key has signed counts no more, seen before or not.
    for withdrawn in (token(sub="late"), text):
        with pytest.raises(Unauthenticated):
            await authenticate(authenticator, withdrawn)


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeysServer]:
    with KeysServer(tmp_path) as provider:
        monkeypatch.setenv("SSL_CERT_FILE", str(provider.authority))
        provider.show(rsa=RSA_KEY)
        yield provider


@pytest.fixture
def asking(database: Database, provider: KeysServer) -> CredentialAuthenticator:
    """Asks for the keys over https."""
    database.settings = database.settings.model_copy(
        update={"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_keys": provider.source}
    )
    return CredentialAuthenticator(database)


@pytest.mark.usefixtures("tenant")
async def test_what_was_asked_for_is_kept_though_the_first_to_need_it_has_left(
    asking: CredentialAuthenticator, provider: KeysServer
) -> None:
    provider.answering.clear()
    impatient = asyncio.create_task(authenticate(asking, token()))
    assert await asyncio.to_thread(provider.called.wait, 10)
    impatient.cancel()
    await asyncio.wait({impatient})
    patient = asyncio.create_task(authenticate(asking, token()))
    provider.answering.set()
    assert (await patient).name == "jwt ann"


@pytest.mark.usefixtures("tenant")
async def test_a_slow_issuer_does_not_hold_up_the_pass_that_finds_bad_credentials(
    asking: CredentialAuthenticator, provider: KeysServer
) -> None:
    provider.answering.clear()
    for _ in range(2):
        async with asyncio.timeout(2):
            await asking.refresh()
    provider.answering.set()
    await authenticate(asking, token())


async def test_without_an_issuer_tokens_are_not_taken(database: Database) -> None:
    await insert_tenant(database.hot, "acme")
    with pytest.raises(Unauthenticated) as refused:
        await authenticate(CredentialAuthenticator(database), token())
    assert refused.value.reason == "CREDENTIAL_INVALID"


@pytest.mark.parametrize(
    "wrong",
    [
        {"jwt_issuer": ISSUER},
        {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE},
        {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_keys": "http://plain.example.org"},
        {"jwt_algorithms": ["HS256"]},
        {"jwt_algorithms": ["none"]},
    ],
)
def test_settings_that_would_let_in_strangers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)
