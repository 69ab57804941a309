"""Callers who prove themselves by a JSON Web Token of the platform's own identity provider."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import structlog

from taskforge_core.callers import PERMISSION_NAMES, Caller, Permission
from taskforge_core.database import Database
from taskforge_core.errors import TaskForgeError, Unauthenticated, Unavailable
from taskforge_core.file_versions import FileVersion, version_of
from taskforge_core.queries import find_organisations
from taskforge_core.remembering import Remembered
from taskforge_core.settings import Settings

log = structlog.get_logger(__name__)

_PERMISSIONS: dict[str, Permission] = {name: value for value, name in PERMISSION_NAMES.items()}
_REQUIRED_CLAIMS = ["exp", "iss", "aud", "sub"]
_CLOCK_SKEW_SECONDS = 10
_FETCH_EVERY_SECONDS = 300.0
_FETCH_AT_MOST_EVERY_SECONDS = 10.0
_FETCH_TIMEOUT_SECONDS = 5
_REFRESH_PATIENCE_SECONDS = 0.5
"""Well below the 5 s within which a credential that has gone bad is noticed."""
_REMEMBERED_TOKENS = 10_000

_UNREAD = object()
"""Other than the version of any file, there or not."""


@dataclass(frozen=True, slots=True)
class SignedBy:
    """What a token's caller hangs on beside its organisation: a signing key of the issuer."""

    key_id: str


@dataclass(frozen=True, slots=True)
class _Organisation:
    id: UUID
    is_disabled: bool
    is_operator: bool


@dataclass(frozen=True, slots=True)
class _Token:
    """What a token says, once its signature was found good."""

    subject: str
    signed_by: SignedBy
    organisation: str
    """Its name or id. Callers keep the id that it has when they come, whatever is renamed."""
    project_id: UUID | None
    permissions: frozenset[Permission]
    expires_at: datetime


class SigningKeys:
    """The issuer's public keys (JWKS), from a file or an https address.

    They are fetched again every 5 minutes (a file: when it changes). When a token names a key that
    is not among them, or fetching has failed, that is done sooner, at most every 10 s. What cannot
    be fetched leaves the keys as they were.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._file = None if "://" in source else Path(source)
        self._keys: dict[str, jwt.PyJWK] = {}
        self.generation = 0
        """Counts how often the keys were fetched."""
        self._fetched_at = float("-inf")
        self._version: FileVersion | object = _UNREAD
        self._has_failed = False
        self._fetching: asyncio.Task[None] | None = None

    def holds(self, key_id: str) -> bool:
        """Whether the issuer had a key of this id when they were last fetched."""
        return key_id in self._keys

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key of this id, if the issuer has such a one.

        Raises:
            Unavailable: It is not known, and the keys cannot be fetched
                (`SIGNING_KEYS_UNAVAILABLE`).
        """
        key = self._keys.get(key_id)
        if key is None:
            await self._fetch(_FETCH_AT_MOST_EVERY_SECONDS)
            key = self._keys.get(key_id)
            if key is None and self._has_failed:
                raise Unavailable(
                    "SIGNING_KEYS_UNAVAILABLE",
                    "the signing keys of the token's issuer cannot be fetched; try again",
                    retry_after=timedelta(seconds=_FETCH_AT_MOST_EVERY_SECONDS),
                )
        return key

    async def refresh(self) -> None:
        """Fetch the keys if it is time; a loop's pass, which a slow issuer does not hold up."""
        every = _FETCH_AT_MOST_EVERY_SECONDS if self._has_failed else _FETCH_EVERY_SECONDS
        await self._fetch(every, patience=_REFRESH_PATIENCE_SECONDS)

    async def _fetch(self, unless_within_seconds: float, patience: float | None = None) -> None:
        """Wait for the keys to be fetched, unless that was done within this time.

        Whoever calls while that goes on waits for the same; it goes on if all of them leave.
        """
        if self._fetching is None or self._fetching.done():
            if not self._is_due(unless_within_seconds):
                return
            self._fetching = asyncio.create_task(self._fetch_now(), name="fetch signing keys")
        await asyncio.wait({self._fetching}, timeout=patience)

    def _is_due(self, unless_within_seconds: float) -> bool:
        if self._file is not None:
            return self._version != version_of(self._file)
        return time.monotonic() - self._fetched_at >= unless_within_seconds

    async def _fetch_now(self) -> None:
        self._fetched_at = time.monotonic()
        try:
            self._keys = await asyncio.to_thread(self._read)
        except (OSError, ValueError, jwt.PyJWTError) as error:
            self._has_failed = True
            log.warning("signing_keys_not_fetched", source=self._source, error=str(error))
        else:
            self._has_failed = False
            self.generation += 1

    def _read(self) -> dict[str, jwt.PyJWK]:
        if self._file is not None:
            self._version = version_of(self._file)
            document = json.loads(self._file.read_bytes())
            if not isinstance(document, dict):
                raise ValueError("this is no JWKS: no JSON object")
            keys = jwt.PyJWKSet.from_dict(document)
        else:
            client = jwt.PyJWKClient(
                self._source, cache_jwk_set=False, timeout=_FETCH_TIMEOUT_SECONDS
            )
            keys = client.get_jwk_set(refresh=True)
        return {key.key_id: key for key in keys.keys if key.key_id}


class TokenAuthenticator:
    """Reads JSON Web Tokens: signature, issuer, audience and time first, then the claims."""

    def __init__(self, database: Database) -> None:
        """For a process whose settings name an issuer."""
        self._pool = database.hot
        self._settings = database.settings
        self._keys = SigningKeys(self._settings.jwt_keys or "")
        self._organisations: Remembered[str, _Organisation] = Remembered(self._load)
        # By the keys' generation too: what a key signed counts no more once it is withdrawn.
        self._verified: OrderedDict[tuple[int, str], _Token] = OrderedDict()

    async def authenticate(self, text: str) -> Caller | None:
        """Whose token this is; None if it is not a good one.

        Raises:
            Unauthenticated: It was good, but has expired, or its organisation is disabled.
            Unavailable: Nobody can tell now, since its signing key cannot be fetched.
        """
        token = self._verified.get((self._keys.generation, text)) or await self._verify(text)
        if token is None:
            return None
        organisation = await self._organisations.get(token.organisation)
        if organisation is None:
            _tell_refusal("its organisation does not exist")
            return None
        caller = Caller(
            f"jwt {token.subject}",
            organisation.id,
            token.project_id,
            token.permissions,
            is_operator=organisation.is_operator,
            expires_at=token.expires_at,
            proof=token.signed_by,
        )
        if caller.has_expired:
            raise expired()
        if organisation.is_disabled:
            raise _organisation_disabled()
        return caller

    def objection(self, caller: Caller) -> TaskForgeError | None:
        """Why an open call of this caller must end, if it must."""
        if caller.has_expired:
            return expired()
        assert isinstance(caller.proof, SignedBy)
        if not self._keys.holds(caller.proof.key_id):
            return Unauthenticated("CREDENTIAL_REVOKED", "the token's signing key was withdrawn")
        organisation = self._organisations.peek(str(caller.organisation_id))
        if organisation is not None and organisation.is_disabled:
            return _organisation_disabled()
        return None

    async def refresh(self, callers: Iterable[Caller] = ()) -> None:
        """Read organisations and, when it is time, the issuer's keys anew; a loop's pass.

        Organisations of these callers, whose calls are open, are read by their ids: what a token
        names may be another one, or none, by now.
        """
        await self._keys.refresh()
        await self._organisations.refresh(
            [str(each.organisation_id) for each in callers if isinstance(each.proof, SignedBy)]
        )

    async def _verify(self, text: str) -> _Token | None:
        try:
            key_id = jwt.get_unverified_header(text).get("kid", "")
            key = await self._keys.find(key_id) if key_id else None
            if key is None:
                _tell_refusal("its key is not one of the issuer's")
                return None
            claims = jwt.decode(
                text,
                key,
                algorithms=list(self._settings.jwt_algorithms),
                audience=self._settings.jwt_audience,
                issuer=self._settings.jwt_issuer,
                leeway=_CLOCK_SKEW_SECONDS,
                options={"require": _REQUIRED_CLAIMS},
            )
        except jwt.ExpiredSignatureError:
            raise expired() from None
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            _tell_refusal(str(error))
            return None
        token = _read_claims(self._settings, key_id, claims)
        if token is None:
            _tell_refusal("its claims are not understood")
            return None
        self._verified[self._keys.generation, text] = token
        if len(self._verified) > _REMEMBERED_TOKENS:
            self._verified.popitem(last=False)
        return token

    async def _load(self, names: list[str]) -> Mapping[str, _Organisation]:
        rows = await find_organisations(self._pool, names)
        return {
            row["asked"]: _Organisation(row["id"], row["is_disabled"], row["is_operator"])
            for row in rows
        }


def expired() -> Unauthenticated:
    """The error for a credential whose time is over."""
    return Unauthenticated("CREDENTIAL_EXPIRED", "the credential has expired")


def _organisation_disabled() -> Unauthenticated:
    return Unauthenticated("CREDENTIAL_REVOKED", "the organisation is disabled")


def _tell_refusal(why: str) -> None:
    """Tell the operator, and nobody else, why a token is not taken."""
    log.debug("token_refused", why=why)


def _read_claims(settings: Settings, key_id: str, claims: Mapping[str, Any]) -> _Token | None:
    """What the claims say of the caller; None if they do not say it in a way that is understood."""
    organisation = claims.get(settings.jwt_organisation_claim)
    project = claims.get(settings.jwt_project_claim)
    granted = claims.get(settings.jwt_permissions_claim, "")
    names = granted.split() if isinstance(granted, str) else granted
    if not isinstance(organisation, str) or not isinstance(names, list):
        return None
    try:
        project_id = UUID(project) if project is not None else None
        expires_at = datetime.fromtimestamp(claims["exp"] + _CLOCK_SKEW_SECONDS, UTC)
    except (ValueError, AttributeError, TypeError, OverflowError, OSError):
        return None
    return _Token(
        str(claims["sub"])[:200],
        SignedBy(key_id),
        organisation,
        project_id,
        # Scopes of other systems may stand beside ours.
        frozenset(_PERMISSIONS[name] for name in names if name in _PERMISSIONS),
        expires_at,
    )
