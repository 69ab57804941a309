"""Finds out who calls: by an API key, a token, or the certificate that the client proved.

Which of several things is wrong with a credential is told only to whoever proves its secret: to
everybody else each is `CREDENTIAL_INVALID`, after the same work.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import asyncpg

from taskforge_core.api_keys import looks_like_api_key, parse_api_key
from taskforge_core.callers import EVERYONE, Caller
from taskforge_core.database import Database
from taskforge_core.errors import TaskForgeError, Unauthenticated
from taskforge_core.json_web_tokens import SignedBy, TokenAuthenticator, expired
from taskforge_core.queries import find_api_keys, note_key_use
from taskforge_core.remembering import Remembered

_SCHEME = "bearer "
_LONGEST_CREDENTIAL = 16 * 1024

Credential = str
"""The value of the metadata `authorization`; empty where a call brings none."""


class Authenticator(Protocol):
    """Tells who calls, and whether a call that is open may go on."""

    async def authenticate(self, credential: Credential, certificate: Sequence[str], /) -> Caller:
        """Who brings this credential, or proved a certificate with these names.

        Raises:
            Unauthenticated: Nobody that is known, or no longer.
            TaskForgeError: The database, or the issuer of a token, cannot be asked.
        """

    def objection(self, caller: Caller, /) -> TaskForgeError | None:
        """Why an open call of this caller must end, if it must."""

    async def refresh(self, callers: Iterable[Caller] = (), /) -> None:
        """Read anew what is remembered, and what these, whose calls are open, hang on.

        The pass of a loop.
        """


class NoAuthenticator:
    """Authentication is switched off: whoever calls may do everything."""

    async def authenticate(self, _credential: Credential, _certificate: Sequence[str]) -> Caller:
        return EVERYONE

    def objection(self, _caller: Caller) -> TaskForgeError | None:
        return None

    async def refresh(self, _callers: Iterable[Caller] = ()) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Key:
    """An API key as it is stored, and its owner as a caller."""

    id: UUID
    secret_hash: bytes | None
    is_revoked: bool
    has_expired: bool
    caller: Caller


_Sought = UUID | str
"""What a key is looked for by: its id, or the name of a certificate."""


@dataclass(frozen=True, slots=True)
class _KeyProof:
    """What a key's caller is looked up by again, and which key that has to find."""

    sought: _Sought
    key_id: UUID
    """The name of a certificate can stand for another key by now."""


class CredentialAuthenticator:
    """Knows API keys, the certificates that stand for some, and tokens if an issuer is set."""

    def __init__(self, database: Database) -> None:
        self._pool = database.hot
        self._tokens = TokenAuthenticator(database) if database.settings.jwt_issuer else None
        self._keys: Remembered[_Sought, _Key] = Remembered(self._load)
        self._used: set[UUID] = set()

    async def authenticate(self, credential: Credential, certificate: Sequence[str]) -> Caller:
        text = _bearer(credential) if credential else ""
        if text and self._tokens is not None and not looks_like_api_key(text):
            caller = await self._tokens.authenticate(text)
            if caller is None:
                raise _invalid()
            return caller
        if credential:
            key = await self._proved_by_secret(text)
        else:
            key = await self._proved_by_certificate(certificate)
        problem = _problem(key)
        if problem is not None:
            raise problem
        self._used.add(key.id)
        return key.caller

    def objection(self, caller: Caller) -> TaskForgeError | None:
        if isinstance(caller.proof, SignedBy):
            return self._tokens.objection(caller) if self._tokens is not None else None
        assert isinstance(caller.proof, _KeyProof)
        key = self._keys.peek(caller.proof.sought)
        if key is None:
            # Keys are never deleted, so one that is not known cannot be read now: no reason to end
            # what goes on.
            return None
        return _revoked() if _has_lost(caller, key.caller) else _problem(key)

    async def refresh(self, callers: Iterable[Caller] = ()) -> None:
        await self._keys.refresh()
        used, self._used = self._used, set()
        if used:
            await note_key_use(self._pool, sorted(used))
        if self._tokens is not None:
            await self._tokens.refresh(callers)

    async def _proved_by_secret(self, text: str) -> _Key:
        given = parse_api_key(text)
        if given is None:
            raise _invalid()
        key = await self._keys.get(given.id)
        if not given.proves(key.secret_hash if key is not None else None) or key is None:
            raise _invalid()
        return key

    async def _proved_by_certificate(self, names: Sequence[str]) -> _Key:
        for name in names:
            key = await self._keys.get(name)
            if key is not None:
                return key
        raise Unauthenticated(
            "CREDENTIAL_MISSING", "send an API key or a token as `authorization: Bearer …`"
        )

    async def _load(self, keys: list[_Sought]) -> Mapping[_Sought, _Key]:
        rows = await find_api_keys(
            self._pool,
            [key for key in keys if isinstance(key, UUID)],
            [key for key in keys if isinstance(key, str)],
        )
        return dict(map(_key, rows))


def _bearer(credential: Credential) -> str:
    """What stands behind `Bearer `; empty where there is nothing that could be a credential."""
    scheme, text = credential[: len(_SCHEME)], credential[len(_SCHEME) :].strip()
    if scheme.lower() != _SCHEME or len(text) > _LONGEST_CREDENTIAL:
        return ""
    return text


def _key(row: asyncpg.Record) -> tuple[_Sought, _Key]:
    sought: _Sought = row["certificate_name"] or row["id"]
    caller = Caller(
        f"key {row['id']}",
        row["organisation_id"],
        row["project_id"],
        frozenset(row["permissions"]),
        is_operator=row["is_operator"],
        proof=_KeyProof(sought, row["id"]),
    )
    return sought, _Key(
        row["id"], row["secret_hash"], row["is_revoked"], row["has_expired"], caller
    )


def _problem(key: _Key) -> Unauthenticated | None:
    if key.is_revoked:
        return _revoked()
    return expired() if key.has_expired else None


def _has_lost(caller: Caller, present: Caller) -> bool:
    """Whether the key that a caller came by is another one now, or no longer lets it do as much."""
    return (
        present.proof != caller.proof
        or present.organisation_id != caller.organisation_id
        or present.project_id != caller.project_id
        or not present.permissions >= caller.permissions
    )


def _revoked() -> Unauthenticated:
    return Unauthenticated(
        "CREDENTIAL_REVOKED",
        "the key, or something that it allowed, was revoked, or its organisation is disabled",
    )


def _invalid() -> Unauthenticated:
    return Unauthenticated("CREDENTIAL_INVALID", "this is no valid credential")
