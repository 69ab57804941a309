"""JSON Web Tokens of an issuer: which are taken, and what they let their bearers do."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import ValidationError
from tests.support.tenants import JOB_READ, JOB_WRITE, Tenant, insert_tenant

from taskforge_core.authentication import CredentialAuthenticator
from taskforge_core.callers import Caller
from taskforge_core.database import Database
from taskforge_core.errors import Unauthenticated
from taskforge_core.settings import Settings

ISSUER, AUDIENCE = "https://id.example.org", "taskforge"

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwks(**keys: Any) -> str:
    """The issuer's document: public keys by id."""
    documents = []
    for key_id, key in keys.items():
        algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
        name = "RS256" if algorithm is RSAAlgorithm else "ES256"
        documents.append(
            json.loads(algorithm.to_jwk(key.public_key())) | {"kid": key_id, "alg": name}
        )
    return json.dumps({"keys": documents})


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


def token(
    key: Any = RSA_KEY, key_id: str = "rsa", algorithm: str = "RS256", **claims: object
) -> str:
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "exp": time.time() + 60,
        "organisation": "acme",
        "scope": "openid job:write job:read",
    } | claims
    return jwt.encode(
        {name: value for name, value in said.items() if value is not None},
        key,
        algorithm=algorithm,
        headers={"kid": key_id},
    )


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


def none_signed() -> str:
    return jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "ann"}, "", algorithm="none")


def write(file: Path, text: str) -> None:
    file.write_text(text)


def signed_with_the_public_key() -> str:
    """The public key, which everybody knows, taken for a shared secret."""
    document = json.loads(jwks(rsa=RSA_KEY))["keys"][0]
    secret = (document["n"] + document["e"]).ljust(64, "x")
    return token(secret, "rsa", "HS256")


WRONG: dict[str, Callable[[], str]] = {
    "signed by a stranger": lambda: token(STRANGER),
    "signed by an unknown key": lambda: token(STRANGER, "unknown"),
    "signed with another algorithm than its key's": lambda: token(EC_KEY, "rsa", "ES256"),
    "signed with an algorithm that is not allowed": lambda: token(algorithm="RS512"),
    "not signed": none_signed,
    "signed with the public key": signed_with_the_public_key,
    "of another issuer": lambda: token(iss="https://evil.example.org"),
    "for another audience": lambda: token(aud="other"),
    "without an audience": lambda: token(aud=None),
    "without an issuer": lambda: token(iss=None),
    "without an end": lambda: token(exp=None),
    "without a subject": lambda: token(sub=None),
    "not valid yet": lambda: token(nbf=time.time() + 3600),
    "of an unknown organisation": lambda: token(organisation="nobody"),
    "of an organisation that is a number": lambda: token(organisation=7),
    "without an organisation": lambda: token(organisation=None),
    "of a project that is no id": lambda: token(project="default"),
    "of permissions that are a number": lambda: token(scope=5),
    "changed": lambda: token()[:-10] + "AAAAAAAAAA",
    "no token": lambda: "a.b.c",
    "no header": lambda: ".." + token(),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.usefixtures("tenant")
async def test_no_token_is_taken_that_is(
    authenticator: CredentialAuthenticator, wrong: str
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await authenticate(authenticator, WRONG[wrong]())
    assert refused.value.reason == "CREDENTIAL_INVALID"
    assert not refused.value.metadata


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
    await authenticator.refresh()
    objection = authenticator.objection(caller)
    assert isinstance(objection, Unauthenticated)
    with pytest.raises(Unauthenticated) as refused:
        await authenticate(authenticator, text)
    assert refused.value.reason == "CREDENTIAL_REVOKED"


@pytest.mark.usefixtures("tenant")
async def test_keys_that_are_exchanged_are_taken_without_a_restart_and_garbage_is_not(
    authenticator: CredentialAuthenticator, keys_file: Path
) -> None:
    text = token()
    await authenticate(authenticator, text)
    write(keys_file, "garbage")
    await authenticator.refresh()
    await authenticate(authenticator, token(sub="bob"))
    write(keys_file, jwks(fresh=STRANGER))
    caller = await authenticate(authenticator, token(STRANGER, "fresh", sub="eve"))
    assert caller.name == "jwt eve"
    # What a withdrawn key has signed counts no more, seen before or not.
    for withdrawn in (token(sub="late"), text):
        with pytest.raises(Unauthenticated):
            await authenticate(authenticator, withdrawn)


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
